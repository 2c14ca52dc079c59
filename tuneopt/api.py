"""The public Python API: the same steps that the command line takes, as functions.

    from tuneopt import api
    sweep, corpus = api.plan("soap", scale="nano-65k", ratio=1)
    result = api.tune(sweep, corpus, ledger="ledger")
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneopt.spec import InputError, Regime, TrialSpec, Value, find_scale, nearest

if TYPE_CHECKING:
    from tuneopt.cluster.progress import Progress, SweepResult
    from tuneopt.data import Corpus
    from tuneopt.ledger import CurvePoint, Ledger, TrialRecord
    from tuneopt.search.sweep import Sweep

VOCAB_SIZES = {"nano": 512, "paper": 32_768}
"""Entries of the tokenizer trained for a corpus that brings none. Nano: the head must not outweigh the body."""

POLICIES = ("joint", "single", "cyclic")


def parse_value(text: str) -> Value:
    """A hyperparameter value as typed: true/false, a whole number, a number, else a word."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def parse_assignments(pairs: Sequence[str], option: str) -> dict[str, str]:
    """``["a=1", "b=2"]`` as a mapping of texts; raises `InputError` for a pair without a name, a value or an ``=``."""
    parsed: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name.strip() and equals and value.strip()):
            raise InputError(f"{option} {pair!r} is not of the form name=value, such as learning_rate=0.01")
        if name.strip() in parsed:
            raise InputError(f"{option} names {name.strip()!r} twice; keep one")
        parsed[name.strip()] = value.strip()
    return parsed


def plan(
    optimizer: str,
    *,
    scale: str = "nano-65k",
    ratio: float = 1.0,
    corpus: str = "embedded",
    overrides: Mapping[str, Value] | None = None,
    grids: Mapping[str, Sequence[Value]] | None = None,
    seed: int = 0,
    replicates: int = 3,
    policy: str = "joint",
    compile: bool | None = None,
) -> tuple[Sweep, Corpus]:
    """A sweep of one optimizer in one regime, with the prepared corpus it runs on; nothing is trained yet.

    ``overrides`` pins coordinates to one value, ``grids`` replaces their grids. ``compile=None`` compiles wherever a
    compiler is found. Raises `InputError` for anything that cannot be run.
    """
    from tuneopt.search.space import load_space
    from tuneopt.search.sweep import Sweep

    shape = find_scale(scale)
    space = load_space(optimizer).on(shape.ladder, overrides or {}, grids or {})
    if policy not in POLICIES:
        raise InputError(f"unknown policy {policy!r}; {nearest(policy, POLICIES)}")
    regime, loaded = _regime(scale, ratio, corpus)
    sweep = Sweep(space, regime, seed=seed, replicates=replicates, policy=policy, compile=_compile(compile))
    for name, value in sweep.space.grid.items():
        if name == "train_batch_size":
            for batch in value:
                regime.steps(int(batch))
    return sweep, loaded


def single_trial(
    optimizer: str,
    *,
    scale: str = "nano-65k",
    ratio: float = 1.0,
    corpus: str = "embedded",
    overrides: Mapping[str, Value] | None = None,
    seed: int = 0,
    compile: bool | None = None,
) -> tuple[TrialSpec, Corpus]:
    """One trial: the space's start with ``overrides``, and the corpus it runs on. Raises `InputError`."""
    sweep, loaded = plan(
        optimizer, scale=scale, ratio=ratio, corpus=corpus, overrides=overrides, seed=seed, compile=compile
    )
    return sweep.spec(sweep.space.start_config, seed), loaded


def tune(
    sweep: Sweep,
    corpus: Corpus,
    ledger: Ledger | str,
    *,
    address: str | None = None,
    max_concurrent: int | None = None,
    gpus_per_trial: float = 0.0,
    listener: Callable[[Progress], None] = lambda progress: None,
) -> SweepResult:
    """Run a sweep to its certificate on Ray Tune, and keep an account of this run in the ledger."""
    from tuneopt.cluster.driver import run_sweep
    from tuneopt.ledger import open_ledger

    opened = open_ledger(ledger) if isinstance(ledger, str) else ledger
    result = run_sweep(
        sweep,
        opened,
        corpus.source,
        address=address,
        max_concurrent=max_concurrent,
        gpus_per_trial=gpus_per_trial,
        listener=listener,
    )
    if result.run or result.failed:
        opened.put_run(
            {
                "sweep": sweep.id,
                "run": result.run,
                "reused": result.reused,
                "failed": result.failed,
                "slots": result.slots,
                "wall_seconds": result.wall_seconds,
                "busy_seconds": result.busy_seconds,
                "interrupted": result.interrupted,
            }
        )
    return result


def train(
    spec: TrialSpec,
    corpus: Corpus,
    ledger: Ledger | str,
    on_point: Callable[[CurvePoint], Any] = lambda point: None,
) -> TrialRecord:
    """Train one trial in this process, without Ray; a trial that the ledger holds is returned as it is."""
    from tuneopt.ledger import open_ledger
    from tuneopt.train.run import run_trial

    opened = open_ledger(ledger) if isinstance(ledger, str) else ledger
    return run_trial(spec, corpus, opened, on_point=on_point)


def report(ledger: Ledger | str, path: Path | str, sweeps: Sequence[str] | None = None) -> dict[str, Any]:
    """Write the one-file HTML report of a ledger (or of some of its sweeps); returns what ``report --json`` prints."""
    from tuneopt.ledger import open_ledger
    from tuneopt.report import write_report

    opened = open_ledger(ledger, must_exist=True) if isinstance(ledger, str) else ledger
    return write_report(opened, Path(path), sweeps)


def _regime(scale: str, ratio: float, corpus: str) -> tuple[Regime, Corpus]:
    from tuneopt.data import load_corpus
    from tuneopt.spec import CorpusId

    shape = find_scale(scale)
    Regime(shape, ratio, CorpusId("unread", "", 0))  # a bad ratio is answered before any text is tokenized
    loaded = load_corpus(corpus, vocab_size=VOCAB_SIZES[shape.ladder])
    return Regime(shape, ratio, loaded.id), loaded


def _compile(wanted: bool | None) -> bool:
    from tuneopt.train.engine import can_compile

    if wanted and not can_compile():
        raise InputError("--compile needs a C++ compiler; install g++ or leave it out")
    return can_compile() if wanted is None else wanted

"""The auditor, tested by mutation: plant seeded corruptions in a ledger, and count which ones are caught.

    python benchmarks/auditor.py --corruptions 20000 --seed 0 [--markdown auditor.md]

A small ledger (records as a worker writes them, a sweep, accounts of runs, a compaction) is copied, one thing in the
copy is changed, and the copy is verified and read. A corruption is *caught* where `verify` names a problem that the
whole ledger does not have, or a reader refuses. It *matters* where what readers give differs from before: rows, curves,
sweeps, accounts. What matters and is not caught is missed. Everything follows from the seed.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import shutil
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tuneopt import api
from tuneopt.errors import InputError
from tuneopt.ledger import CurvePoint, Ledger, TrialRecord
from tuneopt.scale_files import find_scale
from tuneopt.search.records import stored_sweep
from tuneopt.search.space import load_space
from tuneopt.search.sweep import Sweep
from tuneopt.spec import CorpusId, Regime

REGIME = Regime(find_scale("nano-65k"), 0.2, CorpusId("made-up", "00ff" * 4, 1024))
RECORDS = 6

PLAN_ID = "0123456789abcdef"
PLAN = """# A comparison, planned for a budget.
name: compare
optimizers: [adamw, muon]
scales: [nano-65k]
ratios: [0.2, 0.28]
corpus: made-up
seed: 0
replicates: 2
comparison: {baseline: adamw, ratios: [0.2, 0.28], trials: 12, rate_trials: 3, seeds: 3, reserve: 1.5, hours: 2.0}
"""


def sample(sweep: Sweep, number: int) -> TrialRecord:
    """A record with all that a worker writes: a curve, a proof with its checks, routing, an environment."""
    spec = sweep.spec(sweep.space.start, seed=number)
    tokens_a_step, loss = spec.batch * REGIME.scale.seq_len, 3.5 + number / 64
    falling = [6.9, *(loss + 0.4 / point for point in range(1, 10)), loss + 0.01]
    steps = sorted({round(spec.steps * place / (len(falling) - 1)) for place in range(len(falling))})
    curve = tuple(
        CurvePoint(step, step * tokens_a_step, 0.004, at + 0.02, at, at + 0.01, 3.0 * place)
        for place, (step, at) in enumerate(zip(steps, falling, strict=True))
    )
    checks = [
        {"name": f"adamw.{kind}", "passed": True, "measured": 1e-7 * place, "expected": "<= 2e-05", "detail": "seen"}
        for place, kind in enumerate(("parameters", "embedding", "vector", "square", "head"))
    ]
    routing = tuple(
        {"parameter": f"layers.{layer}.norm.weight", "shape": [32], "rule": "adamw", "decay": False, "reason": "norm"}
        for layer in range(4)
    )
    return TrialRecord(
        trial=spec.id, status="completed", spec=spec, select_loss=loss, report_loss=loss + 0.01, initial_loss=6.9,
        curve=curve, tokens=spec.steps * tokens_a_step, steps=spec.steps, epochs=0.25, flops=1.5e12,
        seconds={"train": 27.25, "eval": 3.5, "startup": 1.125, "checkpoint": 0.25}, peak_bytes=520949760,
        checkpoint_bytes=1050880, optimizer_state_bytes=788736,
        proof={"passed": True, "status": "passed", "reason": "", "checks": checks}, routing=routing,
        environment={"torch": "2.13.0", "devices": 1, "system": "Linux"}, started="2026-01-31T12:00:00+00:00",
        ended=f"2026-01-31T12:01:{number:02d}+00:00", resumes=number % 2, tokens_per_second=48123.5, notes=("a note",),
    )  # fmt: skip


def whole(folder: Path) -> Ledger:
    """The ledger that corruptions are planted in."""
    ledger, sweep = Ledger(folder), Sweep(load_space("adamw").on("nano"), REGIME)
    records = [sample(sweep, number) for number in range(RECORDS)]
    for record in records:
        ledger.put(record)
    ledger.put_sweep(sweep.id, {**sweep.to_dict(), "corpus_source": "made-up"})
    _compare(ledger, sweep, records)
    trials = [record.trial for record in records]
    for half in (trials[:3], trials[3:]):
        counts = {"slots": 2, "wall_seconds": 96.5, "busy_seconds": 92.25, "interrupted": False}
        ledger.put_run({"sweep": sweep.id, "run": half, "reused": [], "failed": {}, **counts})
    ledger.compact()
    return ledger


def _compare(ledger: Ledger, sweep: Sweep, records: Sequence[TrialRecord]) -> None:
    """What a comparison leaves besides: its plan, sweeps of its phases with peers and evidence, and accounts."""
    ledger.put_plan(PLAN_ID, PLAN)
    sweeps = [sweep.id]
    evidence = [{"optimizer": "adamw", "parameters": 65536.0, "ratio": 0.2, "config": ["x"], "seed": 1, "loss": 3.5}]
    for seed, phase in enumerate(("seeds", "baseline", "bracket"), start=1):
        one = replace(sweep, seed=seed, replicates=2)
        about = {"study": "compare", "study_id": "0f" * 8, "phase": phase, "peers": [records[seed].trial]}
        ledger.put_sweep(one.id, {**one.to_dict(), "corpus_source": "made-up", "evidence": evidence, **about})
        sweeps.append(one.id)
    share = {"study": "0f" * 8, "run": [], "reused": [], "failed": {}, "slots": 2}
    ledger.put_run({**share, "sweeps": sweeps, "wall_seconds": 50.5, "busy_seconds": 48.0, "interrupted": False})


def figures(ledger: Ledger) -> str:
    """All that a report may compute from, as one text; raises `InputError` as a report does."""
    sweeps = {name: stored_sweep(plain, name).to_dict() | dict(plain) for name, plain in ledger.sweeps().items()}
    records = [record.to_json() for record in ledger.records()]
    plan = ledger.plan(PLAN_ID)
    parts = [plan, ledger.table().to_pylist(), ledger.curves().to_pylist(), sweeps, ledger.runs(), records]
    return json.dumps(parts, sort_keys=True, default=str)


# Corruptions. Each takes a file and a source of randomness, and changes something in the folder.


def _flip(path: Path, draw: random.Random) -> None:
    data = bytearray(path.read_bytes())
    bit = draw.randrange(8 * len(data))
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def _cut(path: Path, draw: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: draw.randrange(len(data))])


def _zero(path: Path, draw: random.Random) -> None:
    data = bytearray(path.read_bytes())
    at = draw.randrange(len(data))
    data[at : at + 512] = bytes(len(data[at : at + 512]))
    path.write_bytes(data)


def _block(path: Path, draw: random.Random) -> None:
    """A block of the file over another one, as after a lost write of a sector."""
    data = bytearray(path.read_bytes())
    a, b = draw.randrange(len(data)), draw.randrange(len(data))
    size = min(64, len(data) - max(a, b))
    data[a : a + size] = data[b : b + size]
    path.write_bytes(data)


def _append(path: Path, draw: random.Random) -> None:
    path.write_bytes(path.read_bytes() + draw.choice((b"{}", b"\0" * 100, b"\n", b" ", path.read_bytes())))


def _leaves(tree: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        yield (*at, key)
        yield from _leaves(value, (*at, key))


def _other(value: Any, draw: random.Random) -> Any:
    """Another value of the same kind, as a slip or a script would leave it."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return draw.choice((value + 1, value * 10, -value, value // 2))
    if isinstance(value, float):
        return draw.choice((value * 1.0001, value - 0.25, -value, value * 10, round(value, 2) + 0.001))
    if isinstance(value, str):
        return draw.choice((value + "x", value[:-1], "adamw2", ""))
    return None if value is not None else 0


def _rewrite(path: Path, draw: random.Random, change: Callable[[Any, Any], None], seal: str) -> None:
    tree = json.loads(path.read_text())
    kept = tree.pop("seal", None)
    places = list(_leaves(tree))
    *above, last = draw.choice(places)
    parent = tree
    for key in above:
        parent = parent[key]
    change(parent, last)
    if seal == "kept" and kept is not None:
        tree["seal"] = kept
    path.write_text(json.dumps(tree, separators=(",", ":")) + "\n")


def _field(seal: str) -> Callable[[Path, random.Random], None]:
    def act(path: Path, draw: random.Random) -> None:
        def change(parent: Any, last: Any) -> None:
            parent[last] = _other(parent[last], draw)

        _rewrite(path, draw, change, seal)

    return act


def _gone(seal: str) -> Callable[[Path, random.Random], None]:
    def act(path: Path, draw: random.Random) -> None:
        def change(parent: Any, last: Any) -> None:
            del parent[last]

        _rewrite(path, draw, change, seal)

    return act


def _twice(path: Path, draw: random.Random) -> None:
    """A key a second time, with another value; of two equal keys Python keeps the last."""
    tree = json.loads(path.read_text())
    name = draw.choice(list(tree))
    path.write_text(path.read_text().rstrip()[:-1] + f',"{name}":{json.dumps(_other(tree[name], draw))}}}\n')


def _delete(path: Path, draw: random.Random) -> None:
    path.unlink()


def _copied(path: Path, draw: random.Random) -> None:
    """Under another name of the same form, so that it counts twice or for another one."""
    name = path.stem[:-1] + ("0" if path.stem[-1] != "0" else "1")
    shutil.copy(path, path.with_name(name + path.suffix))


def _over(path: Path, draw: random.Random) -> None:
    """Over a neighbour, or an account over another: two files with one content."""
    others = [other for other in sorted(path.parent.iterdir()) if other != path and other.suffix == path.suffix]
    if others:
        shutil.copy(path, draw.choice(others))
    else:
        _cut(path, draw)


def _odd(make: Callable[[Path], None]) -> Callable[[Path, random.Random], None]:
    def act(path: Path, draw: random.Random) -> None:
        path.unlink()
        make(path)

    return act


def _row(path: Path, draw: random.Random) -> None:
    """A value in the compaction, written again as a table without its seal, or with a doubled or missing row."""
    table = pq.read_table(path)
    how = draw.choice(("value", "double", "drop"))
    if how == "value":
        names = [field.name for field in table.schema if pa.types.is_floating(field.type)]
        place = table.schema.get_field_index(draw.choice(names))
        values = [None if value is None else value * 1.01 for value in table.column(place).to_pylist()]
        table = table.set_column(place, table.schema.field(place), pa.array(values, table.schema.field(place).type))
    elif how == "double":
        table = pa.concat_tables([table, table.slice(0, 1)])
    else:
        table = table.slice(1)
    pq.write_table(table, path)


BYTES = {"bit": _flip, "cut": _cut, "zeros": _zero, "block": _block, "more bytes": _append}
FIELDS = {"field changed": _field("kept"), "field gone": _gone("kept"), "key twice": _twice}
FILES = {"file gone": _delete, "file copied": _copied, "file over another": _over}
ODD = {
    "a folder": _odd(Path.mkdir),
    "a FIFO": _odd(os.mkfifo),
    "a link to itself": _odd(lambda path: path.symlink_to(path.name)),
    "a link to nothing": _odd(lambda path: path.symlink_to("elsewhere")),
    "a device": _odd(lambda path: path.symlink_to("/dev/null")),
}
UNSEALED = {"field changed, no seal": _field("removed"), "field gone, no seal": _gone("removed")}
"""What a person does who takes the seal away as well: then the file passes for one of an earlier release."""

JSON = {**BYTES, **FIELDS, **FILES, **ODD}
TARGETS: dict[str, dict[str, Callable[[Path, random.Random], None]]] = {
    "trials": JSON,
    "sweeps": JSON,
    "runs": JSON,
    "last-run.json": {**BYTES, **FIELDS, "file gone": _delete, **ODD},
    "comparisons": {**BYTES, **FILES, **ODD},
    "compacted": {**BYTES, "row": _row, **ODD},
    "ledger.json": {**BYTES, **FIELDS, **ODD},
}


def audit(corruptions: int, seed: int, unsealed: bool = False) -> dict[tuple[str, str], Counter[str]]:
    """Counts by kind of file and of corruption: ``planted``, ``matter``, ``caught`` (of those), ``missed``, ``noted``.

    ``noted`` are the missed ones whose file is among the unsealed ones that ``verify`` counts.
    """
    shared = Path("/dev/shm")
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as name:
        made = whole(Path(name) / "whole")
        expected, draw = figures(made), random.Random(seed)
        kinds = [(target, kind) for target, acts in TARGETS.items() for kind in acts]
        if unsealed:
            kinds = [(target, kind) for target in ("trials", "sweeps", "runs") for kind in UNSEALED]
        for number in range(corruptions):
            target, kind = kinds[number % len(kinds)]
            folder = Path(name) / "copy"
            shutil.copytree(made.uri, folder)
            _plant(folder, target, (UNSEALED if unsealed else TARGETS[target])[kind], draw)
            _count(counts[target, kind], Ledger(folder), expected)
            shutil.rmtree(folder)
    return counts


def _plant(folder: Path, target: str, act: Callable[[Path, random.Random], None], draw: random.Random) -> None:
    place = folder / target
    act(place if place.is_file() else draw.choice(sorted(place.iterdir())), draw)


def _count(counts: Counter[str], ledger: Ledger, expected: str) -> None:
    counts["planted"] += 1
    try:
        problems, refused = api.verify(ledger.uri), False  # by its address, as the command does
    except InputError:
        problems, refused = None, True
    try:
        changed = figures(ledger) != expected
    except InputError:
        changed = refused = True
    caught = refused or bool(problems and problems.problems)
    counts["named"] += caught
    counts["matter"] += changed
    counts["caught"] += changed and caught
    counts["missed"] += changed and not caught
    counts["noted"] += bool(changed and not caught and problems and problems.unsealed)


def markdown(counts: dict[tuple[str, str], Counter[str]]) -> str:
    """A table by kind of file and corruption."""
    lines = ["| file | corruption | planted | named | could change a figure | caught | missed |", "|" + "---|" * 7]
    for (target, kind), row in sorted(counts.items()):
        cells = (row["planted"], row["named"], row["matter"], row["caught"], row["missed"])
        lines.append(f"| {target} | {kind} | " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corruptions", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--unsealed", action="store_true", help="take the seal away with each change")
    parser.add_argument("--markdown", type=Path)
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    counts = audit(given.corruptions, given.seed, given.unsealed)
    total = sum(counts.values(), Counter[str]())
    bits = sum((row for (_, kind), row in counts.items() if kind == "bit"), Counter[str]())
    if given.markdown:
        given.markdown.write_text(markdown(counts) + "\n")
    print(markdown(counts))
    share = total["caught"] / max(1, total["matter"])
    print(f"{total['caught']} of {total['matter']} that could change a figure were caught ({share:.2%}), ", end="")
    print(f"{bits['named']} of {bits['planted']} flipped bits were named")
    return 0 if given.unsealed or (share >= 0.98 and bits["named"] == bits["planted"]) else 1


if __name__ == "__main__":
    sys.exit(main())

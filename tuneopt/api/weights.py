"""A trial's trained model for other programs: its kept weights, or the trial trained again.

A ledger keeps weights on request alone (``--keep-weights``), because those of a whole sweep would fill a disk. A trial
is a function of its specification, so weights that were not kept can be had again for the price of the trial, on one
machine to the last bit. The record is never touched: it stands for the run that was compared.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneopt.paths import expanded
from tuneopt.spec import InputError, OwnModel, TrialSpec, nearest

if TYPE_CHECKING:
    from tuneopt.data import Corpus
    from tuneopt.ledger import CurvePoint, Ledger, TrialRecord

FORMATS = ("hf",)
"""``hf``: transformers' Llama, as safetensors with configuration and tokenizer."""

RECORD = "trial.json"
"""The file in an export that holds the trial's record."""


@dataclass(frozen=True, slots=True)
class ExportedModel:
    """A model that was written; ``retrained_select_loss`` (nats) is there where the trial was trained again for it."""

    trial: str
    path: str
    format: str
    files: list[str]
    bytes: int
    select_loss: float | None  # nats per token, of the record
    retrained_select_loss: float | None

    def to_dict(self) -> dict[str, Any]:
        """The JSON shape of ``export``."""
        return asdict(self)


def export_model(
    trial: str,
    folder: Path | str,
    ledger: Ledger | str,
    *,
    to: str = "hf",
    retrain: bool = False,
    corpus: str | None = None,
    on_point: Callable[[CurvePoint], Any] = lambda point: None,
) -> ExportedModel:
    """Write the final model of a trial into ``folder``, which must be new or empty.

    ``trial`` is an id or enough of its beginning. Weights are there when the trial ran with ``keep_weights``; else
    ``retrain`` trains it again in this process, on the corpus that the ledger names or ``corpus``, and keeps them.
    Raises `InputError` for a trial without final weights, and for a folder that holds files.
    """
    from tuneopt.ledger import find_record, open_ledger
    from tuneopt.ledger.folders import fetch_folder, has_folder
    from tuneopt.training.weights import kept_weights

    if to not in FORMATS:
        raise InputError(f"cannot export to {to!r}; {nearest(to, FORMATS)}")
    opened = open_ledger(ledger, must_exist=True) if isinstance(ledger, str) else ledger
    target = expanded(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} is there already and not empty; name a new folder")
    record = find_record(opened, trial)
    # Everything that can be refused is refused here: to train again may take hours.
    if record.status != "completed":
        raise InputError(f"trial {record.trial} {record.status}, so it has no final weights; choose another")
    name = kept_weights(record.trial)
    scale = record.spec.regime.scale
    if isinstance(scale, OwnModel):
        raise InputError(
            f"trial {record.trial} trained {scale.model.partition('@')[0]}, a model of your own, which transformers "
            f"cannot load; weights that were kept are a state dict in {opened.uri}/{name}"
        )
    again = None
    if not has_folder(opened, name):
        if not retrain:
            raise InputError(
                f"trial {record.trial} kept no weights; add --retrain to train it again (about "
                f"{sum(record.seconds.values()):.0f} s on what it ran on), or tune with --keep-weights"
            )
        again = _train_again(record, opened, corpus, on_point)
    # Filled next to its place and renamed: whoever finds the folder finds a whole model.
    scratch = target.with_name(f".{target.name}.part")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    fetch_folder(opened, name, scratch)
    (scratch / RECORD).write_text(record.to_json() + "\n")
    if target.exists():
        target.rmdir()  # empty, as was checked; a file that came meanwhile makes this fail, and is kept
    scratch.rename(target)
    return ExportedModel(
        trial=record.trial,
        path=str(target),
        format=to,
        files=sorted(path.name for path in target.iterdir()),
        bytes=sum(path.stat().st_size for path in target.iterdir()),
        select_loss=record.select_loss,
        retrained_select_loss=again.select_loss if again else None,
    )


def _train_again(
    record: TrialRecord, ledger: Ledger, corpus: str | None, on_point: Callable[[CurvePoint], Any]
) -> TrialRecord:
    """Train the trial in this process, in a ledger of its own; the weights go into ``ledger``, whose record stays."""
    from tuneopt.ledger import Ledger
    from tuneopt.ledger.folders import fetch_folder, new_folder
    from tuneopt.paths import cache_folder
    from tuneopt.training.run import run_trial
    from tuneopt.training.weights import kept_weights

    loaded = _corpus(record.spec, ledger, corpus)
    # Not a temporary folder: who is killed here goes on from the last checkpoint next time.
    scratch = cache_folder() / "retrained" / record.trial
    # A ledger of its own, because the trial's own ledger holds its record already, and would train nothing.
    again = run_trial(record.spec, loaded, Ledger(scratch), keep_weights=True, on_point=on_point)
    if again.status != "completed":
        raise InputError(f"trial {record.trial} {again.status} when it was trained again here; its record stands")
    with new_folder(ledger, kept_weights(record.trial)) as folder:
        fetch_folder(Ledger(scratch), kept_weights(record.trial), folder)
    shutil.rmtree(scratch, ignore_errors=True)
    return again


def _corpus(spec: TrialSpec, ledger: Ledger, given: str | None) -> Corpus:
    """The corpus of a trial: as given, as a sweep of the ledger names it, or the embedded one."""
    from tuneopt.data import load_corpus
    from tuneopt.outside import adopt

    # A record names its corpus by fingerprint; only the sweep that asked for it knows where the text lies. The same
    # walk finds the file of a user's own optimizer.
    wanted, sources = spec.regime.corpus, []
    for sweep in ledger.sweeps().values():
        if sweep.get("space", {}).get("optimizer") == spec.optimizer:
            adopt(spec.optimizer, sweep.get("optimizer_source", ""))
        if sweep.get("regime", {}).get("corpus", {}).get("fingerprint") == wanted.fingerprint:
            sources.append(str(sweep.get("corpus_source", "")))
    for source in dict.fromkeys([given] if given else [*filter(None, sources), "embedded"]):
        try:
            loaded = load_corpus(source, vocab_size=wanted.vocab_size)
        except InputError:  # moved, or of another machine: the next sweep may know better
            continue
        if loaded.id.fingerprint == wanted.fingerprint:
            return loaded
    raise InputError(
        f"the corpus of trial {spec.id}, {wanted.name}, is not {given or 'to be found'} here; "
        "name the very text it was trained on with --corpus"
    )

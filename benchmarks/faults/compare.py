"""The final ledger against the undisturbed one, record by record, and the final answer against its answer."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tuneopt.data import load_corpus
from tuneopt.ledger import Ledger, TrialRecord
from tuneopt.training.run import run_trial

VARIABLE = (
    "seconds", "peak_bytes", "environment", "started", "ended", "resumes", "tokens_per_second", "checkpoint_bytes",
)  # fmt: skip
"""Fields of a record that tell of its run and not of its result."""


def result(record: TrialRecord) -> dict[str, Any]:
    """Everything in a record that must not depend on what happened to its run: specification, losses, curve, proof."""
    plain = {name: value for name, value in record.to_dict().items() if name not in VARIABLE}
    plain["curve"] = [
        {name: value for name, value in asdict(point).items() if name != "seconds"} for point in record.curve
    ]
    return plain


def answer(document: dict[str, Any]) -> list[dict[str, Any]]:
    """What a study claims: certificates, winners and their losses."""
    names = ("optimizer", "scale", "ratio", "sweep", "certificate", "best", "sigma", "trials")
    return [{name: row[name] for name in names} for row in document["results"]]


def compare(ledger: Ledger, reference: Ledger, seen: set[str], cache: Path) -> dict[str, Any]:
    """Lost, doubled and different records.

    ``seen`` are the trials that had a record at some time. A trial that only the disturbed run trained, looking ahead
    in another order, is trained undisturbed now, and compared like the others.
    """
    records = {record.trial: record for record in ledger.records()}
    lost = sorted(seen - set(records))
    ran = Counter(trial for run in ledger.runs().values() for trial in run.get("run", ()))
    undisturbed = {record.trial: record for record in reference.records()}
    extra = [record for trial, record in records.items() if trial not in undisturbed]
    for record in extra:
        corpus = load_corpus("embedded", vocab_size=record.spec.regime.corpus.vocab_size, cache_dir=cache)
        undisturbed[record.trial] = run_trial(record.spec, corpus, reference)
    different = [
        trial
        for trial, record in records.items()
        if json.dumps(result(record), sort_keys=True) != json.dumps(result(undisturbed[trial]), sort_keys=True)
    ]
    return {
        "records": len(records),
        "lost": lost,
        "different": sorted(different),
        "trained twice": sorted(trial for trial, count in ran.items() if count > 1),
        "ahead": len(extra),
    }

"""From a ledger to one HTML file that needs no network, and the document that ``report --json`` prints."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tuneopt.ledger import Ledger
from tuneopt.report.compare import Comparison, compare
from tuneopt.report.html import render
from tuneopt.report.page import Page, build_page
from tuneopt.report.study import Study, SweepView, read_study
from tuneopt.report.verdict import certificate_state, over_seeds
from tuneopt.spec import InputError


def write_report(ledger: Ledger, path: Path, sweeps: Sequence[str] | None = None) -> dict[str, Any]:
    """Write the report of a ledger's sweeps, or of those whose ids are given, to ``path``.

    Returns the document of ``report --json``: speedups, rankings, flips and warnings as the analysis gives them, with
    ``path`` and ``sweeps``. The same ledger gives the same file, byte for byte. Folders are made as needed; the file
    appears whole or not at all. Raises `InputError` for a ledger without sweeps, an unknown sweep and a path that
    cannot be written.
    """
    study = read_study(ledger, sweeps)
    comparison = compare(study)
    page = build_page(study, comparison)
    _write(path, render(page))
    return document(study, comparison, page, path)


def document(study: Study, comparison: Comparison, page: Page, path: Path) -> dict[str, Any]:
    """What ``report --json`` prints."""
    return {
        **comparison.document,
        "warnings": list(page.warnings),
        "sweeps": [_sweep(view) for view in study.views],
        "path": str(path),
    }


def _sweep(view: SweepView) -> dict[str, Any]:
    state, regime = view.state, view.sweep.regime
    certificate, best = state.descent.certificate, over_seeds(view.winner, "report")
    return {
        "id": view.id,
        "optimizer": view.optimizer,
        "regime": {"scale": regime.scale.name, "ratio": regime.ratio, "corpus": regime.corpus.name},
        "state": certificate_state(view),
        "certificate": {
            "complete": certificate.complete and state.finished,
            "tolerance": certificate.tolerance,
            "edges": list(certificate.edges),
        },
        "best": {
            "config": dict(state.descent.incumbent),
            "select_loss": state.descent.incumbent_loss,
            "report_loss": best.value if best else None,
            "report_error": best.error if best else None,
            "seeds": best.seeds if best else 0,
            "trial": view.sweep.trial_id(state.descent.incumbent),
        },
        "sigma": state.sigma,
        "trials": {
            "done": state.progress.done,
            "pending": len(state.pending),
            "diverged": state.progress.diverged,
            "unproven": state.progress.unproven,
        },
    }


def _write(path: Path, text: str) -> None:
    if path.is_dir():
        raise InputError(f"cannot write the report to {path}: it is a folder; name a file such as report.html")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".report-") as folder:
            temporary = Path(folder) / "report.html"
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)
    except OSError as error:
        raise InputError(f"cannot write the report to {path}: {error.strerror}; name another file") from None

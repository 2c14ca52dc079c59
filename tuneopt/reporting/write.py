"""From results to one HTML file that needs no network, and the document that ``report --json`` prints.

The whole walk of a loss is here: sources become typed runs (`gather`), these an analysis and its document (`compare`),
these the page (`build_page`), and the page HTML (`render`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tuneopt.analysis.inputs import Inputs
from tuneopt.ledger import Ledger
from tuneopt.parallel import uncollected
from tuneopt.paths import replacing
from tuneopt.reporting.compare import Comparison, compare
from tuneopt.reporting.html import render
from tuneopt.reporting.page import Page, build_page
from tuneopt.reporting.palette import ranked
from tuneopt.reporting.paper import Export
from tuneopt.reporting.sources import Material, Origin, counts, gather
from tuneopt.reporting.study import SweepView
from tuneopt.reporting.verdict import certificate_state, over_seeds


@uncollected()
def write_report(
    ledger: Ledger | None,
    path: Path,
    sweeps: Sequence[str] | None = None,
    *,
    results: Path | None = None,
    published: bool = False,
    columns: Mapping[str, str] | None = None,
    sigma: float | None = None,
    baseline: str | None = None,
    targets: Sequence[float] = (),
    export: Export | None = None,
    example: bool = False,
) -> dict[str, Any]:
    """Write the report of a ledger's sweeps (or of those whose ids are given), of a table, of the published study.

    ``results`` is a CSV, JSON or Parquet file whose columns ``columns`` may map; ``sigma`` (nats) replaces the measured
    noise, ``baseline`` is whom speedups are over, and ``targets`` are losses (nats) that optimizers race to. Returns
    the document of ``report --json``: what the analysis finds, with ``answer`` (the first screen), ``warnings``,
    ``path`` and ``sweeps``. ``export`` writes figures and tables for a paper as well. The same inputs give the same
    file, byte for byte. Folders are made as needed; the file appears whole or not at all. Raises `InputError` for no
    source, a ledger without sweeps, an unknown sweep, a file that holds no results and a path that cannot be written.
    """
    # Everything is read and judged before a byte is written: a source that cannot be read leaves an older report alone.
    material = gather(ledger, sweeps, results, published, columns, example)
    comparison = compare(material, sigma=sigma, baseline=baseline, targets=targets)
    material = replace(material, options=(*material.options, *_asked(sigma, baseline, targets)))
    sources = [*([] if results is None else [results]), *([] if ledger is None else ledger.own_places)]
    return _write(material, comparison, path, sources, export)


def _asked(sigma: float | None, baseline: str | None, targets: Sequence[float]) -> list[str]:
    """The words of the command line that change what is found in the sources: without them another report is made."""
    given = [("--sigma", sigma), ("--baseline", baseline), *(("--target", target) for target in targets)]
    return [word for option, value in given if value is not None for word in (option, str(value))]


@uncollected()
def write_simulated(inputs: Inputs, path: Path, command: Sequence[str], baseline: str | None = None) -> dict[str, Any]:
    """Write the report of a simulation's ``inputs``, which say in their notes that nothing was trained.

    ``command`` are the words after ``tuneopt`` that make it again, ``baseline`` is whom speedups are over.
    """
    origin = Origin(inputs.source, counts(inputs))
    material = Material(None, inputs, (origin,), (), tuple(command))
    return _write(material, compare(material, baseline=baseline), path, [])


def _write(
    material: Material, comparison: Comparison, path: Path, sources: Sequence[Path], export: Export | None = None
) -> dict[str, Any]:
    """The page of a comparison, written whole or not at all and never over one of its ``sources``; its document."""
    if export is not None:
        export.check(sources)
    with ranked(comparison.best_first, comparison.analysis.baseline):
        page = build_page(material, comparison)
        text = render(page)
    with replacing(path, "the report", sources, make_folder=True) as temporary:
        temporary.write_text(text, encoding="utf-8")
    if export is not None:
        export.write(page, material.command)
    return report_document(material, comparison, page, path)


def report_document(material: Material, comparison: Comparison, page: Page, path: Path) -> dict[str, Any]:
    """What ``report --json`` prints: the analysis' own document, framed by what the page makes of it."""
    views = material.study.views if material.study is not None else ()
    return {
        "answer": {**page.answer.to_dict(), "sentences": list(page.sentences)},
        **comparison.document,
        "warnings": list(page.warnings),
        "sweeps": [_sweep(view) for view in views],
        "command": material.command,
        "path": str(path),
    }


def _sweep(view: SweepView) -> dict[str, Any]:
    """A sweep's certificate, best configuration and trials; losses in nats per token."""
    state, regime = view.state, view.sweep.regime
    best, select = over_seeds(view.winner, "report"), over_seeds(view.winner, "select")
    return {
        "id": view.id,
        "optimizer": view.optimizer,
        "regime": {"scale": regime.scale.name, "ratio": regime.ratio, "corpus": regime.corpus.name},
        "state": certificate_state(view),
        "certificate": {
            **state.certificate.to_dict(),
            # A star may be complete while the winner's other seeds are still to run: then it is not certified yet.
            "complete": state.certificate.complete and (state.finished or state.finishing),
        },
        "best": {
            "config": dict(state.descent.incumbent),
            "select_loss": state.best.select_loss if state.best else None,
            "select_mean": select.value if select else None,
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

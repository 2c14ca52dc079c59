"""The section of one sweep: figures and tables in reading order, what is rarely asked folded away at its end.

The order answers a reader's questions in turn: what was tuned, what each change costs, what confirms it, how the search
came there, how training went, what matters, what the certificate rests on and what it cost, and how to repeat it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from tuneopt.analysis.importance import importances as importances_of
from tuneopt.analysis.names import optimizer_name
from tuneopt.ledger.table import devices
from tuneopt.reporting import provenance
from tuneopt.reporting.blocks import Block, Columns, Command, Figure, Fold, NamedValues, Prose, Table, figures_of
from tuneopt.reporting.figures.curves import curves_info, draw_curves
from tuneopt.reporting.figures.losses import draw_seeds, seeds_info
from tuneopt.reporting.figures.sensitivity import draw_sensitivity, sensitivity_info
from tuneopt.reporting.figures.star import PathInfo, draw_path, draw_star, path_info, star_info
from tuneopt.reporting.palette import look
from tuneopt.reporting.provenance import tune_command
from tuneopt.reporting.study import StudyView, SweepView
from tuneopt.reporting.text import (
    NONE,
    bound_text,
    bytes_text,
    change_text,
    changes_text,
    count_text,
    duration_text,
    listed,
    loss_text,
    percent_text,
    plural,
    value_text,
)
from tuneopt.reporting.verdict import KeyNumber, SweepVerdict, certificate_state, key_numbers
from tuneopt.search.descent import FINALIST
from tuneopt.spec import Value

CURVES = 2400
"""Faint learning curves on the whole page: with more a file of 10,000 trials grows beyond what a browser opens fast."""

ROWS = 4000
"""Rows of trials on the whole page, for the same reason; each sweep shows 20 at least."""


@dataclass(frozen=True)
class Section:
    """One sweep on the page; ``key_numbers`` stand large above its blocks."""

    anchor: str
    title: str
    colour: str
    verdict: SweepVerdict
    key_numbers: tuple[KeyNumber, ...]
    blocks: tuple[Block, ...]

    @property
    def figures(self) -> Iterator[Figure]:
        """The section's figures in reading order."""
        return figures_of(self.blocks)


def section(study: StudyView, view: SweepView, verdict: SweepVerdict) -> Section:
    """The section of a sweep of a study; the page's room for curves and trials is shared among the sweeps.

    Figures that have nothing to show yet are left out; a star without a lane is one of a space with a single point.
    The corpus is named in the title only where the sweeps have several.
    """
    star, path, curves = star_info(view), path_info(view), curves_info(view, CURVES // len(study.views))
    importance = importances(view)
    blocks: tuple[Block, ...] = (
        hyperparameters(view),
        *Figure.all(f"star-{view.id}", [star if star.lanes else None], draw_star),
        *Figure.all(f"seeds-{view.id}", [seeds_info(view)], draw_seeds),
        Figure.of(f"path-{view.id}", path, draw_path),
        moves(path),
        *Figure.all(f"curves-{view.id}", [curves if curves.curves else None], draw_curves),
        *Figure.all(f"sensitivity-{view.id}", [sensitivity_info(view)], draw_sensitivity),
        *([] if importance is None else [importance]),
        Columns((certificate(view), budget(view))),
        provenance.corpus(view),
        *(Fold(table.title, (table,)) for table in (
            provenance.proof(view), provenance.routing(view),
            provenance.trials(view, max(20, ROWS // len(study.views))),
        )),
        Command("How to repeat this sweep", tune_command(view)),
    )  # fmt: skip
    corpora = {corpus for corpus, _ in study.corpora}
    where = f"{view.label} on {view.sweep.regime.corpus.name}" if len(corpora) > 1 else view.label
    title = f"{optimizer_name(view.optimizer)} at {where}"
    return Section(view.anchor, title, look(view.optimizer).colour, verdict, key_numbers(view, verdict), blocks)


def hyperparameters(view: SweepView) -> Table:
    """Start and best value of every hyperparameter, with the grid it was searched on; what was held comes last.

    "on an edge" is a best value past which no further one was tried; "at its bound" one beyond which none may be; and
    "off" one that switches its part of the update rule off. Values tried are those of the declared grid and of the star
    around the best configuration, not all that the search saw on its way: those were tried around another one.
    """
    descent, space = view.state.descent, view.sweep.space
    rows = []
    for name, best in descent.incumbent:
        axis, start = space.by_name.get(name), space.value(space.start, name)
        varied, edge = "held", ""
        if axis is not None and not axis.pinned:
            tried: list[Value] = list(axis.values)
            tried += [
                change.value for change in descent.star if change.coordinate == name and change.value not in tried
            ]
            if all(isinstance(value, int | float) and not isinstance(value, bool) for value in tried):
                tried.sort(key=float)
            varied = ", ".join(value_text(value) for value in tried)
            edge = "on an edge" if name in descent.certificate.edges else "inside"
            if axis.numeric and best in (axis.off, axis.low, axis.high):
                edge = "at its bound" if best != axis.off else "off"
        rows.append((name, value_text(start), value_text(best), "changed" if best != start else "", varied, edge))
    rows.sort(key=lambda row: row[4] == "held")
    heads = ("hyperparameter", "start", "best", "", "values tried around the best", "on the grid")
    return Table("Best configuration", heads, tuple(rows), frozenset({1, 2}))


def moves(info: PathInfo) -> Table:
    """The incumbents, one to a row, numbered as the marks on the figure of the path; 0 is the start.

    Gains are between the select losses by which each move was decided: those of the sweep's own seed in the search,
    means over seeds where a finalist took over.
    """
    rows = tuple(
        (str(number), str(stand.wave), stand.kind, changes_text(stand.changes) or NONE, loss_text(stand.loss),
         NONE if stand.loss is None or stand.before is None else f"{stand.before - stand.loss:.4f}")
        for number, stand in enumerate(info.stands)
    )  # fmt: skip
    heads = ("", "wave", "move", "what changed", "select loss (nats)", "gain (nats)")
    note = f"A move of the search must gain more than the tolerance of {info.tolerance:.4f} nats."
    if any(stand.kind == FINALIST for stand in info.stands):
        note += (
            " A finalist takes over after it, on all seeds that it and the incumbent ran with: its losses are means "
            "over them, and it may gain less."
        )
    return Table("Moves", heads, rows, frozenset({0, 1, 4, 5}), note)


def certificate(view: SweepView) -> NamedValues:
    """What the certificate claims, and on what it rests: losses and differences in nats per token.

    The tolerance is the larger of its floor and t sqrt(2) sigma, below which 95% of the differences of two equal runs
    lie; t is Student's quantile for what is known of sigma, and the largest bar of a regime's optimizers holds for all.
    """
    state, descent, spread = view.state, view.state.descent, view.state.spread
    claims, base = state.certificate, descent.incumbent_loss
    status = Counter(change.status for change in descent.star)
    losses = [change.loss for change in descent.star if change.loss is not None]
    near = 0 if base is None else sum(abs(loss - base) <= state.tolerance for loss in losses)
    margin = None if base is None or not losses else min(losses) - base
    return NamedValues(
        "Certificate",
        (
            ("state", certificate_state(view)),
            ("star complete", "yes" if claims.complete else "no"),
            ("resolution", NONE if claims.resolution is None else
             f"{bound_text(claims.resolution)} nats with {claims.confidence or 0:.0%} confidence"
             + ("" if claims.asked is None else f", asked {claims.asked:g}")),
            ("tolerance", f"max({view.sweep.tolerance_floor:g}, t \u221a2 \u03c3) = {state.tolerance:.4f} nats"),
            ("noise between seeds \u03c3", "not measured" if spread is None else
             f"{spread.sigma:.4f} nats, by {plural(spread.replicates, 'replicate')} and a law over model size"),
            ("changes in the star", ", ".join(f"{count} {name}" for name, count in sorted(status.items())) or "none"),
            ("within the tolerance", f"{near} of {len(descent.star)}"),
            ("best change", NONE if margin is None else f"{change_text(margin)} nats to the incumbent"),
            ("on an edge", listed(claims.edges) or "no coordinate"),
            ("could not be run", str(claims.missing)),
            ("policy, waves, moves", f"{view.sweep.policy}, {state.progress.waves}, {len(descent.path)}"),
        ),
    )  # fmt: skip


def importances(view: SweepView) -> Table | Prose | None:
    """What set the best trials of the sweep apart, coordinate by coordinate; None where too few trials tell.

    Without Optuna, as in a light installation, a sentence says that it is left out.

    PED-ANOVA (Watanabe et al., arXiv 2304.10255) compares where the best trials lie with where all lie. Descent visits
    the grid unevenly, so this is a description of the trials at hand and no replacement for the star.
    """
    try:
        info = importances_of(view.sweep, view.needed.values())
    except ModuleNotFoundError:
        return Prose(("What the best trials owe their losses to is left out: it takes the package optuna.",))
    if info is None:
        return None
    return Table(
        "What the best trials owe their losses to",
        ("coordinate", "share of importance", "values tried"),
        tuple((entry.coordinate, percent_text(entry.share), str(entry.values)) for entry in info.entries),
        frozenset({1, 2}),
        f"{info.evaluator} (Optuna) over {info.trials} trials of this sweep: where the best {info.best} lie "
        f"(loss up to {info.bar:.4f} nats) against where all lie. The star above says what one change costs "
        "at the best configuration; this says what mattered anywhere.",
    )


def _guesses(view: SweepView) -> str:
    guesses = [record for trial, record in view.every.items() if trial not in view.needed]
    spent = sum(devices(record) * sum(record.seconds.values()) for record in guesses)
    return f"{len(guesses)}, of {duration_text(spent)} of device time, in none of these sums" if guesses else "0"


def budget(view: SweepView) -> NamedValues:
    """What the sweep cost: tokens, FLOPs, device time (seconds times devices) and the clock.

    A sweep of a study shares its clock with the others, and their runs say so by having no wall seconds. A trial that
    an earlier sweep had run is reused: it is in the sums, because the result rests on it, and counted apart. What was
    launched ahead on a guess and not needed was paid for all the same, and has a line of its own: another run of the
    same sweep guesses otherwise.
    """
    records, progress, runs = list(view.needed.values()), view.state.progress, view.runs
    seconds = {part: view.device_seconds(part) for part in ("train", "eval", "startup", "checkpoint")}
    total = sum(seconds.values())
    wall = sum(float(run.get("wall_seconds") or 0) for run in runs)
    room = sum(float(run.get("wall_seconds") or 0) * float(run.get("slots") or 0) for run in runs)
    busy = sum(float(run.get("busy_seconds") or 0) for run in runs)
    clock = f"{duration_text(wall)} in {plural(len(runs), 'run')}" if runs else NONE
    if runs and not any("wall_seconds" in run for run in runs):
        clock = "shared with the other sweeps of its study"
    parts = ", ".join(f"{part} {percent_text(spent / total)}" for part, spent in seconds.items()) if total else NONE
    return NamedValues(
        "Budget",
        (
            ("trials", f"{progress.done} done, {progress.diverged} diverged, {progress.unproven} unproven, "
                       f"{len(view.state.pending)} to run"),
            ("not run by this sweep", f"{sum(trial not in view.launched for trial in view.records)} reused"
             if runs else NONE),
            ("launched ahead, not needed", _guesses(view)),
            ("training tokens", count_text(sum(record.tokens for record in records))),
            ("training FLOPs", count_text(sum(record.flops for record in records))),
            ("device time", f"{duration_text(total)} ({total / 3600:.3g} device-hours)"),
            ("of which", parts),
            ("wall time", clock),
            ("slot utilisation", percent_text(busy / room) if room else NONE),
            ("peak memory of a trial", bytes_text(max((one.peak_bytes or 0 for one in records), default=0) or None)),
            ("checkpoint", bytes_text(max((one.checkpoint_bytes or 0 for one in records), default=0) or None)),
        ),
        "FLOPs count training, not evaluation; utilisation is the seconds inside training and evaluation over wall "
        "seconds times slots.",
    )  # fmt: skip

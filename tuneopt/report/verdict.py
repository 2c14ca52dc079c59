"""The first screen in words: what was compared, what came out, how sure that is, and what to beware of."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from tuneopt.constants import ONE_SIDED_95
from tuneopt.ledger import TrialRecord
from tuneopt.report.study import SweepView
from tuneopt.report.text import NONE, duration_text, listed, loss_text, plural
from tuneopt.search.descent import Certificate


@dataclass(frozen=True)
class Mean:
    """A mean over seeds in nats; ``error`` is its standard error, None below two seeds."""

    value: float
    error: float | None
    seeds: int

    @property
    def text(self) -> str:
        """The mean with its error."""
        return loss_text(self.value, self.error)


@dataclass(frozen=True)
class KeyNumber:
    """A figure that the first screen shows large: its name, its value, a note under it, and its standard error."""

    name: str
    value: str
    note: str
    error: str = ""


@dataclass(frozen=True)
class SweepVerdict:
    """What one sweep says. ``gain`` is the start's mean report loss minus the winner's, in nats.

    ``state`` is complete, incomplete or running.
    """

    state: str
    report: Mean | None
    select: Mean | None
    gain: Mean | None
    sentences: tuple[str, ...]
    warnings: tuple[str, ...]


def mean(values: Sequence[float]) -> Mean | None:
    """Mean and standard error; None for no value."""
    if not values:
        return None
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return Mean(statistics.fmean(values), error, len(values))


def over_seeds(records: Sequence[TrialRecord], split: str) -> Mean | None:
    """Mean loss of a configuration on the ``select`` or ``report`` split."""
    losses = [getattr(record, f"{split}_loss") for record in records]
    return mean([loss for loss in losses if loss is not None])


def sweep_verdict(view: SweepView) -> SweepVerdict:
    """The verdict on one sweep."""
    report, start = over_seeds(view.winner, "report"), over_seeds(view.start, "report")
    gain = None
    if view.moved and report is not None and start is not None:
        errors = [each.error for each in (start, report)]
        spread = None if None in errors else math.hypot(*(error for error in errors if error is not None))
        gain = Mean(start.value - report.value, spread, min(start.seeds, report.seeds))
    return SweepVerdict(
        state=certificate_state(view),
        report=report,
        select=over_seeds(view.winner, "select"),
        gain=gain,
        sentences=tuple(sentence for sentence in (_result(view, report, gain), certificate_sentence(view)) if sentence),
        warnings=tuple(_warnings(view)),
    )


def _result(view: SweepView, report: Mean | None, gain: Mean | None) -> str:
    if report is None:
        return f"No run of {view.optimizer}'s incumbent has ended yet, so there is no loss to report."
    over = f"a mean over {report.seeds} seeds" if report.seeds > 1 else "one seed only"
    reached = (
        f"The best configuration of {view.optimizer} reaches {report.text} nats per token on the report split ({over})"
    )
    if gain is None:
        if not view.moved:
            return f"{reached}; no change of the starting configuration won by more than the tolerance."
        return f"{reached}."
    if gain.error is None:
        return (
            f"{reached}, {abs(gain.value):.4f} {_side(gain.value)} the start; single runs say nothing about the noise."
        )
    sure = "more than noise explains" if gain.value > ONE_SIDED_95 * gain.error else "no more than noise explains"
    return f"{reached}, {abs(gain.value):.4f} \u00b1 {gain.error:.4f} {_side(gain.value)} the start: {sure}."


def _side(gain: float) -> str:
    return "below" if gain >= 0 else "above"


def certificate_state(view: SweepView) -> str:
    """``complete``, ``incomplete`` (the sweep ended without one) or ``running``."""
    if view.state.descent.certificate.complete and view.state.finished:
        return "complete"
    return "incomplete" if view.state.finished else "running"


def certificate_sentence(view: SweepView) -> str:
    """The state of the certificate in words."""
    certificate = view.state.descent.certificate
    changes = len(view.state.descent.star)
    state = certificate_state(view)
    if state == "complete":
        return (
            f"The certificate is complete: of all {changes} one-coordinate changes around it, none lowers the select "
            f"loss by more than the tolerance of {certificate.tolerance:.4f} nats{_edges(certificate)}."
        )
    if state == "running":
        return (
            f"The sweep is not finished: {plural(len(view.state.pending), 'trial')} of the current wave "
            f"{'is' if len(view.state.pending) == 1 else 'are'} still to run, and what stands here may change."
        )
    why = []
    if certificate.missing:
        why.append(f"{plural(certificate.missing, 'trial')} of the star could not be run")
    if certificate.edges:
        why.append(
            f"{listed(certificate.edges)} still {'stands' if len(certificate.edges) == 1 else 'stand'} on an edge"
        )
    if view.state.descent.incumbent_loss is None:
        why.append("no run of the start or of its changes can be compared")
    return f"There is no certificate: {listed(why) or 'the star is not complete'}."


def _edges(certificate: Certificate) -> str:
    if not certificate.edges:
        return ", and no coordinate stands on an edge of its grid"
    one = len(certificate.edges) == 1
    return f"; {listed(certificate.edges)} {'stands on an edge' if one else 'stand on edges'} that may not be extended"


def _warnings(view: SweepView) -> list[str]:
    """What a reader of one sweep must know, one sentence each."""
    state, found = view.state, list(view.marks)
    certificate = state.descent.certificate
    if certificate_state(view) != "complete":
        found.append(certificate_sentence(view))
    elif certificate.edges:
        found.append(f"the optimum may lie beyond the grid of {listed(certificate.edges)}, which may not be extended")
    if state.sigma is None and state.finished:
        found.append("the start has fewer than two comparable seeds, so the tolerance knows nothing of the noise")
    if state.progress.unproven:
        found.append(
            f"{plural(state.progress.unproven, 'trial')} lacked a passed proof of the optimizer and could not win"
        )
    diverged = state.progress.diverged
    if diverged and diverged >= 0.25 * max(state.progress.done, 1):
        found.append(f"{diverged} of {plural(state.progress.done, 'trial')} diverged: the grid reaches too far")
    epochs = max((record.epochs for record in view.records.values()), default=0.0)
    if epochs > 1:
        found.append(f"the budget passes {epochs:.1f} times over the training text, so part of the gain may be memory")
    found += _mixed(view)
    return found


def _mixed(view: SweepView) -> list[str]:
    """Differences in where the trials ran that can move a loss."""
    found = []
    for name, word in (("torch", "versions of torch"), ("gpu", "kinds of GPU"), ("commit", "source commits")):
        values = {str(record.environment[name]) for record in view.records.values() if name in record.environment}
        if len(values) > 1:
            found.append(f"the trials ran on {len(values)} {word} ({listed(sorted(values))})")
    if any(str(record.environment.get("commit", "")).endswith("+") for record in view.records.values()):
        found.append("some trials ran from a source tree with uncommitted changes")
    return found


def key_numbers(view: SweepView, verdict: SweepVerdict) -> tuple[KeyNumber, ...]:
    """The figures of a single sweep that the first screen shows large."""
    certificate = view.state.descent.certificate
    seeds = plural(verdict.report.seeds, "seed") if verdict.report else "not measured"
    gain = verdict.gain
    noise = "not measured" if view.state.sigma is None else f"{view.state.sigma:.4f}"
    edges = f"on an edge: {listed(certificate.edges)}" if certificate.edges else "no coordinate on an edge"
    return (
        _loss_tile("Report loss", verdict.report, f"nats/token, {seeds}"),
        _loss_tile("Select loss", verdict.select, f"nats/token, {seeds}"),
        _loss_tile("Gain over the start", gain, "nats per token")
        if gain
        else KeyNumber("Gain over the start", "none", "the start is best" if verdict.report else "not measured"),
        KeyNumber("Certificate", verdict.state, edges),
        KeyNumber("Tolerance", f"{certificate.tolerance:.4f}", f"nats; noise {noise}"),
        KeyNumber("Trials", f"{len(view.every):,}", f"{duration_text(view.device_seconds())} of device time"),
    )


def _loss_tile(name: str, value: Mean | None, note: str) -> KeyNumber:
    if value is None:
        return KeyNumber(name, NONE, note)
    return KeyNumber(name, f"{value.value:.4f}", note, "" if value.error is None else f"\u00b1\u00a0{value.error:.4f}")

"""The verdict on one sweep, in words and large numbers: what came out, how sure that is, and what to beware of.

A result is a mean over seeds on the report split, which chose nothing. It is called more than noise only where it
exceeds 1.645 standard errors (95%, one-sided). Every doubt that a reader must know is a warning of its own.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from tuneopt.constants import ONE_SIDED_95
from tuneopt.ledger import TrialRecord
from tuneopt.reporting.study import SweepView
from tuneopt.reporting.text import NONE, bound_text, duration_text, listed, loss_text, plural
from tuneopt.search.descent import BLIND, Certificate
from tuneopt.search.standing import REPEATED

MANY_DIVERGED = 0.25
"""The share of diverged trials from which on a warning says that the grid reaches too far: a few at its ends are how an
edge is found, a quarter is budget that bought nothing."""


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
    """A number that the first screen shows large: its name, its value, a note under it, and its standard error."""

    name: str
    value: str
    note: str
    error: str = ""


class Doubt(Enum):
    """What a warning about a sweep is about."""

    SEARCHER = "another search than coordinate descent"
    CERTIFICATE = "no certificate, or a blind one"
    EDGE = "the edge of a grid"
    NOISE = "noise that was not measured"
    PROOF = "missing proofs"
    DIVERGED = "divergence"
    EPOCHS = "repeated text"
    TORCH = "versions of torch"  # this one and the next two stand in sentences
    GPU = "kinds of GPU"
    COMMIT = "source commits"
    UNCOMMITTED = "uncommitted changes"


_MIXED = {"torch": Doubt.TORCH, "gpu": Doubt.GPU, "commit": Doubt.COMMIT}
"""Entries of a record's environment that can move a loss by more than a tolerance."""


@dataclass(frozen=True)
class SweepWarning:
    """What a reader of one sweep must know: one sentence or clause without a full stop."""

    doubt: Doubt
    text: str


@dataclass(frozen=True)
class SweepVerdict:
    """What one sweep says. ``gain`` is the start's mean report loss minus the winner's, in nats.

    ``state`` is certified, blind, incomplete, running or repeated. ``report`` and ``select`` are the winner's mean
    losses on the two splits, None before a run of it has ended.
    """

    state: str
    report: Mean | None
    select: Mean | None
    gain: Mean | None
    sentences: tuple[str, ...]
    warnings: tuple[SweepWarning, ...]


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
    """The verdict on one sweep.

    The errors of start and winner add in squares: their seeds are equal, but at this noise nearly independent.
    """
    report, start = over_seeds(view.winner, "report"), over_seeds(view.start, "report")
    gain = None
    if view.moved and report is not None and start is not None:
        known = start.error is not None and report.error is not None
        error = math.hypot(start.error or 0.0, report.error or 0.0) if known else None
        gain = Mean(start.value - report.value, error, min(start.seeds, report.seeds))
    return SweepVerdict(
        state=certificate_state(view),
        report=report,
        select=over_seeds(view.winner, "select"),
        gain=gain,
        sentences=(_result(view, report, gain), certificate_sentence(view)),
        warnings=tuple(SweepWarning(doubt, text) for doubt, text in _warnings(view)),
    )


def _result(view: SweepView, report: Mean | None, gain: Mean | None) -> str:
    """The loss that the best configuration reaches, and what that gains over the start.

    A gain may be negative: moves are decided on the select split and one seed, and the report split may disagree.
    """
    if report is None:
        return f"No run of {view.optimizer}'s incumbent has ended yet, so there is no loss to report."
    over = f"a mean over {report.seeds} seeds" if report.seeds > 1 else "one seed only"
    reached = f"The best configuration of {view.optimizer} reaches {report.text} nats per token on the report split"
    if not view.moved:
        return f"{reached} ({over}); no change of the starting configuration won by more than the tolerance."
    if gain is None:
        return f"{reached} ({over})."
    amount, side = f"{abs(gain.value):.4f}", "below" if gain.value >= 0 else "above"
    if gain.error is None:
        return f"{reached} ({over}), {amount} {side} the start; single runs say nothing about the noise."
    sure = "more than noise explains" if gain.value > ONE_SIDED_95 * gain.error else "no more than noise explains"
    return f"{reached} ({over}), {amount} \u00b1 {gain.error:.4f} {side} the start: {sure}."


def certificate_state(view: SweepView) -> str:
    """``certified``, ``blind`` or ``incomplete`` (`tuneopt.search.descent.STATES`), ``running``, or `REPEATED`.

    A star that is complete before the winner's other seeds are in does not count yet. Afterwards it does: what further
    seeds are still to run only makes it see more.
    """
    if not (view.state.finished or view.state.finishing):
        return "running"
    return view.state.certificate.state if view.sweep.space.varied else REPEATED


def certificate_sentence(view: SweepView) -> str:
    """The state of the certificate in words: what it can see, or every reason why there is none."""
    descent, certificate, pending = view.state.descent, view.state.certificate, len(view.state.pending)
    edges, state = certificate.edges, certificate_state(view)
    if state in ("certified", "blind"):
        stand = "stands on an edge" if len(edges) == 1 else "stand on edges"
        where = f"; {listed(edges)} {stand} that may not be extended" if edges else (
            ", and no coordinate stands on an edge of its grid")  # fmt: skip
        changes = f"of all {plural(len(descent.star), 'one-coordinate change')} around it"
        if not certificate.complete:
            changes += ", some of them known by the model of all trials alone"
        claim = (
            f"{changes}, none lowers the select loss by more than {bound_text(certificate.resolution or 0)} nats, with "
        )
        claim += f"{certificate.confidence or 0:.0%} confidence"
        held = [axis.name for axis in view.sweep.space.axes if axis.pinned]
        if held:
            varied = listed([axis.name for axis in view.sweep.space.varied])
            where += f". Only {varied} {'was' if len(view.sweep.space.varied) == 1 else 'were'} asked about"
            where += f"; {listed(held)} stayed where {'it was' if len(held) == 1 else 'they were'}"
        if state == "certified":
            asked = f"{certificate.asked or 0:g} nats"
            return f"The certificate is complete, at the asked resolution of {asked}: {claim}{where}."
        return f"The certificate is blind: {claim}{where}. {_blindness(certificate)}"
    if state == REPEATED:
        seeds = plural(len(view.winner), "seed")
        return f"Nothing is varied here: one configuration ran with {seeds}, and there is nothing to certify."
    if state == "running":
        return (
            f"The sweep is not finished: {plural(pending, 'trial')} of the current wave "
            f"{'is' if pending == 1 else 'are'} still to run, and what stands here may change."
        )
    why = []
    if view.quota is not None and certificate.missing:
        beyond = plural(certificate.missing, "trial")
        return (
            f"There is no certificate: the sweep was to take {plural(view.quota, 'trial')} and took them, and {beyond} "
            f"of the star {'lies' if certificate.missing == 1 else 'lie'} beyond that."
        )
    if certificate.missing:
        why.append(f"{plural(certificate.missing, 'trial')} of the star could not be run")
    if edges:
        why.append(f"{listed(edges)} still {'stands' if len(edges) == 1 else 'stand'} on an edge")
    if descent.incumbent_loss is None:
        why.append("no run of the start or of its changes can be compared")
    return f"There is no certificate: {listed(why) or 'the star is not complete'}."


def _blindness(certificate: Certificate) -> str:
    """Why a certificate says little, and what would mend it."""
    coarse = (certificate.resolution or 0) > (certificate.asked or 0)
    why = (
        f"That is coarser than the asked {certificate.asked or 0:g} nats"
        if coarse
        else "Most changes differ from it by less than that, so that it says next to nothing of them"
    )
    if not coarse or certificate.seeds_needed == 0:
        return f"{why}; ask for a finer resolution."
    runs = "thousands of" if certificate.seeds_needed is None else f"about {certificate.seeds_needed}"
    return f"{why}; {runs} further runs with other seeds would reach it."


def _warnings(view: SweepView) -> Iterator[tuple[Doubt, str]]:
    """What a reader of one sweep must know, one sentence each: first what weakens the claim, then the circumstances."""
    state, certificate, records = view.state, view.state.certificate, view.records.values()
    done, diverged = state.progress.done, state.progress.diverged
    for mark in view.marks:
        yield Doubt.SEARCHER, mark
    if certificate_state(view) not in ("certified", REPEATED):
        # A budget that was spent as planned is no fault: the section of the sweep says what it leaves open.
        if view.quota is None or not state.finished:
            yield Doubt.CERTIFICATE, certificate_sentence(view)
    elif certificate.edges:
        edges = listed(certificate.edges)
        yield Doubt.EDGE, f"the optimum may lie beyond the grid of {edges}, which may not be extended"
    if state.spread is not None and not state.spread.replicates and not view.replicated:
        yield Doubt.NOISE, "no configuration has two comparable seeds: the noise is a guess, from a law over model size"
    if state.progress.unproven:
        unproven = plural(state.progress.unproven, "trial")
        yield Doubt.PROOF, f"{unproven} lacked a passed proof of the optimizer and could not win"
    if diverged and diverged >= MANY_DIVERGED * max(done, 1):
        yield Doubt.DIVERGED, f"{diverged} of {plural(done, 'trial')} diverged: the grid reaches too far"
    epochs = max((record.epochs for record in records), default=0.0)
    if epochs > 1:
        passes = f"the budget passes {epochs:.1f} times over the training text"
        yield Doubt.EPOCHS, f"{passes}, so part of the gain may be memory"
    for doubt, values in mixed(view).items():
        yield doubt, f"the trials ran on {len(values)} {doubt.value} ({listed(values)})"
    if any(str(record.environment.get("commit", "")).endswith("+") for record in records):
        yield Doubt.UNCOMMITTED, "some trials ran from a source tree with uncommitted changes"


def mixed(view: SweepView) -> dict[Doubt, list[str]]:
    """What the trials of a sweep do not have in common (`_MIXED`), with the values found, sorted."""
    records, found = view.records.values(), {}
    for name, doubt in _MIXED.items():
        values = sorted({str(record.environment[name]) for record in records if name in record.environment})
        if len(values) > 1:
            found[doubt] = values
    return found


def shared_warnings(
    views: Sequence[SweepView], told: dict[str, list[SweepWarning]]
) -> Iterator[tuple[list[SweepView], str]]:
    """Warnings that several sweeps have in other figures, as one with its sweeps; each is taken out of ``told``.

    Ten blind certificates are one thing to know. What each of them saw stands in the section of its sweep.
    """

    def take_out(doubt: Doubt, those: Sequence[SweepView]) -> None:
        for view in those:
            told[view.id] = [warning for warning in told[view.id] if warning.doubt is not doubt]

    coarse = [
        view
        for view in views
        if certificate_state(view) == BLIND and (claims := view.state.certificate).resolution and claims.asked
        and claims.resolution > claims.asked
        and any(warning.doubt is Doubt.CERTIFICATE for warning in told[view.id])
    ]  # fmt: skip
    if len(coarse) > 1:
        take_out(Doubt.CERTIFICATE, coarse)
        seen = sorted(view.state.certificate.resolution or 0.0 for view in coarse)
        asked = listed(f"{nats:g}" for nats in sorted({view.state.certificate.asked or 0.0 for view in coarse}))
        between = f"{bound_text(seen[0])} to {bound_text(seen[-1])} nats"
        sentence = "the certificates are blind: they rule out single changes of the winners that lower the select loss "
        sentence += f"by more than {between}, and were asked for {asked}; the sections of the sweeps say how many "
        yield coarse, sentence + "further runs would reach it"
    differing = {view.id: mixed(view) for view in views}
    for doubt in dict.fromkeys(doubt for own in differing.values() for doubt in own):
        uneven = [view for view in views if doubt in differing[view.id]]
        if len({tuple(differing[view.id][doubt]) for view in uneven}) > 1:
            take_out(doubt, uneven)
            values = sorted({value for view in uneven for value in differing[view.id][doubt]})
            yield uneven, f"the trials of a sweep ran on several {doubt.value} ({listed(values)})"


def _in_bits(view: SweepView, mean: Mean | None) -> str:
    """The report loss in bits per byte, where a record says how many bytes a token has."""
    regimes = (record.spec.regime for record in view.records.values())
    known = next((regime for regime in regimes if regime.bytes_per_token is not None), None)
    bits = None if known is None or mean is None else known.bits_per_byte(mean.value)
    return "" if bits is None else f"; {bits:.4f} bits/byte"


def key_numbers(view: SweepView, verdict: SweepVerdict) -> tuple[KeyNumber, ...]:
    """The numbers of a single sweep that the first screen shows large: losses, gain, certificate, tolerance, trials.

    What was not measured says so instead of showing a number; a gain that does not exist is "none" and not zero.
    """
    certificate, spread = view.state.certificate, view.state.spread
    resolution = None if verdict.state == REPEATED else certificate.resolution
    seeds = plural(verdict.report.seeds, "seed") if verdict.report else "not measured"

    def loss(name: str, value: Mean | None, note: str) -> KeyNumber:
        if value is None:
            return KeyNumber(name, NONE, note)
        return KeyNumber(
            name, f"{value.value:.4f}", note, "" if value.error is None else f"\u00b1\u00a0{value.error:.4f}"
        )

    return (
        loss("Report loss", verdict.report, f"nats/token, {seeds}" + _in_bits(view, verdict.report)),
        loss("Select loss", verdict.select, f"nats/token, {seeds}"),
        loss("Gain over the start", verdict.gain, "nats per token")
        if verdict.gain
        else KeyNumber("Gain over the start", "none", "no move beat the noise" if verdict.report else "not measured"),
        KeyNumber("Certificate", verdict.state,
                  f"on an edge: {listed(certificate.edges)}" if certificate.edges else "no coordinate on an edge"),
        KeyNumber("Resolution", NONE if resolution is None else bound_text(resolution),
                  "nats; not known yet" if resolution is None else "nats" if certificate.asked is None
                  else f"nats, asked {certificate.asked:g}"),
        KeyNumber("Tolerance", f"{certificate.tolerance:.4f}",
                  f"nats; noise {'not measured' if spread is None else f'{spread.sigma:.4f}'}"),
        KeyNumber("Trials", f"{len(view.needed):,}", f"{duration_text(view.device_seconds())} of device time"),
    )  # fmt: skip

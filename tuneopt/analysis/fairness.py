"""What unequal tuning would do to a comparison: blind transfer, and the speedup that a bad baseline manufactures.

**Blind transfer.** A comparison that tunes one optimizer and hands its learning rate, weight decay and so on to the
others favours the one that was tuned (Wen et al., arXiv 2509.02046, section 3). A cell is the receiver's tuned
configuration in which every coordinate that both optimizers tune takes the donor's tuned value.

**Under-tuned baseline.** An optimizer compared with an under-tuned AdamW seems faster by the factor by which the tuned
AdamW itself would seem faster: D / D_eff(loss of the under-tuned run), on the tuned baseline's law (section 1 there:
only the learning rate of GPT-3's recipe, 6e-4, tuned or not, is worth up to a factor of two).

Both are filled from trials that exist (`Lookup`); where none does, they name the configuration to run.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, quantiles

from tuneopt.analysis.local_law import LocalLaw
from tuneopt.analysis.noise import NoiseModel
from tuneopt.analysis.runs import Config, RegimeKey, TrainingRun
from tuneopt.analysis.spaces import searched
from tuneopt.analysis.speedup import DEFAULTS, OUT_OF_REACH, BaselineLaw, IntervalSettings, over_law, redrawn_law
from tuneopt.analysis.winner import BROKEN, Winner, by_regime
from tuneopt.spec import TrialSpec, Value

GPT3_RATE = 6e-4
"""The peak learning rate that many comparisons took over (Brown et al., arXiv 2005.14165, its 125M model)."""

RATE = "learning_rate"

NEVER_BROKEN = 0.1
"""Nats above the tuned loss up to which no run is called broken, however narrow the rest lie."""

ENOUGH_RUNS = 8
"""Runs of a regime from which on their quartiles say what is far from the rest."""


@dataclass(frozen=True, slots=True)
class ConfigOutcome:
    """What running a configuration gave.

    ``status`` is ``trial``, ``same`` (it is the winner's own configuration), ``diverged`` or ``missing``. ``regret`` is
    its report loss minus the winner's (nats) over the seeds that both have, or of the means where they share none.
    ``runs`` counts the seeds of ``loss``.
    """

    status: str
    trial: str | None = None
    loss: float | None = None
    regret: float | None = None
    runs: int = 0


class Lookup:
    """Runs by optimizer, regime and configuration."""

    def __init__(self, runs: Iterable[TrainingRun]) -> None:
        self._by_config: dict[tuple[str, RegimeKey, Config], list[TrainingRun]] = defaultdict(list)
        self._by_trial: dict[str, TrainingRun] = {}
        for run in runs:
            self._by_config[run.optimizer, run.regime, run.config].append(run)
            self._by_trial[run.trial] = run

    def find(self, winner: Winner, config: Config) -> ConfigOutcome:
        """What ``config`` gave for the optimizer and in the regime of ``winner``."""
        if config == winner.config:
            return ConfigOutcome("same", winner.trials[0], winner.loss, 0.0, winner.runs)
        members = self._by_config.get((winner.optimizer, winner.regime, config), [])
        own = {run.seed: run for trial in winner.trials if (run := self._by_trial.get(trial)) is not None}
        variants = {run.variant for run in own.values()}
        members = [run for run in members if run.variant in variants] or members  # one precision, where there is one
        done = {run.seed: run for run in members if run.status == "completed"}  # no unproven run fills a cell
        if not done:
            lost = next((run for run in members if run.status == "diverged"), None)
            return ConfigOutcome("missing") if lost is None else ConfigOutcome("diverged", lost.trial)
        # Equal seeds share initial weights and data order, so their difference holds less noise.
        shared = sorted(done.keys() & own.keys())
        seeds = shared or sorted(done)
        loss = fmean(done[seed].losses[1] for seed in seeds)
        reference = fmean(own[seed].losses[1] for seed in shared) if shared else winner.loss
        return ConfigOutcome("trial", done[seeds[0]].trial, loss, loss - reference, len(seeds))


@dataclass(frozen=True, slots=True)
class Transfer:
    """A cell of the matrix: ``optimizer`` at ``donor``'s tuned shared coordinates.

    ``taken`` are the values that change the receiver's tuned configuration, ``config`` is the configuration that fills
    the cell. ``status`` is ``trial``, ``same`` (both were tuned to the same shared values: regret 0), ``diverged`` or
    ``missing``. ``regret`` is in nats over the receiver's own tuned loss; ``speedup_regret`` is its tuned speedup over
    the baseline minus that of the cell. Speedups are None where the baseline has no law.
    """

    regime: RegimeKey
    optimizer: str
    donor: str
    taken: Config
    config: Config
    status: str
    trial: str | None
    loss: float | None
    regret: float | None
    speedup: float | None
    speedup_tuned: float | None
    speedup_regret: float | None


def transfers(
    winners: Sequence[Winner], runs: Iterable[TrainingRun], laws: Iterable[BaselineLaw]
) -> tuple[Transfer, ...]:
    """Every ordered pair of optimizers in every regime whose winners carry configurations."""
    lookup = Lookup(runs)
    known = {(law.corpus, law.scale): law for law in laws}
    return tuple(
        _cell(receiver, tuned, donor, lookup, known.get(regime[:2]))
        for regime, members in by_regime(winner for winner in winners if winner.config).items()
        for receiver in members
        for tuned in [_speedup(receiver.loss, receiver.tokens, known.get(regime[:2]))]
        for donor in members
        if donor is not receiver
    )


def _cell(receiver: Winner, tuned: float | None, donor: Winner, lookup: Lookup, law: BaselineLaw | None) -> Transfer:
    own, theirs = dict(receiver.config), dict(donor.config)
    scale = receiver.regime.scale
    # Shared by name: a hyperparameter has one name in all optimizers, though not always the same role.
    shared = set(searched(receiver.optimizer, scale, own)) & set(searched(donor.optimizer, scale, theirs))
    taken = {name: theirs[name] for name in sorted(shared) if theirs[name] != own[name]}
    config = TrialSpec.freeze(own | taken)
    outcome = lookup.find(receiver, config if taken else receiver.config)
    # The tuned loss plus the regret, not the cell's own loss: the regret is paired by seed.
    blind = None if outcome.regret is None else _speedup(receiver.loss + outcome.regret, receiver.tokens, law)
    return Transfer(
        regime=receiver.regime,
        optimizer=receiver.optimizer,
        donor=donor.optimizer,
        taken=tuple(taken.items()),
        config=config,
        status=outcome.status,
        trial=outcome.trial,
        loss=outcome.loss,
        regret=outcome.regret,
        speedup=blind,
        speedup_tuned=tuned,
        speedup_regret=None if blind is None or tuned is None else tuned - blind,
    )


def _speedup(loss: float, tokens: float, law: BaselineLaw | None) -> float | None:
    """D_eff / D, None where no budget near those of the baseline's runs is known to reach the loss."""
    if law is None:
        return None
    effective, (first, *_, last) = law.budget(loss), law.law.budgets
    return effective / tokens if first / OUT_OF_REACH <= effective <= last * OUT_OF_REACH else None


@dataclass(frozen=True, slots=True)
class Undertuned:
    """The tuned baseline against itself, badly tuned.

    ``kind`` is ``learning rate`` (everything else as tuned) or ``other ratio`` (the configuration tuned at another
    ratio of the same scale); ``what`` says which; ``gpt3`` marks the learning rate 6e-4. ``status``, ``trial``,
    ``loss`` and ``regret`` are as in `Transfer`; ``config`` fills the row where it is ``missing``. ``manufactured`` is
    the speedup that the tuned baseline itself shows over this run, with its interval; it is given only where the
    baseline was trained with budgets that reach this loss. Beyond them ``at_least`` is what was measured: even the
    smallest budget of the tuned baseline does better, with that many times fewer tokens. A run whose status is
    ``broken`` is far above the others: that is no tuning, and it manufactures nothing.
    """

    regime: RegimeKey
    kind: str
    what: str
    gpt3: bool
    config: Config
    status: str
    trial: str | None
    loss: float | None
    regret: float | None
    manufactured: float | None
    low: float | None
    high: float | None
    at_least: float | None = None


def undertuned(
    winners: Sequence[Winner],
    runs: Sequence[TrainingRun],
    laws: Iterable[BaselineLaw],
    noise: NoiseModel,
    how: IntervalSettings = DEFAULTS,
) -> tuple[Undertuned, ...]:
    """For each regime of the baseline: GPT-3's learning rate, every other learning rate that was run, other ratios."""
    tuned = [winner for winner in winners if winner.optimizer == how.baseline and winner.config]
    own = [run for run in runs if run.optimizer == how.baseline]
    lookup = Lookup(own)
    known = {(law.corpus, law.scale): law for law in laws}
    draws: dict[tuple[str, str], LocalLaw | None] = {}
    every: list[Undertuned] = []
    for winner in tuned:
        rows = [
            _row(winner, "learning rate", f"{RATE} = {float(rate):g}", config, lookup, rate == GPT3_RATE)
            for rate, config in _other_rates(winner, own)
        ]
        rows += [
            _row(winner, "other ratio", f"tuned at {other.regime.ratio:g}x", other.config, lookup)
            for other in tuned
            if other.regime[:2] == winner.regime[:2] and other is not winner
        ]
        # What hardly trained shows no tuning that anybody would publish: it stays in the table and makes no speedup.
        ceiling = _ceiling(winner, own)
        rows = [replace(row, status="broken") if (row.loss or 0.0) > ceiling else row for row in rows]
        measured = [place for place, row in enumerate(rows) if row.regret is not None and row.status == "trial"]
        law = known.get(winner.regime[:2])
        if law is not None and measured:
            # Each badly tuned run in the place of the baseline's own, as if the tuned baseline were its rival: the law
            # is asked when it reaches that loss, and the speedup over it is the inverse. Its trials are nobody's
            # replicates.
            rivals = [replace(winner, loss=winner.loss + (rows[place].regret or 0.0), trials=()) for place in measured]
            place_of = winner.regime[:2]
            # The law is redrawn once for all rows of a scale, so that their intervals share its noise.
            if place_of not in draws:
                draws[place_of] = redrawn_law(law, noise, how)
            speeds = over_law(law, rivals, draws[place_of], noise, how)
            smallest = law.winners[0]
            for place, rival, speed in zip(measured, rivals, speeds, strict=True):
                value, low, high = speed.inverted
                # Beyond the smallest budget the law would be extrapolated, where only a bound was measured.
                if rival.loss > smallest.loss:
                    value = low = high = None
                    if winner.tokens > smallest.tokens:
                        rows[place] = replace(rows[place], at_least=winner.tokens / smallest.tokens)
                rows[place] = replace(rows[place], manufactured=value, low=low, high=high)
        every += rows
    return tuple(every)


def _ceiling(winner: Winner, runs: Sequence[TrainingRun]) -> float:
    """The loss above which a run of the winner's optimizer and regime is broken: a nat above it, or far from the rest.

    Far is Tukey's outer fence, three interquartile ranges above the upper quartile, where there are runs enough.
    """
    # With a floor, too: where all runs lie close together, a fence of three quartile ranges is next to nothing.
    losses = sorted(run.losses[1] for run in runs if run.status == "completed" and run.regime == winner.regime)
    if len(losses) < ENOUGH_RUNS:
        return winner.loss + BROKEN
    lower, _, upper = quantiles(losses, n=4)
    return winner.loss + min(BROKEN, max(upper + 3 * (upper - lower) - winner.loss, NEVER_BROKEN))


def _other_rates(winner: Winner, runs: Iterable[TrainingRun]) -> list[tuple[Value, Config]]:
    """GPT-3's learning rate, then every other that was run with all else as tuned, ascending, with configurations."""
    own = dict(winner.config)
    if RATE not in own:
        return []
    rest = {name: value for name, value in own.items() if name != RATE}
    rates: set[Value] = set()
    for run in runs:
        if run.regime == winner.regime:
            theirs = dict(run.config)
            if RATE in theirs and theirs == {**rest, RATE: theirs[RATE]}:
                rates.add(theirs[RATE])
    # GPT-3's rate always has its row: where it was not run, the row names the configuration to run.
    others = sorted(rates - {GPT3_RATE, own[RATE]}, key=float)
    return [(rate, TrialSpec.freeze({**own, RATE: rate})) for rate in (GPT3_RATE, *others)]


def _row(winner: Winner, kind: str, what: str, config: Config, lookup: Lookup, gpt3: bool = False) -> Undertuned:
    outcome = lookup.find(winner, config)
    same = 1.0 if outcome.status == "same" else None
    return Undertuned(
        regime=winner.regime,
        kind=kind,
        what=what,
        gpt3=gpt3,
        config=config,
        status=outcome.status,
        trial=outcome.trial,
        loss=outcome.loss,
        regret=outcome.regret,
        manufactured=same,
        low=same,
        high=same,
    )

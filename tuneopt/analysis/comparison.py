"""What a comparison may say at its end: each rival against the baseline, and which rivals cannot be told apart.

Everything is read from the document of an analysis, so that the sentence and the figures of a report cannot disagree. A
figure that was not measured is named as what it is: a bound, or an extrapolation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from tuneopt.analysis.names import optimizer_name, place_name, speedup_decimals
from tuneopt.analysis.runs import RegimeKey, Role, TrainingRun
from tuneopt.analysis.speedup import above_one
from tuneopt.search.axis import is_number
from tuneopt.search.plan import Outcome
from tuneopt.search.standing import Standing


def _name(optimizer: str) -> str:
    """An optimizer's name in a sentence; one from outside stands without its digest."""
    return optimizer_name(optimizer.partition("@")[0])


def comparison_statement(
    document: Mapping[str, Any], baseline: str, rivals: Sequence[str], scale: str, ratio: float, where: str
) -> str:
    """The sentence, such as ``SOAP reaches AdamW's loss with 1.8x fewer tokens [1.5, 2.2] at nano-65k``.

    ``where`` says at which size and budget, in words. Rivals without a result are named.
    """
    rows = {row["optimizer"]: row for row in document["speedups"] if (row["scale"], row["ratio"]) == (scale, ratio)}
    ranking = next((row for row in document["rankings"] if (row["scale"], row["ratio"]) == (scale, ratio)), None)
    base = _name(baseline)
    parts = [_against(_name(name), base, rows.get(name)) for name in rivals]
    groups: dict[str, int] = {}
    if ranking is not None and ranking["tie_groups"] is not None:
        groups = dict(zip(ranking["order"], ranking["tie_groups"], strict=True))
    ties = [
        f"{_name(one)} and {_name(other)} cannot be told apart"
        for one, other in combinations(rivals, 2)
        if (one in groups and groups[one] == groups.get(other)) or _overlap(rows.get(one), rows.get(other))
    ]
    return f"{parts[0]} {where}" + "".join(f"; {part}" for part in (*parts[1:], *ties))


def _overlap(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> bool:
    """Whether the interval of one rival holds the figure of the other: then tuning again may change their order.

    Tie groups know the noise of seeds alone, which tells configurations apart; the intervals hold the choice of them.
    Two lower bounds have no order to change.
    """

    def holds(outer: Mapping[str, Any], inner: Mapping[str, Any]) -> bool:
        low, high, value = outer["low"], outer["high"], inner["speedup"]
        if "lower bound" in outer["flags"] and "lower bound" in inner["flags"]:
            return False
        return low is not None and value is not None and low <= value and (high is None or value <= high)

    return one is not None and other is not None and (holds(one, other) or holds(other, one))


def one_place_statement(document: Mapping[str, Any]) -> str:
    """The sentence of a document that compares rivals with its baseline in one regime alone; empty for any other.

    With one rival the headline of a report says it already.
    """
    several = [row for row in document["rankings"] if len(row["order"]) > 1]
    baseline = document["baseline"]
    if len(several) != 1 or baseline not in several[0]["order"] or len(several[0]["order"]) < 3:
        return ""
    (place,) = several
    rivals = [name for name in place["order"] if name != baseline]
    at = (place["corpus"], place["scale"], place["ratio"])
    fast = {row["optimizer"] for row in document["speedups"]
            if (row["corpus"], row["scale"], row["ratio"]) == at and "no law" not in row["flags"]}  # fmt: skip
    if not fast.issuperset(rivals):
        return ""  # losses are compared, and the statement of the scale says so
    where = f"at {place_name(place['scale'], place['ratio'])}"
    return f"{comparison_statement(document, baseline, rivals, place['scale'], place['ratio'], where)}."


def _against(name: str, base: str, row: Mapping[str, Any] | None) -> str:
    """One rival against the baseline, in words."""
    if row is None or "no law" in row["flags"]:
        return f"{name} has no result that can be compared with {base}"
    value, low, high, flags = row["speedup"], row["low"], row["high"], row["flags"]
    beyond = ", beyond the runs of the baseline (extrapolated)" if "extrapolated" in flags else ""
    if low is None and value < 1:
        return f"{name} needs {1 / value:.2f}x as many tokens as {base}, the noise being unknown{beyond}"
    if low is None:
        return f"{name} reaches {base}'s loss with {value:.2f}x fewer tokens, the noise being unknown{beyond}"
    digits = speedup_decimals(low, high)
    end = "open" if high is None else f"{high:.{digits}f}"
    if low <= 1 and (high is None or high >= 1) and not above_one(low, flags):
        return f"{name} cannot be told from {base} ({value:.{digits}f}x [{low:.{digits}f}, {end}]{beyond})"
    if value >= 1:
        ends = f"[{low:.{digits}f}, {end}]"
        if "lower bound" in flags:
            return f"{name} ends below what {base} is known to reach, so it saves at least {value:.{digits}f}x {ends}"
        return f"{name} reaches {base}'s loss with {value:.{digits}f}x fewer tokens {ends}{beyond}"
    digits = speedup_decimals(1 / high, 1 / low)
    ends = f"[{1 / high:.{digits}f}, {1 / low:.{digits}f}]"
    return f"{name} needs {1 / value:.{digits}f}x as many tokens as {base} {ends}{beyond}"


def runs_of(standings: Mapping[str, Standing], outcomes: Mapping[str, Outcome]) -> tuple[TrainingRun, ...]:
    """The runs of a comparison's sweeps as the analysis takes them: what stands alone with its seeds is a candidate.

    It is none as long as the seed that it was chosen by is all that has ended: that loss is the lowest of many.
    """
    runs: dict[str, TrainingRun] = {}
    for standing in standings.values():
        chosen, sweep = set(standing.trials), standing.task.sweep
        fresh = any(spec.seed != sweep.seed and spec.id in outcomes for spec in standing.state.needed)
        confirmed = not sweep.space.varied and (fresh or sweep.replicates == 1)
        role = Role.CANDIDATE if confirmed else Role.EXPLORED
        for spec in standing.state.needed:
            outcome = outcomes.get(spec.id)
            if outcome is None or spec.id not in chosen or (spec.id in runs and runs[spec.id].role >= role):
                continue
            regime = spec.regime
            runs[spec.id] = TrainingRun(
                trial=spec.id,
                optimizer=spec.optimizer,
                regime=RegimeKey(regime.corpus.name, regime.scale.name, float(regime.ratio)),
                parameters=regime.scale.parameters,
                tokens=float(regime.tokens),
                config=tuple((name, float(part) if is_number(part) else part) for name, part in spec.hyperparameters),
                seed=spec.seed,
                status=outcome.status,
                select_loss=outcome.loss,
                report_loss=outcome.reported,
                variant=(spec.precision, spec.compile, spec.micro_batch, spec.semantics),
                trained=float(regime.tokens),
                flops=float(regime.flops),
                role=role,
            )
    return tuple(runs.values())

"""What the API returns of comparisons; `to_dict` gives the JSON shapes that others build on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tuneopt.api.study_results import StudyResult
from tuneopt.search.study.budget import Question, TrialTime
from tuneopt.search.study.comparison import planned, rules_of
from tuneopt.search.study.power import Power, weakest
from tuneopt.search.study.study import Study


@dataclass(frozen=True)
class ComparisonPlan:
    """A comparison before it runs.

    ``text`` is its study file, ``stored`` whether an earlier run of the same question had made it. ``times`` are the
    seconds of trials that it rests on, ``times_from`` where they are known from. ``planned_hours`` are by the clock on
    ``slots`` slots; ``ends`` is their range in hours, from simulated runs. ``powers`` say what can be told apart.
    """

    question: Question
    study: Study
    text: str
    stored: bool
    times: Mapping[str, TrialTime]
    times_from: str
    slots: int
    planned_hours: float
    ends: tuple[float, float]
    powers: tuple[Power, ...]

    def to_dict(self) -> dict[str, Any]:
        """What ``compare --dry-run --json`` prints."""
        rules, widest = rules_of(self.study), weakest(self.powers)
        return {
            "baseline": rules.baseline,
            "optimizers": list(self.study.optimizers),
            "regime": {"scale": self.question.scale.name, "ratio": rules.ratios[0], "corpus": self.question.corpus},
            "budget": {
                "planned_hours": self.planned_hours,
                "low_hours": self.ends[0],
                "high_hours": self.ends[1],
                "slots": self.slots,
            },
            "resolution": widest.nats,
            "resolution_speedup": widest.speedup,
            "power": [power.to_dict() for power in self.powers],
            "coordinates": {name: [axis.name for axis in space.varied] for name, space in self.study.spaces.items()},
            "ratios": list(rules.ratios),
            "trials": [
                {"phase": phase, "optimizer": name, "ratio": ratio, "trials": round(trials, 1)}
                for phase, name, ratio, trials in planned(self.study)
            ],
            "seeds": rules.seeds,
            "times": {
                name: {"fixed_seconds": time.fixed, "tokens_per_second": time.rate} for name, time in self.times.items()
            },
            "times_from": self.times_from,
            "study": self.text,
        }


@dataclass(frozen=True, slots=True)
class TunedCare:
    """What an optimizer was given where the rivals meet: ``trials`` in all, seeds among them, over ``coordinates``.

    ``resolution`` is what its tuning can see: no single change of what it ended on is better by more, in nats, with 95%
    confidence; None where nothing finished.
    """

    optimizer: str
    coordinates: tuple[str, ...]
    trials: int
    resolution: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**asdict(self), "coordinates": list(self.coordinates)}


@dataclass(frozen=True, kw_only=True, repr=False)
class ComparisonResult(StudyResult):
    """How a comparison ended: its ``statement``, and the ``analysis`` that it was read from (as ``report --json``).

    ``spent_hours`` are by the clock, all runs of it together.
    """

    plan: ComparisonPlan
    analysis: Mapping[str, Any]
    statement: str
    spent_hours: float
    shown: tuple[str, ...]
    """Ids of the sweeps that a report is about."""
    care: tuple[TunedCare, ...]
    """What each optimizer was given where they meet, the baseline first."""

    @property
    def sweeps(self) -> list[str]:
        """Ids of the sweeps that a report is about."""
        return list(self.shown)

    @property
    def baseline(self) -> str:
        """Whom the rivals are compared with."""
        return rules_of(self.plan.study).baseline

    @property
    def speedups(self) -> list[Mapping[str, Any]]:
        """The speedups of the rivals where they meet the baseline, in the order in which they were asked for."""
        rules = rules_of(self.plan.study)
        rows = {row["optimizer"]: row for row in self.analysis["speedups"] if row["ratio"] == rules.ratios[0]}
        return [rows[name] for name in self.plan.study.optimizers if name != rules.baseline and name in rows]

    @property
    def certified(self) -> bool:
        """Whether every rival has a measured speedup with its interval."""
        rivals = len(self.plan.study.optimizers) - 1
        known = [row for row in self.speedups if row["low"] is not None]
        return bool(self.status["finished"]) and len(known) == rivals

    def _headline(self) -> str:
        if self.interrupted:
            return f"interrupted after {len(self.run)} trials; ask again, and it goes on. So far: {self.statement}"
        return self.statement

    def _facts(self) -> Mapping[str, str]:
        spent, planned = 60 * self.spent_hours, 60 * self.plan.planned_hours
        return {
            **{row["optimizer"]: _speedup_text(row) for row in self.speedups},
            "budget": f"{spent:.1f} min spent, {planned:.1f} planned",
            **super()._facts(),
        }

    def _rows(self) -> Sequence[Mapping[str, Any]]:
        """A row for each rival: its speedup over the baseline where they meet, a ratio of tokens, with its interval."""
        return self.speedups

    def to_dict(self) -> dict[str, Any]:
        """What ``compare --json`` prints."""
        plan = self.plan.to_dict()
        return {
            **{name: plan[name] for name in ("baseline", "optimizers", "regime")},
            "budget": {**plan["budget"], "spent_hours": self.spent_hours},
            "resolution": plan["resolution"],
            "speedups": list(self.speedups),
            "statement": self.statement,
            "report": self.report,
            **{name: plan[name] for name in ("power", "coordinates", "ratios", "seeds", "times", "times_from")},
            "care": [care.to_dict() for care in self.care],
            "results": [
                {name: row[name] for name in ("optimizer", "phase", "scale", "ratio", "best")}
                for row in self.status["results"]
            ],
            "trials": self.status["trials"],
            "stopped": self.stopped,
            "run": len(self.run),
            "failed": self.failed,
            "utilisation": self.utilisation,
            "warnings": self.analysis["warnings"],
        }


def _speedup_text(row: Mapping[str, Any]) -> str:
    if row["speedup"] is None:
        return "no speedup could be measured"
    interval = "no interval" if row["low"] is None else f"{row['low']:.2f} to {row['high']:.2f}"
    return f"{row['speedup']:.2f}x in tokens ({interval})"

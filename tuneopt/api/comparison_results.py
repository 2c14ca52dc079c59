"""What the API returns of comparisons; `to_dict` gives the JSON shapes that others build on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuneopt.api.claims import Conclusion
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
    ``slots`` slots; ``ends`` is the range in hours of what is left of them, from simulated runs. Of a stored plan
    ``in_ledger`` trials have ended and about ``left`` are to come (None before any run). ``powers`` say what can be
    told apart, and ``page`` is a name for its report.
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
    page: str
    in_ledger: int = 0
    left: int | None = None

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
            "in_ledger": self.in_ledger,
            "left": self.left,
            "seeds": rules.seeds,
            "times": {
                name: {"fixed_seconds": time.fixed, "tokens_per_second": time.rate} for name, time in self.times.items()
            },
            "times_from": self.times_from,
            "study": self.text,
        }


@dataclass(frozen=True, kw_only=True, repr=False)
class ComparisonResult(StudyResult):
    """How a comparison that was planned for a budget ended; ``spent_hours`` are by the clock, all runs of it together.

    Its ``conclusion`` holds the statement, and what that was read from.
    """

    plan: ComparisonPlan
    spent_hours: float
    conclusion: Conclusion
    simulated: bool = False
    """Whether nothing was trained: then it is no evidence about optimizers."""

    @property
    def statement(self) -> str:
        """What was found, in words."""
        return self.conclusion.statement

    @property
    def speedups(self) -> list[Mapping[str, Any]]:
        """The speedups of the rivals where they meet the baseline, in the order in which they were asked for."""
        return self.conclusion.speedups

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
            "simulated": self.simulated,
            "speedups": self.speedups,
            "statement": self.statement,
            "report": self.report,
            **{name: plan[name] for name in ("power", "coordinates", "ratios", "seeds", "times", "times_from")},
            "care": [care.to_dict() for care in self.conclusion.care],
            "results": [
                {name: row[name] for name in ("optimizer", "phase", "scale", "ratio", "best")}
                for row in self.status["results"]
            ],
            "trials": self.status["trials"],
            "stopped": self.stopped,
            "run": len(self.run),
            "failed": self.failed,
            "utilisation": self.utilisation,
            "warnings": self.conclusion.analysis["warnings"],
        }


def _speedup_text(row: Mapping[str, Any]) -> str:
    if row["speedup"] is None:
        return "no speedup could be measured"
    interval = "no interval" if row["low"] is None else f"{row['low']:.2f} to {row['high']:.2f}"
    return f"{row['speedup']:.2f}x in tokens ({interval})"

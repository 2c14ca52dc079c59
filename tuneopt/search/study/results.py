"""What a study has found so far: certificates, scaling-sensitive coordinates, predictions and their distances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuneopt.search.standing import Standing
from tuneopt.search.study.matching import PHASE as MATCH
from tuneopt.search.study.planner import Finding, StudyPlan
from tuneopt.search.sweep import Best
from tuneopt.spec import Regime

Standings = Mapping[str, Standing]


@dataclass(frozen=True, slots=True)
class Result:
    """An optimizer in a regime: the sweep that stands for it, and what evening out its budget found beside.

    ``best`` is the sweep's winner, or a configuration of ``match`` that beats it by more than the tolerance and was
    rerun with the same seeds. ``distance`` (Phase III with a star) is how far the prediction's loss lies above that of
    the sweep that began there, in nats.
    """

    optimizer: str
    regime: Regime
    phase: str
    standing: Standing
    best: Best | None
    attempts: int
    distance: float | None

    @property
    def certified(self) -> bool:
        """Whether its certificate is complete."""
        return self.standing.certified

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        best, certificate = self.best, self.standing.state.descent.certificate
        return {
            "optimizer": self.optimizer,
            "phase": self.phase,
            "scale": self.regime.scale.name,
            "ratio": self.regime.ratio,
            "sweep": self.standing.task.id,
            "certificate": {
                "complete": certificate.complete,
                "tolerance": certificate.tolerance,
                "edges": list(certificate.edges),
            },
            "best": {
                "config": best.spec.config if best else None,
                "select_loss": best.select_loss if best else None,
                "report_loss": best.report_loss if best else None,
                "trial": best.trial if best else None,
                "seeds": best.seeds if best else 0,
            },
            "sigma": self.standing.state.sigma,
            "trials": len(self.standing.trials),
            "attempts": self.attempts,
            "distance": self.distance,
        }


def results(plan: StudyPlan, standings: Standings) -> tuple[Result, ...]:
    """The result of each optimizer and regime, in the order in which the study reaches them."""
    found: dict[tuple[str, Regime], list[Standing]] = {}
    extra: dict[tuple[str, Regime], list[Standing]] = {}
    for standing in standings.values():
        into = extra if standing.task.phase == MATCH else found
        into.setdefault((standing.task.optimizer, standing.task.sweep.regime), []).append(standing)
    return tuple(_result(plan, key, held, extra.get(key, ())) for key, held in found.items())


def _result(plan: StudyPlan, key: tuple[str, Regime], held: Sequence[Standing], extra: Sequence[Standing]) -> Result:
    last = held[-1]
    best = last.state.best
    for standing in extra:
        rival = standing.state.best
        if rival is None or not standing.finished or rival.seeds < last.task.sweep.replicates:
            continue
        if best is None or rival.select_loss < best.select_loss - last.state.tolerance:
            best = rival
    return Result(key[0], key[1], last.task.phase, last, best, len(held), _distance(plan, last))


def _distance(plan: StudyPlan, standing: Standing) -> float | None:
    """How far the prediction, which is the sweep's start, lies above where the sweep ended."""
    descent = standing.state.descent
    if standing.task.phase != "III" or not plan.study.star or not standing.descended or descent.incumbent_loss is None:
        return None
    if not descent.path:
        return 0.0
    before = descent.path[0].loss_before
    return None if before is None else before - descent.incumbent_loss


def finding_dict(optimizer: str, finding: Finding) -> dict[str, Any]:
    """What is known of an optimizer, as plain data for JSON."""
    return {
        "optimizer": optimizer,
        "sensitive": list(finding.sensitive),
        "shared": finding.shared,
        "verdicts": [
            {
                "coordinate": verdict.coordinate,
                "sensitive": verdict.sensitive,
                "near_optimal": list(verdict.near),
                "shared": verdict.shared,
            }
            for verdict in finding.verdicts
        ],
        "predictions": [
            {"scale": regime.scale.name, "ratio": regime.ratio, **forecast.to_dict()}
            for regime, forecast in (finding.forecasts or {}).items()
        ],
    }

"""What the API returns of sweeps and sampled searches; `to_dict` gives the JSON shapes that others build on.

Fields of those shapes may be added, never renamed: scripts read them. People get the same values printed by the command
that asked for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tuneopt.api.reading import Plotted, Readable
from tuneopt.run.spine import RunResult
from tuneopt.search.sampled import SampledSearch
from tuneopt.search.state import SweepState
from tuneopt.search.study.power import Power
from tuneopt.search.sweep import Sweep
from tuneopt.spec import Regime


@dataclass(frozen=True)
class SweepCost:
    """What a sweep or a sampled search will cost, before it starts."""

    sweep: str  # its id
    optimizer: str
    regime: Regime
    first_wave: int  # trials that start at once
    in_ledger: int
    """Trials that the ledger holds already."""
    expected: int
    """Trials in all, those of the ledger among them."""
    steps: int  # of one trial at the start
    epochs: float  # passes of one trial over the corpus
    tokens_per_second: float | None  # of one slot
    throughput_from: str  # where that figure comes from, in words
    slots: int  # trials at once
    seconds: float | None  # of the expected trials on ``slots``; None where no throughput is known
    warnings: tuple[str, ...] = ()
    search: SampledSearch | None = None
    power: Power | None = None
    """What the seeds of two of its configurations will tell apart."""
    fewest: int = 0
    """Trials in all, as most sweeps need at least; ``most`` at most."""
    most: int = 0
    ends: tuple[float, float] | None = None
    """Seconds by the clock: of the fewest trials that lack, if they are fast, and of the most, if they are slow."""

    def to_dict(self) -> dict[str, Any]:
        """What ``tune --dry-run --json`` prints."""
        # Keys of a search alone: by them scripts tell the two apart.
        about = {} if self.search is None else {"search": self.search.search, "scheduler": self.search.scheduler}
        return {
            "sweep": self.sweep,
            "optimizer": self.optimizer,
            "regime": regime_dict(self.regime),
            "trials": {
                "first_wave": self.first_wave,
                "in_ledger": self.in_ledger,
                "expected": self.expected,
                "fewest": self.fewest,
                "most": self.most,
            },
            "per_trial": {
                "tokens": self.regime.tokens,
                "steps": self.steps,
                "flops": self.regime.flops,
                "epochs": self.epochs,
            },
            "tokens_per_second": self.tokens_per_second,
            "throughput_from": self.throughput_from,
            "slots": self.slots,
            "seconds": self.seconds,
            "seconds_low": None if self.ends is None else self.ends[0],
            "seconds_high": None if self.ends is None else self.ends[1],
            "power": None if self.power is None else self.power.to_dict(),
            "warnings": list(self.warnings),
            **about,
        }


@dataclass(frozen=True, kw_only=True, repr=False)
class SweepResult(Readable, Plotted, RunResult):
    """How a sweep ended, and what this run of it cost. ``report`` is the address of its page, once there is one."""

    sweep: Sweep
    state: SweepState
    report: str = ""

    @property
    def id(self) -> str:
        """The id under which the ledger keeps the sweep."""
        return self.sweep.id

    @property
    def sweeps(self) -> list[str]:
        """What a report of this result is about: its `id`."""
        return [self.id]

    @property
    def certified(self) -> bool:
        """Whether the certificate holds at the asked resolution."""
        return self.state.certificate.certified

    def _headline(self) -> str:
        best, regime = self.state.best, self.sweep.regime
        name = f"{self.sweep.space.optimizer} at {regime.label} on {regime.corpus.name}"
        if self.interrupted:
            return f"{name}: interrupted after {len(self.run)} trials; call it again, and it goes on"
        if best is None:
            return f"{name}: no trial can win"
        seeds = f"mean of {best.seeds} seeds" if best.seeds > 1 else "one seed"
        return f"{name}: select loss {best.select_mean:.4f} nats per token ({seeds})"

    def _facts(self) -> Mapping[str, str]:
        best, certificate = self.state.best, self.state.certificate
        seen = "" if certificate.resolution is None else f", sees {certificate.resolution:.4f} nats"
        config = {} if best is None else best.spec.config
        return {
            "certificate": f"{certificate.state}{seen}",
            "best": ", ".join(f"{name}={value}" for name, value in config.items()) or "none",
            "trials": f"{len(self.run)} run, {len(self.reused)} reused, {len(self.diverged)} diverged, "
            f"{len(self.failed)} failed",
            **({"stopped at": self.stopped} if self.stopped else {}),
            **({"report": self.report} if self.report else {}),
        }

    def _rows(self) -> list[dict[str, Any]]:
        """A row for each finished trial: what was varied, and its losses in nats per token."""
        space = self.sweep.space
        varied = [axis.name for axis in space.varied]
        configs = {self.sweep.trial_id(config): config for config in self.state.descent.asked}
        return [
            {
                "trial": trial,
                **{name: space.value(configs[trial], name) if trial in configs else None for name in varied},
                "status": outcome.status,
                "select_loss": outcome.loss,
                "report_loss": outcome.reported,
            }
            for trial, outcome in self.outcomes.items()
        ]

    def to_dict(self) -> dict[str, Any]:
        """What ``tune --json`` prints."""
        # Without a winner (all diverged, say) the keys stay and hold null: a script need not ask which are there.
        best = self.state.best
        return {
            "sweep": self.id,
            "optimizer": self.sweep.space.optimizer,
            "regime": regime_dict(self.sweep.regime),
            "certificate": {
                **self.state.certificate.to_dict(),
                "coordinates": [axis.name for axis in self.sweep.space.varied],
                "held": [axis.name for axis in self.sweep.space.axes if axis.pinned],
            },
            "best": {
                "config": best.spec.config if best else None,
                "select_loss": best.select_loss if best else None,
                "select_mean": best.select_mean if best else None,
                "report_loss": best.report_loss if best else None,
                "report_error": best.report_error if best else None,
                "report_bits_per_byte": best.spec.regime.bits_per_byte(best.report_loss) if best else None,
                "trial": best.trial if best else None,
                "seeds": best.seeds if best else 0,
            },
            "trials": {
                "run": len(self.run),
                "reused": len(self.reused),
                "diverged": len(self.diverged),
                "failed": len(self.failed),
            },
            "errors": self.failed,
            "waves": self.state.progress.waves,
            "utilisation": self.utilisation,
            "seconds": self.wall_seconds,
            "report": self.report,
        }


@dataclass(frozen=True, kw_only=True, repr=False)
class SearchResult(SweepResult):
    """How a sampled search ended. ``state`` is that of the sweep around its best configuration."""

    search: SampledSearch
    budget: int
    """Trials of this run and of earlier ones of the same search, the winner's other seeds not counted."""
    marks: tuple[str, ...] = ()
    """What must be said with the result, a sentence each."""

    @property
    def id(self) -> str:
        """The id under which the ledger keeps the search."""
        return self.search.id

    def to_dict(self) -> dict[str, Any]:
        """What ``tune --search NAME --json`` prints: all that every sweep prints, and what a search adds."""
        plain = super().to_dict()
        return {
            **plain,
            "search": self.search.search,
            "scheduler": self.search.scheduler,
            "trials": {**plain["trials"], "cut": len(self.cut), "budget": self.budget},
            "marks": list(self.marks),
        }


def regime_dict(regime: Regime) -> dict[str, Any]:
    """A regime as the JSON shapes name it."""
    plain = {"scale": regime.scale.name, "ratio": regime.ratio, "corpus": regime.corpus.name}
    return {**plain, "tokens": regime.tokens, "asked": regime.asked or None}

"""What the API returns of studies, run and simulated; `to_dict` gives the JSON shapes that others build on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuneopt.api.claims import Conclusion
from tuneopt.api.reading import Plotted, Readable
from tuneopt.run.spine import RunResult
from tuneopt.search.descent import CERTIFIED
from tuneopt.search.standing import REPEATED


@dataclass(frozen=True, kw_only=True, repr=False)
class StudyResult(Readable, Plotted, RunResult):
    """How a run of a study ended, and what it cost; ``status`` is where the study then stands (`study_status`)."""

    status: Mapping[str, Any]
    conclusion: Conclusion | None = None
    """What it found, if it is a comparison."""
    report: str = ""

    @property
    def certified(self) -> bool:
        """Whether the study is finished, and every sweep that varies something certified at the asked resolution.

        A comparison has no certificates to give: what counts there is that every rival has a speedup with its interval.
        """
        if self.conclusion is not None:
            return self.conclusion.complete
        states = {result["certificate"]["state"] for result in self.status["results"]}
        return bool(self.status["finished"]) and states <= {CERTIFIED, REPEATED}

    @property
    def sweeps(self) -> list[str]:
        """Ids of the sweeps that a report is about, in the order of the status."""
        if self.conclusion is not None:
            return list(self.conclusion.sweeps)
        return list(dict.fromkeys(row["sweep"] for row in self.status["results"]))

    @property
    def baseline(self) -> str | None:
        """Whom rivals are compared with, where the study says so."""
        return None if self.conclusion is None else self.conclusion.baseline

    def _headline(self) -> str:
        if self.conclusion is not None and self.status["finished"]:
            return self.conclusion.statement
        trials = self.status["trials"]
        if self.interrupted:
            return f"study {self.status['study']}: interrupted; call it again, and it goes on"
        state = "finished" if self.status["finished"] else f"in phase {self.status['phase']}"
        return f"study {self.status['study']}: {state}, {trials['ended']} trials ended"

    def _facts(self) -> Mapping[str, str]:
        return {
            "this run": f"{len(self.run)} trials, {len(self.failed)} failed, {self.wall_seconds:.0f} s by the clock",
            **({"stopped at": self.stopped} if self.stopped else {}),
            **({"report": self.report} if self.report else {}),
        }

    def _rows(self) -> Sequence[Mapping[str, Any]]:
        """A row for each optimizer and regime: its certificate and what it reached, in nats per token."""
        return [
            {
                **{name: row[name] for name in ("phase", "optimizer", "scale", "ratio")},
                "certificate": row["certificate"]["state"],
                "resolution": row["certificate"]["resolution"],
                **{name: row["best"].get(name) for name in ("report_loss", "seeds", "trial", "config")},
            }
            for row in self.status["results"]
        ]

    def to_dict(self) -> dict[str, Any]:
        """What ``study run --json`` prints."""
        return {
            **self.status,
            **({} if self.conclusion is None else self.conclusion.to_dict()),
            "stopped": self.stopped,
            "run": len(self.run),
            "failed": self.failed,
            "utilisation": self.utilisation,
            "seconds": self.wall_seconds,
            "report": self.report,
        }


@dataclass(frozen=True, kw_only=True, repr=False)
class SimulatedStudy(StudyResult):
    """How a simulated study ended: on which slots, in how many fake seconds, on which surfaces."""

    seconds: float  # on the fake clock
    share: float  # busy slot seconds over all slot seconds
    cpu_seconds: float  # what the simulation itself took
    surfaces: Mapping[str, Mapping[str, int]]
    """Optimizer -> where its surfaces are from -> how many of them."""

    def to_dict(self) -> dict[str, Any]:
        """What ``study run --simulate --json`` prints."""
        return {
            **self.status,
            **({} if self.conclusion is None else self.conclusion.to_dict()),
            "stopped": self.stopped,
            "simulation": {
                "slots": self.slots,
                "seconds": self.seconds,
                "utilisation": self.share,
                "cpu_seconds": self.cpu_seconds,
                "surfaces": self.surfaces,
            },
            "report": self.report,
        }

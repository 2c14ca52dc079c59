"""Whether what a ledger's certificates promise holds in runs that nobody has seen.

    .venv/bin/python benchmarks/held_out.py --ledger reports/nano-study --into held-out [--sweeps 5] [--seeds 8]
                                            [--workers 2] [--json FILE]

A certificate says that no single change of its winner is better by more than its resolution, with 95% confidence. The
change that comes nearest to breaking it is the best rival: the one in the star whose runs have the lowest mean loss. Of
as many sweeps as are asked for (certified ones first, then those whose certificate is blind: it claims as much, at a
coarser resolution), winner and best rival run again with the same seeds, which no run of the ledger has had. The
promise held where the winner's mean is not above the rival's by more than the resolution. Two more things are counted:
how often the rival is better at all, and how often noise cannot explain that the promise broke.

Trials are kept in ``--into``, so that the same command goes on after an interruption. ``--workers`` processes train at
once. Exit code 1 where less than nine in ten promises held.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, variance

import tuneopt
from tuneopt.analysis.names import optimizer_name
from tuneopt.ledger import Ledger, TrialRecord, open_ledger
from tuneopt.reporting.study import SweepView, read_study
from tuneopt.reporting.verdict import certificate_state
from tuneopt.search.descent import BLIND, CERTIFIED
from tuneopt.search.space import Config
from tuneopt.search.variances import student
from tuneopt.spec import TrialSpec

FIRST_SEED = 1000
"""Far above what sweeps use: they count from 0 or from a seed that somebody named."""

HELD = 0.9
"""The share of promises that have to hold."""


@dataclass(frozen=True)
class Pair:
    """A winner and its best rival: trials of both with the fresh seeds, in their order."""

    optimizer: str
    regime: str
    change: str
    resolution: float
    winner: tuple[TrialSpec, ...]
    rival: tuple[TrialSpec, ...]


@dataclass(frozen=True)
class Check:
    """What fresh seeds say of one promise; losses in nats per token (select), the winner's less the rival's."""

    optimizer: str
    regime: str
    change: str
    resolution: float
    before: float
    """The difference of the means by which the sweep had chosen."""
    after: float
    error: float
    """The standard error of ``after``."""
    seeds: int
    report_before: float
    """The winner's mean report loss over the seeds of its sweep, and over the fresh ones."""
    report_after: float

    @property
    def held(self) -> bool:
        """Whether the rival is not better by more than was promised."""
        return self.after <= self.resolution

    @property
    def broken(self) -> bool:
        """Whether it is, and noise does not explain that (one-sided, 95%)."""
        return self.after - student(0.95, 2 * self.seeds - 2) * self.error > self.resolution


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ledger", required=True, help="the ledger whose certificates are checked")
    parser.add_argument("--into", required=True, help="the ledger that the fresh runs are kept in")
    parser.add_argument("--sweeps", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--share", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    views = certified(open_ledger(asked.ledger, must_exist=True))[: asked.sweeps]
    checked = [(view, pair_of(view, asked.seeds)) for view in views]
    trials = [spec for _, pair in checked for spec in (*pair.winner, *pair.rival)]
    if asked.share is not None:
        for spec in trials[asked.share :: asked.workers]:
            tuneopt.train(spec, ledger=asked.into)
        return 0
    shares = [
        subprocess.Popen([sys.executable, *sys.argv, "--share", str(share)], env={**os.environ, "OMP_NUM_THREADS": "1"})
        for share in range(asked.workers)
    ]
    for process in shares:
        process.wait()
    if any(process.returncode for process in shares):
        return 2
    checks = [check(view, pair, Ledger(asked.into)) for view, pair in checked]
    print("| sweep | best rival | promised (nats) | then | now | standard error | | winner's report loss then, now |")
    print("|---|---|---|---|---|---|---|---|")
    for one in checks:
        verdict = "held" if one.held else "broken" if one.broken else "broken, within noise"
        print(
            f"| {optimizer_name(one.optimizer)} at {one.regime} | {one.change} | {one.resolution:.4f} | "
            f"{one.before:+.4f} | {one.after:+.4f} | {one.error:.4f} | {verdict} | "
            f"{one.report_before:.4f}, {one.report_after:.4f} |"
        )
    held = sum(one.held for one in checks)
    better = sum(one.after > 0 for one in checks)
    print(f"{held} of {len(checks)} promises held; in {better} the rival is the better one, by less than was promised")
    if asked.json:
        asked.json.write_text(json.dumps([asdict(one) for one in checks], indent=1) + "\n")
    return int(held < HELD * len(checks))


def certified(ledger: Ledger) -> list[SweepView]:
    """The sweeps whose certificate claims something of a star: certified ones first, else in the order of a report."""
    views = [view for view in read_study(ledger).views if certificate_state(view) in (CERTIFIED, BLIND)]
    return sorted(views, key=lambda view: certificate_state(view) == BLIND)


def pair_of(view: SweepView, seeds: int) -> Pair:
    """The winner of a sweep and the best of its star, by the means over all seeds that they ran with."""
    descent, fresh = view.state.descent, range(FIRST_SEED, FIRST_SEED + seeds)
    rivals = {change.config: change for change in descent.star if view.seeds(change.config)}
    best = min(rivals, key=lambda config: mean(view, config))
    return Pair(
        view.optimizer,
        view.label,
        f"{rivals[best].coordinate} {rivals[best].value}",
        descent.certificate.resolution or math.nan,
        tuple(view.sweep.describe(descent.incumbent, seed) for seed in fresh),
        tuple(view.sweep.describe(best, seed) for seed in fresh),
    )


def mean(view: SweepView, config: Config) -> float:
    """The mean select loss of a configuration in its sweep."""
    return fmean(record.select_loss for record in view.seeds(config) if record.select_loss is not None)


def check(view: SweepView, pair: Pair, ledger: Ledger) -> Check:
    """What the fresh runs say of a promise. A rival that diverges once is no better one."""
    winners, rivals = ([record_of(spec, ledger) for spec in specs] for specs in (pair.winner, pair.rival))
    if any(record.select_loss is None for record in winners):
        raise SystemExit(f"the winner of {pair.optimizer} at {pair.regime} diverged with a fresh seed: it has no mean")
    own, theirs = (
        [math.inf if one.select_loss is None else one.select_loss for one in ran] for ran in (winners, rivals)
    )
    return Check(
        pair.optimizer,
        pair.regime,
        pair.change,
        pair.resolution,
        before=mean(view, view.state.descent.incumbent) - mean(view, pair.rival[0].hyperparameters),
        after=fmean(own) - fmean(theirs),
        error=0.0 if math.inf in theirs else math.sqrt((variance(own) + variance(theirs)) / len(own)),
        seeds=len(own),
        report_before=fmean(record.report_loss or math.nan for record in view.winner),
        report_after=fmean(record.report_loss or math.nan for record in winners),
    )


def record_of(spec: TrialSpec, ledger: Ledger) -> TrialRecord:
    """The record of a fresh run."""
    record = ledger.get(spec.id)
    assert record is not None and (record.comparable or record.status == "diverged"), f"{spec.id} has no sound record"
    return record


if __name__ == "__main__":
    sys.exit(main())

"""A study on a cluster: what it will cost, how it would go, and how it is started.

    python examples/study_on_a_cluster.py                 # plan and simulation; nothing is trained
    python examples/study_on_a_cluster.py auto            # on the head of a Ray cluster: runs it

`ray up cluster.yaml` brings a cluster up (docs/cluster.md). The plan says whether a device is large enough before any
is rented; the simulation plays the whole study on a fake clock.
"""

from __future__ import annotations

import sys

import tuneopt as to

STUDY = "studies/nano.yaml"
SLOTS = 64


def main(address: str | None = None, ledger: str = "ledger-study") -> to.api.StudyResult:
    """Plan and simulate the study, and with an address run it there."""
    study = to.load_study(STUDY)
    plan = to.study_plan(study, ledger, to.api.Speed(tokens_per_second=50_000), slots=SLOTS)
    whole = plan["total"]
    print(f"about {whole['trials']:.0f} trials, {whole['device_hours']:.1f} device-hours; fits: {plan['fits']}")

    simulated = to.simulate_study(study, slots=SLOTS)
    print(f"simulated on {SLOTS} slots: {simulated.share:.0%} of their time in use")
    if address is None:
        print(simulated)
        return simulated
    # Ctrl-C, a lost node or a killed driver cost nothing that was finished: run the same line again.
    result = to.study(study, ledger, to.RunOptions(address=address, max_concurrent=SLOTS))
    print(result)
    return result


if __name__ == "__main__":
    main(*sys.argv[1:2])

"""What does a sweep claim, and what does it rest on? Read from the example that ships with tuneopt.

    python examples/reading_a_certificate.py

Nothing is trained. The same lines read a ledger of your own: `to.open_ledger("ledger")`.
"""

from __future__ import annotations

from tuneopt.reporting.example import example_ledger
from tuneopt.reporting.study import SweepView, read_study


def main() -> list[SweepView]:
    """Print the certificate of every sweep that tuned something, and what its star holds."""
    tuned = [view for view in read_study(example_ledger()).views if view.sweep.space.varied]
    for view in tuned:
        certificate, star = view.state.certificate, view.state.descent.star
        ran = [change for change in star if change.loss is not None]
        print(f"{view.optimizer} at {view.label}: {certificate.state}")
        print(f"  star: {len(star)} single changes of the best configuration, {len(ran)} of them run")
        print(f"  on an edge of the grid: {', '.join(certificate.edges) or 'nothing'}")
        if certificate.resolution is not None:
            print(f"  no change is better by more than {certificate.resolution:.4f} nats, with 95% confidence")
        for change in sorted(ran, key=lambda one: one.loss or 0.0)[:3]:
            print(f"    {change.coordinate} = {change.value}: select loss {change.loss:.4f} nats per token")
    return tuned


if __name__ == "__main__":
    main()

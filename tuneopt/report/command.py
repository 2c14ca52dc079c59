"""The command that repeats a sweep, as a reader would type it."""

from __future__ import annotations

import shlex

from tuneopt.report.study import SweepView
from tuneopt.report.text import value_text
from tuneopt.search.space import LadderSpace, load_space
from tuneopt.spec import InputError, Value


def exact(value: Value) -> str:
    """A value with all its digits."""
    return repr(value) if isinstance(value, float) else value_text(value)


def tune_command(view: SweepView) -> str:
    """``tuneopt tune`` with every option that sets this sweep apart; text from the ledger is quoted for a shell."""
    sweep = view.sweep
    words = ["tuneopt", "tune", "--optimizer", view.optimizer]
    words += ["--scale", sweep.regime.scale.name, "--ratio", f"{sweep.regime.ratio:g}", "--corpus", view.source]
    words += ["--seed", str(sweep.seed), "--replicates", str(sweep.replicates), "--policy", sweep.policy]
    for name in ("search", "scheduler", "trials"):
        if name in view.search:
            words += [f"--{name}", str(view.search[name])]
    words.append("--compile" if sweep.compile else "--no-compile")
    for option, name, values in changed(sweep.space):
        words += [option, f"{name}={','.join(exact(value) for value in values)}"]
    return shlex.join(words)


def changed(space: LadderSpace) -> list[tuple[str, str, tuple[Value, ...]]]:
    """What a sweep's space has changed of the declared one, as (--set, --grid or --start, name, values).

    Empty where the declared space is not known here, such as one from a file.
    """
    try:
        declared = load_space(space.optimizer).on(space.ladder)
    except InputError:
        return []
    found: list[tuple[str, str, tuple[Value, ...]]] = []
    for axis in space.axes:
        known = declared.by_name.get(axis.name)
        if known is None or known.values != axis.values:
            found.append(("--set" if axis.pinned else "--grid", axis.name, axis.values))
        if not axis.pinned and (known is None or known.start != axis.start):
            found.append(("--start", axis.name, (axis.start,)))
    fixed = dict(declared.fixed)
    found += [("--set", name, (value,)) for name, value in space.fixed if fixed.get(name) != value]
    return found

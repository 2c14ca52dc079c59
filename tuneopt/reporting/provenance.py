"""Where the numbers of a sweep come from: text, environment, update check, routing, every trial, and its command.

The folded end of a sweep's section (`tuneopt.reporting.section`), for a reader who doubts the first screen: enough to
run the sweep again and to see that the trials are of one kind. Everything is read from records and the sweep's own
description, so fields of dictionaries that a record holds are taken with a default: older releases left some of them
out.
"""

from __future__ import annotations

import shlex
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from tuneopt.reporting.blocks import NamedValues, Table
from tuneopt.reporting.drawing import spread
from tuneopt.reporting.figures.star import differences
from tuneopt.reporting.study import SweepView
from tuneopt.reporting.text import NONE, changes_text, duration_text, listed, loss_text, plural, shareable, value_text
from tuneopt.search.space import LadderSpace, load_space
from tuneopt.spec import InputError, OwnModel, Scale, Value


def _shape(scale: Scale) -> str:
    """What a scale is, in a line; of a model of a user's own, its file's digest and what it was called with."""
    if isinstance(scale, OwnModel):
        called = ", ".join(f"{name}={value}" for name, value in scale.arguments)
        words = called or "its defaults"
        return f"{scale.name}: a model from {scale.model}, called with {words}, sequence {scale.seq_len}"
    return (
        f"{scale.name}: {scale.layers} layers, width {scale.d_model}, {plural(scale.heads, 'head')}, "
        f"sequence {scale.seq_len}"
    )


def corpus(view: SweepView) -> NamedValues:
    """The text that was trained on."""
    regime = view.sweep.regime
    # The most: trials that diverged stopped short of the budget that all have in common.
    epochs = max((record.epochs for record in view.records.values()), default=None)
    seeds = view.sweep.seeds
    return NamedValues(
        "Regime and corpus",
        (
            ("scale", _shape(regime.scale)),
            ("parameters", f"{regime.scale.parameters:,} without embeddings, "
                           f"{regime.scale.total_parameters(regime.corpus.vocab_size):,} in all"),
            ("budget", f"{regime.tokens:,} tokens a trial (ratio {regime.ratio:g})"
                       + (f"; asked: {regime.asked}" if regime.asked else "")),
            ("corpus", regime.corpus.name),
            ("fingerprint", regime.corpus.fingerprint),
            ("vocabulary", f"{regime.corpus.vocab_size:,} entries"),
            ("passes over the training text", NONE if epochs is None else f"{epochs:.3g}"),
            ("precision, compiled", f"{view.sweep.precision}, {'yes' if view.sweep.compile else 'no'}"),
            ("seeds", f"{view.sweep.seed}; start and winner also {listed(str(s) for s in seeds[1:])}" if len(seeds) > 1
             else str(view.sweep.seed)),
            ("evaluation", f"{view.sweep.evaluation.final_sequences} sequences of each split at the end, "
                           f"{view.sweep.evaluation.curve_sequences} at each of {view.sweep.evaluation.points} points"),
        ),
    )  # fmt: skip


def environment(views: Sequence[SweepView]) -> NamedValues:
    """Versions and hardware of the trials; what differs is counted, since it may explain a difference."""
    seen: dict[str, Counter[str]] = defaultdict(Counter)  # by fact, the trials that ran with each value
    for view in views:
        for record in view.every.values():
            for name, value in record.environment.items():
                seen[name][str(value)] += 1
    facts = [
        (name, next(iter(values)) if len(values) == 1 else
         # Eight at most: the MFU of a GPU differs in every trial.
         ", ".join(f"{value} ({plural(count, 'trial')})" for value, count in sorted(values.items())[:8]))
        for name, values in sorted(seen.items())
    ]  # fmt: skip
    # Records hold times as ISO 8601 in UTC, which are ordered as texts; 19 characters are those up to the seconds.
    times = [moment for view in views for record in view.every.values() for moment in (record.started, record.ended)]
    if times:
        facts.append(("first start, last end", f"{min(times)[:19]}Z, {max(times)[:19]}Z"))
    return NamedValues("Environment and versions", tuple(facts))


def proof(view: SweepView) -> Table:
    """The checks that proved the winner's optimizer."""
    record = next(iter(view.winner), None)
    checks = record.proof.get("checks", []) if record is not None and record.proof else []
    passed = sum(record.proof_passed is True for record in view.records.values())
    rows = tuple(
        (str(check.get("name", "")), "passed" if check.get("passed") else "FAILED", _number(check.get("measured")),
         str(check.get("expected", "")), str(check.get("detail", "")))
        for check in checks
    )  # fmt: skip
    note = (
        f"Shown for the winner; {passed} of {plural(len(view.records), 'trial')} passed. "
        "A trial without its proof cannot win."
    )
    return Table(
        "Proof that the optimizer ran",
        ("check", "result", "measured", "expected", "detail"),
        rows,
        frozenset({2}),
        note,
    )


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value or NONE)


def routing(view: SweepView) -> Table:
    """Which parameters went to which rule: like ones together, since a model has dozens of one kind."""
    record = next(iter(view.winner), None)
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for route in record.routing if record is not None else ():
        decay = "yes" if route.get("decay") else "no"
        groups[str(route.get("rule", "")), decay, str(route.get("reason", ""))].append(route)
    rows = tuple(
        (rule, decay, str(len(routes)), _example(routes), reason) for (rule, decay, reason), routes in groups.items()
    )
    heads = ("rule", "weight decay", "parameters", "such as", "why")
    return Table("Routing of the parameters", heads, rows, frozenset({2}), "Shown for the winner.")


def _example(routes: Sequence[Mapping[str, Any]]) -> str:
    shown = [str(route.get("parameter", "")) for route in routes[:3]]
    return ", ".join(shown) + (", \u2026" if len(routes) > len(shown) else "")


def trials(view: SweepView, limit: int) -> Table:
    """Every trial, lowest loss first; above ``limit`` rows an even selection, which the remark says."""
    best = view.state.descent.incumbent
    records = sorted(
        view.every.values(), key=lambda record: (record.select_loss is None, record.select_loss or 0.0, record.trial)
    )
    shown = [records[index] for index in spread(len(records), limit)]
    rows = tuple(
        (
            record.trial,
            changes_text(differences(best, record.spec.hyperparameters)) or "the best configuration",
            str(record.spec.seed),
            record.status if record.comparable or record.status == "diverged" else "unproven",
            loss_text(record.select_loss),
            loss_text(record.report_loss),
            f"{record.steps:,}",
            duration_text(sum(record.seconds.values())),
        )
        for record in shown
    )
    note = "What each trial changes of the best configuration; losses in nats per token."
    if len(shown) < len(records):
        note += (
            f" {len(shown):,} of {len(records):,} trials are shown, spread evenly over their losses; "
            "`tuneopt ledger export trials.csv` writes all."
        )
    heads = ("trial", "changes", "seed", "status", "select loss", "report loss", "steps", "device time")
    return Table(f"All {len(records):,} trials", heads, rows, frozenset({2, 4, 5, 6, 7}), note)


def exact(value: Value) -> str:
    """A value with all its digits: the command has to give the same trial ids, where figures round."""
    return repr(value) if isinstance(value, float) else value_text(value)


def tune_command(view: SweepView) -> str:
    """``tuneopt tune`` with every option that sets this sweep apart; text from the ledger is quoted for a shell."""
    sweep = view.sweep
    words = ["tuneopt", "tune", "--optimizer", view.optimizer]
    words += [
        "--scale",
        sweep.regime.scale.name,
        "--ratio",
        f"{sweep.regime.ratio:g}",
        "--corpus",
        shareable(view.source),
    ]
    words += ["--seed", str(sweep.seed), "--replicates", str(sweep.replicates)]
    words += [] if view.search else ["--policy", sweep.policy]  # a sampled search does not descend
    for name in ("search", "scheduler", "trials"):
        if name in view.search:
            words += [f"--{name}", str(view.search[name])]
    words.append("--compile" if sweep.compile else "--no-compile")
    for option, name, values in changed(sweep.space):
        words += [option, f"{name}={','.join(exact(value) for value in values)}"]
    return shlex.join(words)


def changed(space: LadderSpace) -> list[tuple[str, str, tuple[Value, ...]]]:
    """What a sweep's space has changed of the declared one, as (--set, --grid or --start, name, values).

    Empty where the declared space is not known here, such as one from a file: the command then says less than it
    should, and ``--space`` is for the reader to add.
    """
    try:
        declared = load_space(space.optimizer).on(space.ladder)
    except InputError:
        return []
    # What the command line would have to say: a coordinate that is pinned by --set, one with other values by --grid.
    options: list[tuple[str, str, tuple[Value, ...]]] = []
    for axis in space.axes:
        known = declared.by_name.get(axis.name)
        if known is None or known.values != axis.values:
            options.append(("--set" if axis.pinned else "--grid", axis.name, axis.values))
        if not axis.pinned and (known is None or known.start != axis.start):
            options.append(("--start", axis.name, (axis.start,)))
    fixed = dict(declared.fixed)
    options += [("--set", name, (value,)) for name, value in space.fixed if fixed.get(name) != value]
    return options

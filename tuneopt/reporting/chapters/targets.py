"""What a target loss takes: steps, tokens or seconds, and whom the rule does not tell apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tuneopt.analysis.names import optimizer_name, scale_name
from tuneopt.analysis.targets import CREDIT, MARGIN, RULE_SIGMA, ToTarget, races, scores
from tuneopt.reporting.blocks import Block, Chapter, Figure, Table
from tuneopt.reporting.compare import Comparison
from tuneopt.reporting.figures.races import draw_races, needed_text, races_info
from tuneopt.reporting.text import NONE, count_text, duration_text, listed, plural

TITLE = "Steps to a target"

MOST_RACES = 10
"""Races that the first screen has a sentence for; those of more stand in the chapter."""

NAMED = 3
"""Optimizers that a sentence names."""

MOST_TIES = 2
"""Ties that a cell names."""


def chapter(comparison: Comparison) -> Chapter:
    """The races drawn, a table for each to a loss, and one for all tasks of a log; who needs least comes first.

    What the first screen says is not said again.
    """
    rows = comparison.analysis.targets
    if not rows:
        return Chapter("targets", TITLE, ())
    several = len({row.corpus for row in rows}) > 1
    blocks: list[Block] = [*Figure.all("races", [races_info(rows)], draw_races)]
    blocks += [_table(own, several) for own in races(rows) if own[0].loss is not None]
    logs = [row for row in rows if row.loss is None]
    for ruleset in dict.fromkeys(row.ruleset for row in logs):
        own = [row for row in logs if row.ruleset == ruleset]
        blocks.append(_tasks(own, several, _untimed(own, comparison)).folded())
    return Chapter("targets", TITLE, tuple(sentences(comparison)[MOST_RACES:]), tuple(blocks))


def sentences(comparison: Comparison) -> list[str]:
    """Scores over all races, then who reaches the target of each first, with what, and what the baseline needs."""
    rows = comparison.analysis.targets
    told = []
    for ruleset in dict.fromkeys(row.ruleset for row in rows if row.loss is None):
        own = [row for row in rows if row.ruleset == ruleset and row.loss is None]
        table = scores(own)
        if len(table) > 1 and any(table.values()):
            ranked = sorted(table.items(), key=lambda pair: (-pair[1], pair[0]))
            words = ", ".join(f"{optimizer_name(name)} {score:.3f}" for name, score in ranked)
            told.append(
                f"Areas under the performance profiles{f' ({ruleset})' if ruleset else ''}: {words}.{_unrun(own)}"
            )
    # Races with somebody to race against come first.
    ordered = sorted(races(rows), key=lambda own: len(own) == 1)
    several = len({row.corpus for row in rows}) > 1
    return told + [_sentence(own, comparison.analysis.baseline, several) for own in ordered]


def _unrun(rows: Sequence[ToTarget]) -> str:
    """What the areas leave out, and what they hold against an optimizer: tasks that not every one ran."""
    every = races(rows)
    met = [race for race in every if len(race) > 1]
    ran = Counter(row.optimizer for race in met for row in race)
    over = (
        f" They are over {len(met)} of the {len(every)} tasks: one optimizer alone ran the rest."
        if len(met) < len(every)
        else ""
    )
    less = listed(f"{optimizer_name(name)} ran {ran[name]} of {len(met)}" for name in ran if ran[name] < len(met))
    return f"{over} A task that one did not run counts as not reached: {less}." if less else over


def _sentence(rows: Sequence[ToTarget], baseline: str, several: bool) -> str:
    first = rows[0]
    aim = "the target" if first.target is None else f"{first.target:.6g}" + (" nats" if first.loss is not None else "")
    place = f"{_place(first, several)}{f' ({first.ruleset})' if first.ruleset else ''}"
    there = [row for row in rows if row.size is not None]
    if len(rows) == 1:
        often = " in most of its studies" if _in_some(first) else ""
        end = f"reaches {aim} in {_needs(first)}" if there else f"does not reach {aim}{often}"
        return f"At {place} {optimizer_name(first.optimizer)}, the only optimizer there, {end}.{_diverged(there)}"
    often = " in most of its studies" if any(_in_some(row) for row in rows) else ""
    if not there:
        return f"No optimizer reaches {aim}{often} at {place}.{_missed([row for row in rows if _in_some(row)], ())}"
    equals = [row for row in there if row.size == first.size]
    if len(equals) > 1:
        names = listed(optimizer_name(row.optimizer) for row in equals)
        who = names if len(equals) <= NAMED else plural(len(equals), "optimizer")
        later = [f"{optimizer_name(row.optimizer)} in {_needs(row)}" for row in there[len(equals) :]]
        after = f", {listed(later) if len(later) <= NAMED else f'and {len(later)} optimizers in more'}" if later else ""
        fewer = " or fewer" if all(row.shortest for row in equals) else ""
        return f"At {place} {who} each reach {aim} in {needed_text(first)}{fewer}{after}.{_ends(rows, there)}"
    ahead = there[:NAMED]
    own = [f"{optimizer_name(row.optimizer)} in {_needs(row)}" for row in ahead]
    words = f"{own[0]}, then by {listed(own[1:])}"
    if len(there) == 1:
        name = optimizer_name(first.optimizer)
        alone = f"At {place} {name} alone reaches {aim}{often}, in {_needs(first)}."
        return f"{alone}{_unsure(first)}{_missed(list(filter(_in_some, rows)), there)}{_diverged(there)}"
    base = next((row for row in there if row.optimizer == baseline), None)
    more, size = "", first.size
    if base is not None and base not in ahead and size:
        times = "" if base.shortest or first.shortest else f", {(base.size or 0.0) / size:.2f} times as many"
        more = f"; {optimizer_name(baseline)} in {_needs(base)}{times}"
    return f"At {place}, {aim} is reached first by {words}{more}.{_unsure(first)}{_ends(rows, there)}"


def _needs(row: ToTarget) -> str:
    """What the target took, in words; a shorter length that nobody ran may do as well."""
    return needed_text(row) + (" or fewer" if row.shortest else "")


def _unsure(first: ToTarget) -> str:
    """Why the first one may not be the first, as further sentences."""
    words, name = "", optimizer_name(first.optimizer)
    if first.ties:
        few = len(first.ties) <= NAMED
        others = listed(map(optimizer_name, first.ties)) if few else plural(len(first.ties), "optimizer")
        words = f" {name} cannot be told from {others} there."
    if not first.accepted:
        words += f" The rule does not accept that {name} reaches it: the margin is too small."
    return words


def _ends(rows: Sequence[ToTarget], there: Sequence[ToTarget]) -> str:
    """What became of the others, and of runs that no mean holds, as further sentences."""
    return _missed(rows, there) + _diverged(there)


def _diverged(there: Sequence[ToTarget]) -> str:
    """Whose means leave out runs that diverged, as a further sentence."""
    lost = [f"{row.lost} of {row.runs + row.lost} of {optimizer_name(row.optimizer)}"
            for row in there if row.lost and row.loss is not None]  # fmt: skip
    who = listed(lost) if len(lost) <= NAMED else f"some of {len(lost)} optimizers"
    return f" Of the runs with these configurations some diverged and are in no mean: {who}." if lost else ""


def _missed(rows: Sequence[ToTarget], there: Sequence[ToTarget]) -> str:
    """Who did not reach the target, as further sentences; empty where all did."""
    never = [optimizer_name(row.optimizer) for row in rows if row not in there and not _in_some(row)]
    who = listed(never) if len(never) <= NAMED else plural(len(never), "optimizer")
    some = [f"{optimizer_name(row.optimizer)} ({row.runs - row.lost} of {row.runs})"
            for row in rows if row not in there and _in_some(row)]  # fmt: skip
    seldom = listed(some) if len(some) <= NAMED else f"{len(some)} optimizers"
    words = f" In some studies only it was reached by {seldom}." if some else ""
    return words + (f" {who} did not reach it." if never else "")


def _in_some(row: ToTarget) -> bool:
    """Whether some studies of a log reached the target, but too few for a median."""
    return row.loss is None and row.size is None and row.lost < row.runs


def _table(rows: Sequence[ToTarget], several: bool) -> Table:
    """One race to a loss: what was needed, the interval, and whom the rule does not tell apart.

    ``several`` says whether there are races on other corpora as well.
    """
    first = rows[0]
    cells = [(optimizer_name(row.optimizer), *_needed(row), f"{row.loss:.4f}", *_told(row)) for row in rows]
    aim = "a target" if first.target is None else f"{first.target:.6g} nats"
    heads = ("optimizer", *_NEEDED, "mean loss (nats)", *_TOLD)
    margin = MARGIN if first.margin is None else first.margin
    spread = RULE_SIGMA * margin / MARGIN  # assumed where it was not measured, or measured to be less
    note = (
        f"A length is accepted at n runs where (target - mean) sqrt(n) is at least {margin:.2g} nats; two optimizers "
        f"are told apart where their means, with {CREDIT:g} nats for each 100 steps fewer, differ by as much over "
        f"sqrt(1/n + 1/m). That is for seeds that scatter by up to {spread:.2g} nats."
    )
    return _filled(f"To {aim} at {_place(first, several)}", heads, cells, note)


def _untimed(rows: Sequence[ToTarget], comparison: Comparison) -> str:
    """The tasks that go by steps although some of their results have seconds, as a further sentence."""
    timed = {(one.task, one.corpus, one.ruleset, one.target)
             for one in comparison.analysis.inputs.trials if one.seconds is not None}  # fmt: skip
    tasks = [scale_name(own[0].scale) for own in races(rows)
             if (own[0].scale, own[0].corpus, own[0].ruleset, own[0].target) in timed
             and not any(row.quickest for row in own)]  # fmt: skip
    return f" Seconds are not compared at {listed(tasks)}, where some results have none." if tasks else ""


def _tasks(rows: Sequence[ToTarget], several: bool, untimed: str) -> Table:
    """A log of races by one set of rules: a row for each task and optimizer; ``untimed`` ends the note."""
    cells = [
        (_place(row, several), NONE if row.target is None else f"{row.target:.6g}", optimizer_name(row.optimizer),
         *_needed(row), *_told(row))
        for own in races(rows) for row in own
    ]  # fmt: skip
    note = (
        "A study is its fastest trial, an optimizer the median of its studies. Two optimizers are told apart where "
        "every study of one is faster than every study of the other, and there are three studies of each."
    ) + untimed
    rules = f" ({rows[0].ruleset})" if rows[0].ruleset else ""
    return _filled(f"To the target of each task{rules}", ("task", "target", "optimizer", *_NEEDED, *_TOLD), cells, note)


_NEEDED = ("steps", "bounds", "tokens", "time")

_TOLD = ("runs", "accepted", "not told from")


def _place(row: ToTarget, several: bool) -> str:
    return f"{row.corpus if several else ''} {scale_name(row.scale)}".strip()


def _needed(row: ToTarget) -> tuple[str, ...]:
    """What the target took."""
    steps = NONE if row.steps is None else f"{row.steps:,.0f}"
    return steps, _span(row), count_text(row.tokens), duration_text(row.seconds)


def _told(row: ToTarget) -> tuple[str, ...]:
    """How many runs say so, whether they are enough, and whom the rule does not tell apart."""
    more = [f"{len(row.ties) - MOST_TIES} more"] if len(row.ties) > MOST_TIES else []
    enough = "yes" if row.accepted else "not reached" if row.size is None else "no"
    return str(row.runs), enough, listed([*map(optimizer_name, row.ties[:MOST_TIES]), *more]) or NONE


def _filled(title: str, heads: Sequence[str], cells: Sequence[tuple[str, ...]], note: str) -> Table:
    """A table of the columns that any row fills."""
    kept = [at for at, _ in enumerate(heads) if any(row[at] != NONE for row in cells)]
    numeric = frozenset(place for place, at in enumerate(kept)
                        if heads[at] in (*_NEEDED, "target", "mean loss (nats)", "runs"))  # fmt: skip
    shown = tuple(tuple(row[at] for at in kept) for row in cells)
    return Table(title, tuple(heads[at] for at in kept), shown, numeric, note)


def _span(row: ToTarget) -> str:
    """The bounds of what would do: of steps, or of tokens where steps are not known."""
    if row.low is None or row.high is None:
        return NONE
    if row.steps is None and row.loss is not None:
        return f"{count_text(row.low)} to {count_text(row.high)}"
    return f"{row.low:,.0f} to {row.high:,.0f}"

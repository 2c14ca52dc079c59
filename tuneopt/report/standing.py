"""The first screen of a study: which optimizer, in which regime, by how much, and how sure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tuneopt.report.compare import Comparison
from tuneopt.report.study import Study
from tuneopt.report.text import change_text, count_text, listed, loss_text, plural

SENTENCES = 6
"""Regimes that the first screen spells out; a table has all of them."""


@dataclass(frozen=True)
class Standing:
    """The verdict on several sweeps."""

    headline: str
    sentences: tuple[str, ...]


def standing(study: Study, comparison: Comparison) -> Standing:
    """The verdict in words: the leaders of each regime by tie group, and the speedups with their intervals."""
    named = {comparison.label(regime): ranking for regime, ranking in comparison.rankings.items()}
    compared = {label: ranking for label, ranking in named.items() if len(ranking["order"]) > 1}
    words = [_ranking(label, ranking) for label, ranking in compared.items()]
    if len(words) > SENTENCES:
        words = [*words[:SENTENCES], f"{plural(len(words) - SENTENCES, 'more regime')} in the table below."]
    return Standing(_headline(study, compared, len(named)), (*words, *_speedups(comparison)))


def _headline(study: Study, compared: Mapping[str, Mapping[str, Any]], regimes: int) -> str:
    """The leaders' names where they are the same in every regime with a choice, else what was compared."""
    known = {tuple(_leaders(ranking)) for ranking in compared.values() if ranking["tie_groups"] is not None}
    if len(compared) == 1 and not known:
        label, ranking = next(iter(compared.items()))
        return f"{ranking['order'][0]} has the lowest loss measured at {label}, the noise being unknown"
    if len(known) != 1:
        return f"{plural(len(study.optimizers), 'optimizer')} in {plural(regimes, 'regime')}"
    leaders = next(iter(known))
    verb = "tie for" if len(leaders) > 1 else "has"
    if len(compared) == 1:
        where = f"at {next(iter(compared))}"
    else:
        every = "both" if len(compared) == 2 else f"all {len(compared)}"
        where = f"in {every} regimes" + (" with several optimizers" if len(compared) < regimes else "")
    return f"{listed(leaders)} {verb} the lowest loss {where}"


def _leaders(ranking: Mapping[str, Any]) -> list[str]:
    groups = ranking["tie_groups"]
    if groups is None:
        return list(ranking["order"][:1])
    return [name for name, group in zip(ranking["order"], groups, strict=True) if group == 1]


def _ranking(label: str, ranking: Mapping[str, Any]) -> str:
    leaders, best = _leaders(ranking), ranking["losses"][0]
    rest = [
        f"{name} {change_text(loss - best)}"
        for name, loss in zip(ranking["order"], ranking["losses"], strict=True)
        if name not in leaders
    ]
    sigma = ranking["sigma"]
    noise = "no noise is known" if sigma is None else f"noise between seeds {sigma:.4f}"
    others = f"; behind: {', '.join(rest)} nats" if rest else ""
    first = f"{listed(leaders)} cannot be told apart" if len(leaders) > 1 else f"{leaders[0]} leads"
    return f"{label}: {first} at {loss_text(best)} nats per token{others} ({noise})."


def _speedups(comparison: Comparison) -> list[str]:
    """The speedups at each scale's largest ratio, where the baseline has three ratios or more."""
    document = comparison.document
    sure = [row for row in document["speedups"]
            if row["optimizer"] != document["baseline"] and "interpolated" not in row["flags"]]  # fmt: skip
    largest: dict[tuple[str, str], float] = {}
    for row in sure:
        key = (row["corpus"], row["scale"])
        largest[key] = max(row["ratio"], largest.get(key, -math.inf))
    found = []
    for (corpus, scale), ratio in largest.items():
        rows = [row for row in sure if (row["corpus"], row["scale"], row["ratio"]) == (corpus, scale, ratio)]
        rows.sort(key=lambda row: (-row["speedup"], row["optimizer"]))
        each = ", ".join(f"{row['optimizer']} {speedup_text(row)}" for row in rows)
        found.append(f"Speedup over {document['baseline']} at {scale}, {count_text(ratio)}x: {each}.")
    return found


def speedup_text(row: Mapping[str, Any]) -> str:
    """A speedup with its interval, as the document holds it."""
    sign = "\u2265 " if "lower bound" in row["flags"] else ""
    if row["low"] is None:
        return f"{sign}{row['speedup']:.2f}"
    high = "open" if row["high"] is None else f"{row['high']:.2f}"
    return f"{sign}{row['speedup']:.2f} [{row['low']:.2f}, {high}]"

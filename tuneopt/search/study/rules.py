"""The key ``comparison`` of a study file: what makes of a study a comparison that was planned for a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tuneopt.declared import Node, distinct, mapping, number, sequence, whole
from tuneopt.search.study.study import ComparisonRules, ScaleRatio

NEEDED = ("baseline", "ratios", "trials")
"""What a comparison has no default for."""


def comparison_rules(node: Node, keys: Mapping[str, Node], places: Sequence[ScaleRatio]) -> ComparisonRules:
    """The rules in ``node``; ``keys`` are those of the whole file, ``places`` the regimes of its Phase I.

    Fails with file and line for what contradicts the rest of the study: a baseline that it lacks, phases, a regime that
    is not the first of the ratios.
    """
    parts = mapping(node, "comparison", tuple(ComparisonRules.__dataclass_fields__))
    for key in NEEDED:
        if key not in parts:
            node.fail(
                f"a comparison needs the key {key!r}, such as comparison: {{baseline: adamw, ratios: [1, 2], ...}}"
            )
    for key in ("phase_2", "phase_3", "match_budget"):
        if key in keys and keys[key].plain is not False:
            keys[key].fail(f"a comparison has no {key}: it has budgets and ratios of its own; drop one of them")
    ratios = distinct(
        parts["ratios"], "ratios", "the ratio", lambda entry: number(entry, "a ratio", above=True, example="1")
    )
    if len(places) != 1 or places[0][1] != ratios[0]:
        node.fail(
            f"a comparison tunes in one regime, at the first of its ratios ({ratios[0]:g}); give that scale and ratio"
        )
    baseline = parts["baseline"]
    if not isinstance(baseline.plain, str):
        baseline.fail("the baseline must be one of the study's optimizers")
    numbers: dict[str, Any] = {}
    for key in ("trials", "rate_trials", "seeds"):
        if key in parts:
            numbers[key] = whole(parts[key], key, least=1)
    for key in ("reserve", "margin", "hours"):
        if key in parts:
            numbers[key] = number(parts[key], key)
    if "prices" in parts:
        numbers["prices"] = _prices(parts["prices"])
    return ComparisonRules(baseline=baseline.plain, ratios=tuple(ratios), **numbers)


def _prices(node: Node) -> dict[str, tuple[float, float]]:
    """Device seconds of a trial by optimizer, as the file calls them: whatever its length, and at ratio 1."""
    if not isinstance(node.plain, dict):
        node.fail("prices say by optimizer what its trials take, such as prices: {adamw: [2.5, 20]}")
    prices = {}
    for name, entry in node.items():
        pair = list(sequence(entry, f"the price of {name}"))
        if len(pair) != 2:
            entry.fail(f"the price of {name} is two numbers of seconds: of any trial, and what ratio 1 takes besides")
        prices[name] = (number(pair[0], "seconds of any trial"), number(pair[1], "seconds at ratio 1", above=True))
    return prices

"""The document that ``tuneopt report --json`` prints: every figure of the analysis as plain data.

Its keys are a contract: fields may be added, not renamed. What has no stricter form of its own is printed by `plain`,
so a new field of a figure's class appears by itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from tuneopt.analysis.inputs import as_inputs
from tuneopt.analysis.noise import FAMILY_RATE
from tuneopt.analysis.runs import RegimeKey
from tuneopt.analysis.scaling import describe
from tuneopt.analysis.study import Analysis, analyse
from tuneopt.analysis.winner import far_above, torn
from tuneopt.constants import NEAR_OPTIMAL, TOLERANCE

if TYPE_CHECKING:
    import pyarrow as pa


def summary(source: Any, *, curves: pa.Table | None = None, **options: Any) -> dict[str, Any]:
    """Every figure of a source as plain data for JSON, without NaN or infinity.

    ``source`` is anything that `tuneopt.analysis.inputs.as_inputs` takes; ``curves`` (`Ledger.curves`) adds what
    happens during training to a table without curves; ``options`` are those of `tuneopt.analysis.study.analyse`.
    Intervals hold ``level`` of the redrawn figures and are null where no noise is known; so is ``tie_group``. Raises
    `InputError` for rows that are no results.
    """
    return document(analyse(as_inputs(source, curves), **options))


def document(analysis: Analysis) -> dict[str, Any]:
    """An analysis as plain data; a regime becomes the keys corpus, scale and ratio.

    ``declared`` holds the thresholds that were fixed before any loss was seen, so that a reader need not trust the
    text: the rate of false differences in a family, what is near-optimal, and the tolerance (nats). ``broken`` of a
    ranking names results that warnings call far from all others, or torn (`tuneopt.analysis.winner`).
    """
    ranked = {ranking.regime: ranking for ranking in analysis.rankings}
    far = far_above(analysis.winners).keys() | torn(analysis.winners)
    return {
        "speedups": [
            {**_without(plain(speed), "effective_tokens"), "tie_group": ranked[speed.regime].group_of(speed.optimizer)}
            for speed in analysis.speedups
        ],
        "rankings": [
            {
                **plain(ranking.regime),
                "order": list(ranking.order),
                "losses": list(ranking.losses),
                "tie_groups": None if ranking.groups is None else list(ranking.groups),
                "sigma": None if ranking.noise is None else ranking.noise.sigma,
                "sigma_source": None if ranking.noise is None else ranking.noise.source,
                "span": ranking.span,
                "broken": [name for name in ranking.order if (ranking.regime, name) in far],
            }
            for ranking in analysis.rankings
        ],
        "flips": [
            {**_without(plain(flip), "rate"), **plain(flip.regime), "earlier": plain(flip.earlier)}
            for flip in analysis.flips
        ],
        "targets": plain(analysis.targets),
        "warnings": list(analysis.warnings),
        "baseline": analysis.baseline,
        "level": analysis.level,
        "laws": [
            {
                "corpus": law.corpus,
                "scale": law.scale,
                **describe(law.law),
                "misfit": None if law.local is None else law.local.misfit,
            }
            for law in analysis.laws
        ],
        "source": analysis.inputs.source,
        "notes": list(analysis.inputs.notes),
        "declared": {"family_rate": FAMILY_RATE, "near_optimal": NEAR_OPTIMAL, "tolerance": TOLERANCE},
        "statements": plain(analysis.statements),
        "noise_line": analysis.noise_line,
        "circumstances": [
            {"name": one.name, "differs": one.differs, "values": {name: list(texts) for name, texts in one.values}}
            for one in analysis.circumstances
        ],
        "findings": plain(analysis.findings),
        "joint": plain(analysis.joint),
        "training": plain(analysis.orders),
        "transfer": plain(analysis.transfer),
        "undertuned": plain(analysis.undertuned),
        "budgets": plain(analysis.budgets),
        "edges": plain(analysis.edges),
        "stars": plain(analysis.stars),
        "coordinates": plain(analysis.coordinates),
        "hyper_laws": plain(analysis.hyper_laws),
        "costs": plain(analysis.costs),
        "pareto": plain(analysis.pareto),
        "frontiers": [
            {
                "corpus": front.corpus,
                "measure": front.measure,
                "law": describe(front.law.law),
                "speedups": [_without(plain(speed), "effective_tokens") for speed in front.speedups],
            }
            for front in analysis.frontiers
        ],
    }


_OBJECTS = ("config", "taken", "ranks")
"""Fields of (name, value) pairs, which become objects."""

_BY_REGIME = ("tuned", "near")
"""Fields of (regime, value) pairs, which become lists of objects."""


def plain(value: Any, name: str = "") -> Any:
    """Frozen values of this package as plain data; pairs named ``config``, ``ranks`` and the like become objects."""
    kind: Any = type(value)  # most values are of these kinds
    if kind is str or kind is int or kind is bool or value is None:
        return value
    if kind is float:
        return value if math.isfinite(value) else None  # JSON has neither NaN nor infinity
    if isinstance(value, RegimeKey):  # a tuple too, so it has to come before tuples
        return {"corpus": value.corpus, "scale": value.scale, "ratio": value.ratio}
    if names := _names(kind):
        parts: dict[str, Any] = {}
        for field in names:
            part = getattr(value, field)
            if isinstance(part, RegimeKey):  # corpus, scale and ratio stand beside the other fields, as columns would
                parts |= plain(part)
            else:
                parts[field] = plain(part, field)
        return parts
    if name in _OBJECTS:
        return {key: plain(part) for key, part in value}
    if name == "points":
        return [{**plain(regime), "tuned": tuned, "law": plain(law)} for regime, tuned, law in value]
    if name in _BY_REGIME:
        return [{**plain(regime), "value": plain(part)} for regime, part in value]
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return [plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has neither NaN nor infinity
    return value


@cache
def _names(kind: type) -> tuple[str, ...]:
    """The fields of a frozen value's class, none of any other: asking dataclasses for them each time takes longest."""
    return tuple(field.name for field in fields(kind)) if is_dataclass(kind) else ()


def _without(parts: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: part for key, part in parts.items() if key != name}

"""One finished trial as a frozen record, and its strict JSON form.

A record is written once, by the worker that finished the trial, and is never changed. Everything a comparison or a
report may ask later is in it: the specification, the losses, the curve, what it cost, the proof that the named
optimizer ran, and where it ran. Units: nats per token, tokens, steps, seconds, bytes, FLOPs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from tuneopt.ledger import checks
from tuneopt.spec import InputError, TrialSpec


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One measurement during training; a loss is None where it was not measured or not finite (nats per token)."""

    step: int
    tokens: int
    learning_rate: float
    train_loss: float | None
    select_loss: float | None
    report_loss: float | None
    seconds: float
    """Seconds since the trial began, earlier parts of a resumed trial included."""

    def __post_init__(self) -> None:
        checks.count("a curve point's step", self.step)
        checks.count("a curve point's tokens", self.tokens)
        checks.number("a curve point's learning_rate", self.learning_rate)
        checks.number("a curve point's seconds", self.seconds)
        losses = (("train_loss", self.train_loss), ("select_loss", self.select_loss), ("report_loss", self.report_loss))
        for name, loss in losses:
            if loss is not None:
                checks.number(name, loss, low=-checks.LARGEST)


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """Everything known about one finished trial.

    ``trial`` is ``spec.id``. ``select_loss`` and ``report_loss`` are the final losses on the two splits, None exactly
    when ``status`` is ``diverged``; ``initial_loss`` (select split, before the first step) may be None only then.
    ``tokens``, ``steps``, ``epochs`` and ``flops`` count what was trained, so they are short of the budget after a
    divergence; byte counts are None where they could not be measured. ``proof``, ``routing`` and ``environment``
    hold plain JSON data (a number that is not finite becomes the word ``"nan"``, ``"inf"`` or ``"-inf"`` there).
    Construction raises `InputError` for anything inconsistent, such as a NaN loss.
    """

    trial: str
    status: str
    spec: TrialSpec
    select_loss: float | None
    report_loss: float | None
    initial_loss: float | None
    curve: tuple[CurvePoint, ...]
    tokens: int
    steps: int
    epochs: float
    flops: float
    seconds: Mapping[str, float]
    peak_bytes: int | None
    checkpoint_bytes: int | None
    optimizer_state_bytes: int | None
    proof: Mapping[str, Any] | None
    routing: tuple[Mapping[str, Any], ...]
    environment: Mapping[str, Any]
    started: str
    ended: str
    resumes: int
    tokens_per_second: float
    notes: tuple[str, ...] = ()
    schema: int = checks.SCHEMA

    def __post_init__(self) -> None:
        if not all(isinstance(point, CurvePoint) for point in self.curve):
            raise InputError("a trial record's curve must hold CurvePoint values")
        for name, plain in checks.normalised(self).items():
            object.__setattr__(self, name, plain)

    @property
    def comparable(self) -> bool:
        """Whether the loss may enter a comparison: the trial completed and its proof passed."""
        return self.status == "completed" and self.proof_passed is True

    @property
    def proof_passed(self) -> bool | None:
        """Whether the proof of the optimizer passed; None when the trial carries no proof."""
        return None if self.proof is None else bool(self.proof.get("passed", False))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; the specification as `TrialSpec.to_dict` gives it."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        plain["spec"] = self.spec.to_dict()
        plain["curve"] = [asdict(point) for point in self.curve]
        return plain

    def to_json(self) -> str:
        """One line of JSON with sorted keys and no NaN; `from_json` is its inverse."""
        return json.dumps(self.to_dict(), sort_keys=True, allow_nan=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> TrialRecord:
        """Rebuild a record; raises `InputError` for anything but a complete record of a known schema."""
        plain = checks.parse_object(text, "a trial record")
        checks.known_schema(plain.get("schema"), checks.SCHEMA, "trial record")
        checks.exact_keys(plain, [field.name for field in fields(cls)], "trial record")
        points = plain.pop("curve")
        if not isinstance(points, list):
            raise InputError("a trial record's curve must be a list of points; move the file away and train again")
        names = [field.name for field in fields(CurvePoint)]
        for point in points:
            checks.exact_keys(point, names, "curve point")
        if not isinstance(plain["spec"], dict):
            raise InputError("a trial record's spec must be an object; move the file away and train again")
        spec = TrialSpec.from_dict(plain.pop("spec"))
        return cls(spec=spec, curve=tuple(CurvePoint(**point) for point in points), **plain)

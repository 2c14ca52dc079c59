"""One finished trial as a frozen record, and its strict JSON form.

A record is written once, by the worker that finished the trial, and is never changed. Everything a comparison or a
report may ask later is in it: the specification, the losses, the curve, what it cost, the proof that the named
optimizer ran, and where it ran. Units: nats per token, tokens, steps, seconds, bytes, FLOPs.

On disk a record is the one line of JSON that `TrialRecord.to_json` gives (sorted keys, no spaces, no NaN), its seal
(`tuneopt.ledger.seal`) and a line feed, in ``trials/<trial>.json``. `TrialRecord.from_json` takes it without the seal
and checks every field: what a comparison reads has passed these checks, whoever wrote the file.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any

from tuneopt import checked
from tuneopt.architecture import flat
from tuneopt.spec import InputError, TrialSpec, nearest

SCHEMA = 1
"""Version of the record's JSON form; raised when a field is added, renamed or changes its meaning."""

STATUSES = ("completed", "diverged")
"""A trial that failed for another reason has no record: it is to run again."""

SECONDS = ("train", "eval", "startup", "checkpoint")
"""What the wall time of a trial is divided into."""

LARGEST = sys.float_info.max
"""The largest float: comparing with it also refuses infinities and whole numbers beyond every float."""


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
        step, tokens, rate, seconds = self.step, self.tokens, self.learning_rate, self.seconds
        train, select, report = self.train_loss, self.select_loss, self.report_loss
        if (  # the usual kinds, of which the checks below say the same: every record has twenty points
            type(step) is type(tokens) is int
            and type(rate) is type(train) is type(select) is type(report) is type(seconds) is float
            and 0 <= step <= checked.LARGEST_COUNT
            and 0 <= tokens <= checked.LARGEST_COUNT
            and rate >= 0
            and seconds >= 0
            and math.isfinite(rate + seconds + train + select + report)  # so all of them are
        ):
            return
        checked.whole("a curve point's step", self.step)
        checked.whole("a curve point's tokens", self.tokens)
        number("a curve point's learning_rate", self.learning_rate)
        number("a curve point's seconds", self.seconds)
        losses = (("train_loss", self.train_loss), ("select_loss", self.select_loss), ("report_loss", self.report_loss))
        for name, loss in losses:
            if loss is not None:
                number(name, loss, low=-LARGEST)

    def __reduce__(self) -> tuple[type[CurvePoint], tuple[int | float | None, ...]]:
        # Half the time of what a dataclass with slots does: most of a record that goes to another process is points.
        return CurvePoint, (
            self.step, self.tokens, self.learning_rate,
            self.train_loss, self.select_loss, self.report_loss, self.seconds,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """Everything known about one finished trial.

    Whoever reads a record may rely on what is checked here: types, finite numbers, an id that fits the specification.
    ``trial`` is ``spec.id``. ``select_loss`` and ``report_loss`` are the final losses on the two splits, None exactly
    when ``status`` is ``diverged``; ``initial_loss`` (select split, before the first step) may be None only then.
    ``tokens``, ``steps``, ``epochs`` and ``flops`` count what was trained, so they are short of the budget after a
    divergence; byte counts are None where they could not be measured. ``proof``, ``routing`` and ``environment``
    hold plain JSON data (a number that is not finite becomes the word ``"nan"``, ``"inf"`` or ``"-inf"`` there).
    Construction raises `InputError` for anything inconsistent, such as a NaN loss.
    """

    trial: str
    status: str  # of `STATUSES`
    spec: TrialSpec
    select_loss: float | None  # nats per token, as the next two
    report_loss: float | None
    initial_loss: float | None
    curve: tuple[CurvePoint, ...]
    tokens: int
    steps: int
    epochs: float  # passes over the training text
    flops: float  # of the model, `Scale.flops_per_token`
    seconds: Mapping[str, float]  # by the clock, over all resumes; keys: `SECONDS`
    peak_bytes: int | None  # of the fullest device
    checkpoint_bytes: int | None  # of one checkpoint
    optimizer_state_bytes: int | None
    proof: Mapping[str, Any] | None  # the update check, `tuneopt.optim.proof.Proof`
    routing: tuple[Mapping[str, Any], ...]  # one entry per parameter: name, shape, rule, decay, reason
    environment: Mapping[str, Any]  # versions, hardware, ranks: what changes no more than the order of sums
    started: str  # ISO 8601 in UTC, as ``ended``
    ended: str
    resumes: int  # processes that took the trial up again
    tokens_per_second: float  # training alone
    notes: tuple[str, ...] = ()
    schema: int = SCHEMA

    def __repr__(self) -> str:
        """One line: a record with its curve and its routing fills screens."""
        loss = "no loss" if self.select_loss is None else f"select loss {self.select_loss:.4f} nats per token"
        name = f"{self.spec.optimizer} at {self.spec.regime.label}, seed {self.spec.seed}"
        return f"TrialRecord({self.trial}: {name}, {self.status}, {loss})"

    def __post_init__(self) -> None:
        self._check_identity()
        self._check_losses()
        for name in ("tokens", "steps", "resumes"):
            checked.whole(name, getattr(self, name))
        for name in ("peak_bytes", "checkpoint_bytes", "optimizer_state_bytes"):
            if getattr(self, name) is not None:
                checked.whole(name, getattr(self, name))
        for name in ("epochs", "flops", "tokens_per_second"):
            number(name, getattr(self, name))
        checked.exact_keys(self.seconds, SECONDS, "record's seconds")
        for name in ("started", "ended"):
            _check_moment(name, getattr(self, name))
        for name, kind in (("proof", Mapping | None), ("environment", Mapping), ("routing", list | tuple)):
            if not isinstance(getattr(self, name), kind):
                raise InputError(f"a trial record's {name} has the wrong type, {type(getattr(self, name)).__name__}")
        if not all(isinstance(route, Mapping) for route in self.routing):
            raise InputError("a trial record's routing must hold one object per parameter")
        if not isinstance(self.notes, list | tuple) or not all(isinstance(note, str) for note in self.notes):
            raise InputError("a trial record's notes must be a list of texts")
        # One plain form for each field, so that a record equals what is read back from its JSON.
        forms = {
            "curve": tuple(self.curve),
            "seconds": {name: number(f"seconds {name}", self.seconds[name]) for name in SECONDS},
            "proof": checked.plain_tree(self.proof, "proof"),
            "routing": tuple(checked.plain_tree(route, "routing") for route in self.routing),
            "environment": checked.plain_tree(self.environment, "environment"),
            "notes": tuple(map(checked.whole_text, self.notes)),
        }
        for name, form in forms.items():
            object.__setattr__(self, name, form)  # the class is frozen

    def _check_identity(self) -> None:
        """That the record is of the trial that it names: a file under a wrong name must not pass for another's."""
        if not all(isinstance(point, CurvePoint) for point in self.curve):
            raise InputError("a trial record's curve must hold CurvePoint values")
        checked.known_schema(self.schema, SCHEMA, "trial record")
        if not isinstance(self.spec, TrialSpec):
            raise InputError("a trial record's spec must be a TrialSpec")
        if self.trial != self.spec.id:
            raise InputError(f"the record's trial id {self.trial!r} is not its specification's hash {self.spec.id!r}")
        if self.status not in STATUSES:
            raise InputError(f"unknown trial status {self.status!r}; {nearest(str(self.status), STATUSES)}")
        if "train_batch_size" not in self.spec.config:
            raise InputError("a trial record's specification needs the hyperparameter train_batch_size")
        # Tables divide by the steps of the budget: a batch that does not fit the budget is refused here.
        self.spec.regime.steps(checked.whole("train_batch_size", self.spec.config["train_batch_size"]))

    def _check_losses(self) -> None:
        """Losses exactly where the status says so: divergence is a status, and never a number."""
        diverged = self.status == "diverged"
        for name in ("select_loss", "report_loss"):
            value = getattr(self, name)
            if diverged != (value is None):
                raise InputError(f"a {self.status} trial {'has no' if diverged else 'needs a'} {name}, not {value!r}")
        if self.initial_loss is None and not diverged:
            raise InputError("a completed trial needs an initial_loss, not None")
        for name in ("select_loss", "report_loss", "initial_loss"):
            if getattr(self, name) is not None:
                number(name, getattr(self, name), low=-LARGEST)

    @property
    def comparable(self) -> bool:
        """Whether the loss may enter a comparison: the trial completed and its proof passed."""
        return self.status == "completed" and self.proof_passed is True

    @property
    def proof_passed(self) -> bool | None:
        """Whether the proof of the optimizer passed; None without one, as of a trial that diverged before its end."""
        return None if self.proof is None else bool(self.proof.get("passed", False))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; the specification as `TrialSpec.to_dict` gives it."""
        plain = flat(self)
        plain["spec"] = self.spec.to_dict()
        plain["curve"] = [flat(point) for point in self.curve]
        return plain

    def to_json(self) -> str:
        """One line of JSON with sorted keys and no NaN; `from_json` is its inverse."""
        return json.dumps(self.to_dict(), sort_keys=True, allow_nan=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> TrialRecord:
        """Rebuild a record; raises `InputError` for anything but a complete record of a known schema.

        That of a later release raises `NewerSchemaError`: it may be whole, and is not this release's to judge.
        """
        return cls.from_dict(checked.parse_object(text, "a trial record"))

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> TrialRecord:
        """Rebuild a record from the plain data of `to_dict`; raises as `from_json` does."""
        # Before the keys: a newer release may have other fields, and its records are not to be called damaged.
        checked.known_schema(plain.get("schema"), SCHEMA, "trial record")
        checked.exact_keys(plain, _FIELDS, "trial record")
        plain = dict(plain)
        points = plain.pop("curve")
        if not isinstance(points, list):
            raise InputError("a trial record's curve must be a list of points; move the file away and train again")
        for point in points:
            if type(point) is not dict or point.keys() != _POINT_KEYS:
                checked.exact_keys(point, _POINT_FIELDS, "curve point")
        if not isinstance(plain["spec"], dict):
            raise InputError("a trial record's spec must be an object; move the file away and train again")
        spec = TrialSpec.from_dict(plain.pop("spec"))
        # By their order, which takes half as long as by their names.
        return cls(spec=spec, curve=tuple(CurvePoint(*_values(point)) for point in points), **plain)


_FIELDS = tuple(field.name for field in fields(TrialRecord))
_POINT_FIELDS = tuple(field.name for field in fields(CurvePoint))
_POINT_KEYS = frozenset(_POINT_FIELDS)
_values = itemgetter(*_POINT_FIELDS)


def finite(value: float | None) -> float | None:
    """The value as a float, or None where it is missing, NaN or infinite: the form losses are recorded in."""
    return float(value) if value is not None and math.isfinite(value) else None


def number(name: str, value: Any, *, low: float = 0) -> float:
    """A finite number from ``low`` up; raises `InputError` naming ``name`` otherwise."""
    if type(value) is float and low <= value <= LARGEST:  # the usual case: hundreds of these in every record
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not -LARGEST <= value <= LARGEST:
        raise InputError(
            f"{name} must be a finite number, not {checked.shown(value)}; a loss that is not finite is recorded as None"
        )
    if value < low:
        raise InputError(f"{name} must be at least {low:g}, not {value!r}")
    return int(value) if isinstance(value, int) else float(value)  # numpy's numbers become Python's, which JSON takes


def _check_moment(name: str, text: Any) -> None:
    """A time as ISO 8601 in UTC: times of two machines are compared as texts."""
    try:
        offset = datetime.fromisoformat(checked.text(name, text)).utcoffset()
    except (TypeError, ValueError):
        raise InputError(f"{name} must be an ISO-8601 time such as 2026-01-31T12:00:00+00:00, not {text!r}") from None
    if offset != timedelta(0):
        raise InputError(f"{name} must be in UTC, such as 2026-01-31T12:00:00+00:00, not {text!r}")

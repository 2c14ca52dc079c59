"""What a result depends on: scales, regimes and trial specifications, all frozen and hashable.

A `TrialSpec` names one training run completely. Its id is the SHA-256 of a canonical JSON text, so the same
specification has the same id on every machine and Python version, and a ledger can be asked whether a run exists.
Units: tokens, steps, sequences, nats per token, FLOPs.

Ids are a promise: records of earlier releases are found by them. A new field of any class here changes every id, and so
does another spelling of a number; `TrialSpec.data_seed` shows how a field stays out of the id while it has its default.
Where the same fields come to mean another training, `SEMANTICS` is raised instead.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any

from tuneopt import checked
from tuneopt.architecture import SCALES as SCALES
from tuneopt.architecture import OwnModel as OwnModel
from tuneopt.architecture import Scale as Scale
from tuneopt.architecture import flat, scale_of
from tuneopt.constants import TOKENS_PER_PARAMETER
from tuneopt.errors import InputError as InputError
from tuneopt.errors import nearest as nearest

SEMANTICS = 1
"""Raised whenever the same specification would train differently, so that no old record passes for a new one."""

Value = float | int | str | bool
"""A hyperparameter: a number, a word, or on/off."""

Config = tuple[tuple[str, Value], ...]
"""A complete configuration: every hyperparameter by name, as `TrialSpec.freeze` orders them."""


@dataclass(frozen=True, slots=True)
class CorpusId:
    """A tokenized corpus by content: two corpora with one fingerprint hold the same tokens in the same order."""

    name: str
    """For people; it is no part of a trial's id."""
    fingerprint: str
    vocab_size: int

    def __post_init__(self) -> None:
        checked.text("a corpus's name", self.name)
        checked.text("a corpus's fingerprint", self.fingerprint)
        checked.whole("a corpus's vocab_size", self.vocab_size, most=2**31)


@dataclass(frozen=True)
class Regime:
    """What optimizers are compared in: a scale, a data-to-model ratio and a corpus."""

    scale: Scale
    ratio: float
    corpus: CorpusId
    asked: str = field(default="", compare=False)
    """The budget in the words that asked for it, such as ``2,000 steps of 8 sequences``; empty for a ratio. For people:
    it is no part of what a regime is, nor of any id."""
    bytes_per_token: float | None = field(default=None, compare=False)
    """UTF-8 bytes of the report split for each of its tokens, where the corpus was at hand; no part of any id."""

    def __post_init__(self) -> None:
        checked.text("a regime's budget in words", self.asked)
        size = self.bytes_per_token
        if size is not None and not (checked.is_number(size) and size > 0):
            raise InputError(f"a regime's bytes per token must be a positive number, not {checked.shown(size)}")
        if not checked.is_number(self.ratio) or self.ratio <= 0:
            raise InputError(
                f"ratio must be a positive number of Chinchilla budgets, not {checked.shown(self.ratio)}; try 1"
            )
        if TOKENS_PER_PARAMETER * self.scale.parameters * self.ratio > checked.LARGEST_COUNT:
            raise InputError(f"ratio {self.ratio:g} asks for more tokens than can be counted; try 1")

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; `from_dict` is its inverse."""
        plain = {"scale": self.scale.to_dict(), "ratio": self.ratio, "corpus": flat(self.corpus)}
        more = {"asked": self.asked or None, "bytes_per_token": self.bytes_per_token}
        return {**plain, **{name: value for name, value in more.items() if value is not None}}

    @staticmethod
    def from_dict(plain: Mapping[str, Any]) -> Regime:
        """Rebuild a regime; raises `KeyError` or `TypeError` for anything that is not one."""
        return _read_regime(json.dumps(plain))

    @cached_property
    def canonical_text(self) -> str:
        """The canonical JSON that ids hash; a corpus counts by content alone."""
        return canonical_json(_content(self.to_dict()))

    @cached_property
    def tokens(self) -> int:
        """The token budget D = 20 N ratio."""
        return int(TOKENS_PER_PARAMETER * self.scale.parameters * self.ratio)

    def steps(self, batch: int) -> int:
        """Optimizer steps of a run with ``batch`` sequences per step; a last partial batch is not run.

        Raises `InputError` when the budget is smaller than one batch.
        """
        steps = self.tokens // (batch * self.scale.seq_len) if batch > 0 else 0
        if steps < 1:
            raise InputError(
                f"train_batch_size {batch} does not fit a budget of {self.tokens} tokens "
                f"({self.tokens // self.scale.seq_len} sequences); choose a value between 1 and that"
            )
        return steps

    @property
    def flops(self) -> int:
        """Training FLOPs of one trial, evaluation not counted."""
        return self.tokens * self.scale.flops_per_token(self.corpus.vocab_size)

    def bits_per_byte(self, loss: float | None) -> float | None:
        """A loss in nats per token as bits per byte of text, which tokenizers have in common; None where unknown."""
        if loss is None or self.bytes_per_token is None:
            return None
        return loss / math.log(2) / self.bytes_per_token

    @property
    def label(self) -> str:
        """Short text for people, such as ``nano-65k/1x``."""
        return f"{self.scale.name}/{self.ratio:g}x"


def ratio_of(scale: Scale, tokens: int) -> float:
    """The ratio whose budget is ``tokens`` exactly."""
    ratio = tokens / (TOKENS_PER_PARAMETER * scale.parameters)
    for near in (ratio, math.nextafter(ratio, math.inf), math.nextafter(ratio, 0)):
        if near > 0 and Regime(scale, near, CorpusId("unread", "", 0)).tokens == tokens:
            return near
    return ratio


@dataclass(frozen=True, slots=True)
class Evaluation:
    """When and on how much the loss is measured; equal for every trial that is compared.

    A part of the id: a final loss on fewer sequences has other noise, and curve points cost time.
    """

    points: int = 20
    """Curve points over the run, evenly spaced in steps, the end included."""
    curve_sequences: int = 32
    """Sequences of each split per curve point."""
    final_sequences: int = 512
    """Sequences of each split for the two final losses (fewer where a split holds fewer)."""

    def __post_init__(self) -> None:
        for name in ("points", "curve_sequences", "final_sequences"):
            checked.whole(f"evaluation {name}", getattr(self, name), most=2**31)


@dataclass(frozen=True)
class TrialSpec:
    """One training run: everything its final loss depends on, and nothing else.

    ``hyperparameters`` is complete (no hidden defaults) and kept sorted. ``precision`` is the compute precision of
    the model, ``fp32`` or ``bf16``; ``micro_batch`` counts sequences per forward pass and belongs to the identity
    because it orders floating-point sums, as does ``compile`` (torch.compile).

    ``seed`` decides the initial weights and an optimizer's random probes, and the order of the data too unless
    ``data_seed`` names another one. Given as ``seed`` itself it becomes None, so that two specifications which train
    alike are equal and have one id.
    """

    optimizer: str
    hyperparameters: Config
    regime: Regime
    seed: int = 0
    precision: str = "fp32"
    compile: bool = False
    micro_batch: int = 16
    evaluation: Evaluation = field(default_factory=Evaluation)
    semantics: int = SEMANTICS
    data_seed: int | None = None

    def __post_init__(self) -> None:
        checked.text("a trial's optimizer", self.optimizer)
        checked.text("a trial's precision", self.precision)
        checked.switch("a trial's compile", self.compile)
        checked.whole("a trial's seed", self.seed, least=-checked.LARGEST_COUNT)
        if self.data_seed is not None:
            checked.whole("a trial's data_seed", self.data_seed, least=-checked.LARGEST_COUNT)
            if self.data_seed == self.seed:
                object.__setattr__(self, "data_seed", None)
        checked.whole("a trial's micro_batch", self.micro_batch, least=1)
        checked.whole("a trial's semantics", self.semantics)

    @staticmethod
    def freeze(hyperparameters: Mapping[str, Value]) -> Config:
        """The sorted, canonical form of a hyperparameter mapping; raises `InputError` for what is none."""
        for word in (*hyperparameters, *hyperparameters.values()):
            if not isinstance(word, bool | int | float):
                checked.text("a hyperparameter", word)
        return tuple((name, canonical(hyperparameters[name])) for name in sorted(hyperparameters))

    @property
    def config(self) -> dict[str, Value]:
        """The hyperparameters as a mapping."""
        return dict(self.hyperparameters)

    @property
    def order_seed(self) -> int:
        """The seed of the order in which the data is read: ``data_seed``, or ``seed`` where that is None."""
        return self.seed if self.data_seed is None else self.data_seed

    @property
    def batch(self) -> int:
        """Sequences per optimizer step."""
        return int(self.config["train_batch_size"])

    @property
    def steps(self) -> int:
        """Optimizer steps to the end of the budget."""
        return self.regime.steps(self.batch)

    @cached_property
    def id(self) -> str:
        """Sixteen hexadecimal digits that identify the run."""
        # `identity` of `to_dict`; the regime's text is that of all its trials, made once. In the alphabet only numbers
        # come after it, so that the last place that looks like a regime of 0 is where it belongs.
        before, name, after = canonical_json({**self._plain(), "regime": 0}).rpartition('"regime":')
        return _digits(f"{before}{name}{self.regime.canonical_text}{after[1:]}")

    @cached_property
    def replicate_id(self) -> str:
        """The id of the same run with seed 0: trials that differ in their seed alone have it in common."""
        return self.id if self.seed == 0 else replace(self, seed=0).id

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; `from_dict` is its inverse. ``data_seed`` is in it only where it is not ``seed``."""
        return {**self._plain(), "regime": self.regime.to_dict()}

    def _plain(self) -> dict[str, Any]:
        """As `to_dict`, with the regime as it is."""
        plain = {**flat(self), "hyperparameters": self.config, "evaluation": flat(self.evaluation)}
        if self.data_seed is None:  # the id hashes this: trials from before the field existed keep theirs
            del plain["data_seed"]
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> TrialSpec:
        """Rebuild a specification; raises `InputError` for anything that is not one."""
        try:
            rest = dict(plain)
            return cls(
                hyperparameters=cls.freeze(rest.pop("hyperparameters")),
                regime=Regime.from_dict(rest.pop("regime")),
                evaluation=Evaluation(**rest.pop("evaluation")),
                **rest,
            )
        except (KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
            raise InputError(f"not a trial specification: {error}") from None


def identity(plain: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits of the SHA-256 of plain data with a ``regime``; a corpus counts by content alone.

    64 bits: among a million trials two share an id with a probability of 3e-8.
    """
    return _digits(canonical_json({**plain, "regime": _content(plain["regime"])}))


def _content(regime: Mapping[str, Any]) -> dict[str, Any]:
    """What ids hash of a regime's plain data: not its corpus's name, nor what is for people alone."""
    corpus = {key: value for key, value in regime["corpus"].items() if key != "name"}
    return {**{key: regime[key] for key in regime if key not in ("asked", "bytes_per_token")}, "corpus": corpus}


def _digits(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@lru_cache(maxsize=1024)
def _read_regime(text: str) -> Regime:
    """The regime in a JSON text. A ledger repeats a few of them in all of its records."""
    plain = json.loads(text)
    return Regime(
        scale_of(plain["scale"]),
        plain["ratio"],
        CorpusId(**plain["corpus"]),
        plain.get("asked", ""),
        plain.get("bytes_per_token"),
    )


def canonical(value: Value) -> Value:
    """One form per number, so that 1, 1.0 and 1e0 hash alike.

    Raises `InputError` for NaN, infinities and whole numbers beyond every float.
    """
    if isinstance(value, float) and math.isfinite(value):
        # Below 2^53 every whole number is a float of its own; above, a float stands for several and keeps its spelling.
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    if isinstance(value, bool | str):
        return value
    if isinstance(value, int) and -checked.LARGEST_NUMBER <= value <= checked.LARGEST_NUMBER:
        return value
    raise InputError(f"a hyperparameter must be a finite number, a word or a switch, not {checked.shown(value)}")


def _canonical_tree(tree: Any) -> Any:
    """`canonical` for every value in nested data."""
    kind = type(tree)  # nearly all are of these kinds, and asking what is a Mapping or one of several takes longer
    if kind is str or kind is bool:
        return tree
    if kind is int or kind is float:
        return canonical(tree)
    if isinstance(tree, Mapping):
        return {key: _canonical_tree(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_canonical_tree(value) for value in tree]
    return canonical(tree)


def canonical_json(tree: Any) -> str:
    """JSON with sorted keys, no spaces, ASCII only and one spelling per number (shortest round-trip digits)."""
    return _CANONICAL.encode(_canonical_tree(tree))


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)
"""Made once: `json.dumps` makes one for each text, and a report writes twenty thousand for ids."""

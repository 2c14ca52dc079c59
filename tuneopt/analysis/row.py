"""One row of somebody's table, as a typed run or as a trial of a race: each cell is checked, and a fault names the row.

What is decided for a whole table comes with the row: its decimal mark and the spelling of names
(`tuneopt.analysis.rows`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from tuneopt import checked
from tuneopt.analysis import cells
from tuneopt.analysis.cells import folded
from tuneopt.analysis.regimes import CONTRADICTION, ONE_RATIO
from tuneopt.analysis.runs import Config, CurveSample, RegimeKey, TrainingRun
from tuneopt.analysis.spaces import axes, on_ladder
from tuneopt.analysis.targets import TargetTrial
from tuneopt.analysis.trackers import FINISHED
from tuneopt.analysis.vocabulary import hyperparameter_name
from tuneopt.constants import LEAST_PARAMETERS, TOKENS_PER_PARAMETER
from tuneopt.search.axis import is_number
from tuneopt.spec import SCALES, InputError, TrialSpec, nearest

LARGEST_CURVE = 10_000
"""Points that a learning curve may have; curves are read at ten fractions, so a hundred would do."""

ALWAYS_NUMBERS = ("learning_rate", "train_batch_size", "warmup")
"""Hyperparameters that are numbers for every optimizer, also one without a declared space: figures sort by them."""

_SCALES = {folded(name): scale for name, scale in SCALES.items()}
"""The built-in scales, by their names without case and separators."""

UNSEEDED = -1
"""The seed of a row that names none; no trial has it."""

LARGEST_BATCH = 2**27
"""Tokens of a batch beyond any that was trained with: what counts sequences may count tokens."""

UNIX_TIMES = (1.2e9, 2.2e9)  # the years 2008 to 2039, in seconds since 1970
LEAST_BYTES = 10_000  # that anything trained takes and stores
LEAST_SHARE = 1e-3  # of a token for each parameter, below which no budget counts single tokens

COUNTS = frozenset({"parameters", "tokens", "steps", "batch_tokens", "flops", "peak_bytes", "checkpoint_bytes"})
"""Columns whose numbers may carry a unit, such as 1.3B."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table: its number (from 1), its columns as they were spelled, its cells by meaning.

    ``comma`` says whether a comma is the decimal mark of the table (`tuneopt.analysis.cells.decimal_comma`).
    """

    number: int
    columns: tuple[str, ...]
    cells: Mapping[str, Any]
    comma: bool | None

    def optimizer(self) -> str:
        """The name of the optimizer as the row spells it."""
        optimizer = self.cells.get("optimizer")
        if not isinstance(optimizer, str) or cells.is_empty(optimizer):
            found = ", ".join(self.columns[:12]) or "no column"  # of a wide table the first ones
            raise self.error(f" names no optimizer (found {found}); add it to its column")
        return self.word("optimizer")

    def run(self, spelled: Mapping[str, str]) -> TrainingRun:
        """The typed run; ``spelled`` gives every optimizer's name its one spelling."""
        optimizer = spelled[self.optimizer()]
        scale, parameters = self.scale()
        tokens, ratio, steps = self.budget(optimizer, scale, parameters)
        loss = self.loss()
        select = self.positive("select_loss")  # most tables have one loss, which then chooses and reports
        seconds = self.seconds()
        return TrainingRun(
            trial=self.word("trial") or f"row {self.number}",
            optimizer=optimizer,
            regime=RegimeKey(self.word("corpus"), scale, float(f"{ratio:.6g}")),  # equal ratios in spite of rounding
            steps=steps,
            parameters=parameters,
            tokens=tokens,
            config=self.config(optimizer, scale),
            seed=self.seed(),
            status="diverged" if loss is None else "completed",
            select_loss=loss if loss is None or select is None else select,
            report_loss=loss,
            sigma=self.positive("sigma"),
            trained=None if loss is None else tokens,  # a table does not say how far a diverged run came
            seconds=seconds,  # nor on how many devices: its seconds are taken for device seconds
            device_seconds=seconds,
            flops=self.positive("flops", zero=True),
            peak_bytes=self.bytes("peak_bytes"),
            checkpoint_bytes=self.bytes("checkpoint_bytes"),
            curve=self.curve(),
        )

    def seconds(self) -> float | None:
        """The seconds of the run; a moment since 1970, as TensorBoard logs it under ``wall_time``, is no duration."""
        seconds = self.positive("seconds", zero=True)
        if seconds is not None and UNIX_TIMES[0] <= seconds <= UNIX_TIMES[1]:
            raise self.error(f": seconds is {seconds:.0f}, a moment (Unix time) and no duration; drop the column")
        return seconds

    def bytes(self, name: str) -> float | None:
        """A size in bytes; fewer than `LEAST_BYTES` are gigabytes or megabytes."""
        size = self.positive(name, zero=True)
        if size and size < LEAST_BYTES:
            raise self.error(f": {name} is {size:g}, less than any model takes; give bytes, such as 23.5G")
        return size

    def seed(self) -> int:
        """The seed, exactly: as a real number two of 64 bits would be one. `UNSEEDED` where the row has none."""
        given = self.cells.get("seed")
        if isinstance(given, str) and given.strip().isdecimal():
            given = int(given.strip()[:40])
        amount = self.amount("seed")
        if amount is None:
            return UNSEEDED
        if amount < 0 or amount != int(amount):
            raise self.error(f": seed must be a whole number that is not negative, not {checked.shown(given)}")
        return given if isinstance(given, int) else int(amount)

    def target_trial(self, spelled: Mapping[str, str]) -> TargetTrial:
        """A trial of a log of races: its task, and when it reached the target."""
        task = self.word("scale")
        if not task:
            raise self.error(" says no task; add a column workload or scale")
        return TargetTrial(
            optimizer=spelled[self.optimizer()],
            corpus=self.word("corpus"),
            task=task,
            ruleset=self.word("ruleset"),
            study=self.word("study") or self.word("seed"),  # another seed is a repetition, and no further try
            target=self.amount("target"),
            steps=self.positive("target_steps"),
            seconds=self.positive("target_seconds"),
            trial=self.word("trial"),
        )

    def error(self, fault: str) -> InputError:
        """An error about this row; ``fault`` goes on where "row 3 of the results" ends."""
        return InputError(f"row {self.number} of the results{fault}")

    def scale(self) -> tuple[str, int | None]:
        """The scale's name and its non-embedding parameters; each is looked up by the other where it is missing."""
        self._check_size(parameters := self.positive("parameters"))
        if word := self.word("scale"):
            known = _SCALES.get(folded(word))
            if known is not None and parameters is None:
                return known.name, known.parameters
            size = known.parameters if known else cells.size_of(word, self.comma)
            if size and parameters and max(parameters / size, size / parameters) > CONTRADICTION:
                name = f"{known.name} of {size:,} parameters without embeddings" if known else word
                raise self.error(
                    f" is at scale {name}, but says {parameters:,.0f} parameters; correct one, or give the scale "
                    "another name"
                )
            parameters = parameters or size
            self._check_size(parameters)
            return (known.name if known else word), None if parameters is None else int(parameters)
        if parameters is None:
            raise self.error(" says no model size; add a column scale or parameters")
        # Only an exact count is taken for a scale of the ladders: a rounded one may be another model.
        match = [scale.name for scale in SCALES.values() if scale.parameters == int(parameters)]
        # Four digits, and never an exponent: 70 billion are 70000m.
        rounded = float(f"{parameters / 1e6:.4g}")
        return (match[0] if match else f"{rounded:.10g}m"), int(parameters)

    def _check_size(self, parameters: float | None) -> None:
        """Raise `InputError` for a count of parameters that no model has, such as 1.2 where billions are meant."""
        if parameters is not None and not LEAST_PARAMETERS <= parameters <= checked.LARGEST_USUAL:
            raise self.error(f" is of {parameters:g} parameters; write the count itself, such as 1300000000 or 1.3B, "
                             "or drop a column that counts something else, such as --columns drop=n")  # fmt: skip

    @property
    def is_sized(self) -> bool:
        """Whether the scale's name says how large the model is."""
        word = self.word("scale")
        return word.lower() in SCALES or cells.size_of(word, self.comma) is not None

    def stated_ratio(self) -> float | None:
        """The ratio that the row itself gives, None where it follows from tokens."""
        ratio, per_parameter = self.positive("ratio"), self.positive("tokens_per_parameter")
        if per_parameter is None:
            return ratio
        own = per_parameter / TOKENS_PER_PARAMETER
        if ratio is not None and not math.isclose(ratio, own, rel_tol=ONE_RATIO):
            raise self.error(
                f" has ratio {ratio:g} and {per_parameter:g} tokens per parameter, which is {own:g}; keep one"
            )
        return own

    def budget(self, optimizer: str, scale: str, parameters: int | None) -> tuple[float, float, float | None]:
        """Tokens, ratio and steps; each follows from the others where they say it exactly."""
        tokens, ratio, steps = self.positive("tokens"), self.stated_ratio(), self.positive("steps")
        batch = self.positive("batch_tokens")
        # Of a scale of the ladders the length of a sequence is known, so that a batch in sequences says tokens as well.
        known = on_ladder(scale, parameters)
        if batch is None and known is not None:
            sequences, length = self.positive("hp_train_batch_size"), self.positive("hp_seq_len") or known.seq_len
            batch = None if sequences is None else sequences * length
            if batch is not None and batch > LARGEST_BATCH:
                raise self.error(
                    f": a batch of {sequences:g} sequences of {length:g} tokens is {batch:.2g} tokens; where it "
                    "counts tokens, name the column batch_tokens"
                )
        if tokens is None and steps is not None and batch is not None and ratio is None:
            tokens = steps * batch
        # What is said twice must agree; only then is what is missing made of the rest.
        if tokens is not None and ratio is not None and parameters is not None:
            self._agree(tokens, ratio, parameters)
        if tokens is None and ratio is not None and parameters is not None:
            tokens = TOKENS_PER_PARAMETER * parameters * ratio
        taken = (steps or 0.0) * (self.positive("batch_tokens") or 0.0)
        if tokens and taken and max(tokens / taken, taken / tokens) > 1 + ONE_RATIO:
            raise self.error(
                f" has {tokens:.4g} tokens, but {steps:g} steps of {taken / (steps or 1.0):g} tokens are {taken:.4g}; "
                "correct one, or drop a column"
            )
        if ratio is None and tokens is not None and parameters is not None:
            ratio = tokens / (TOKENS_PER_PARAMETER * parameters)
        if tokens is None or ratio is None:
            if parameters is None and (tokens or ratio):
                raise self.error(
                    f" ({optimizer}) does not say its token budget: the size of scale {checked.shown(scale)} is not "
                    f"known here; add a column parameters, or name a built-in scale ({nearest(scale, SCALES)})"
                )
            raise self.error(
                f" ({optimizer}) does not say its token budget; add a positive ratio for a known scale or with "
                "parameters, tokens with parameters, or steps with batch_tokens"
            )
        if tokens < max(LEAST_PARAMETERS, LEAST_SHARE * (parameters or 0)):  # of these too fewer are millions
            raise self.error(f" has a budget of {tokens:g} tokens; write the count itself, such as 2600000000 or 2.6B")
        return tokens, ratio, steps if steps is not None or batch is None else tokens / batch

    def _agree(self, tokens: float, ratio: float, parameters: int) -> None:
        """Raise `InputError` where tokens and ratio contradict each other.

        A little apart they may be: papers round the ratio, and some count other parameters.
        """
        own = tokens / (TOKENS_PER_PARAMETER * parameters)
        if max(own / ratio, ratio / own) <= CONTRADICTION:
            return
        # Off by a factor of 20: the column is tokens per parameter, the commonest mistake with this one.
        cure = "correct one, or drop the column ratio"
        if max(own * TOKENS_PER_PARAMETER / ratio, ratio / own / TOKENS_PER_PARAMETER) <= CONTRADICTION:
            cure = "it is tokens per parameter, so name the column tokens_per_parameter"
        raise self.error(
            f" has ratio {ratio:g}, but its {tokens:.4g} tokens are {own:.2g} times 20 per parameter "
            f"({parameters:,} parameters); {cure}"
        )

    def loss(self) -> float | None:
        """The final loss in nats per token; None where the run diverged."""
        if "loss" not in self.cells:
            raise self.error(f" has no column loss; {nearest('loss', self.columns)}")
        status, loss = self.status(), self.cells["loss"]
        if status not in ("", "completed", "diverged", *FINISHED):
            raise self.error(f": status must be completed or diverged, not {status!r}")
        if status == "diverged" or self.is_lost():
            return None
        # NaN as a number is what a broken export writes; as text it is an empty cell, which says that a run diverged.
        if isinstance(loss, float) and not math.isfinite(loss):
            raise self.error(f": loss is {loss}; leave it empty where a run diverged")
        value = self.positive("loss")
        if value is None and status == "completed":
            raise self.error(" is completed and has no loss; give it, or say diverged")
        return value

    def status(self) -> str:
        """What the row says of its end, in lower case; empty where it says nothing."""
        return self.word("status").lower()

    def is_lost(self) -> bool:
        """Whether a tracker calls a run finished whose loss is no number: it came to its end, and diverged."""
        loss = str(self.cells["loss"])
        if self.status() not in FINISHED or cells.is_empty(loss):
            return self.status() in FINISHED
        with suppress(ValueError):
            return not math.isfinite(cells.number(loss, self.comma))
        return False

    def config(self, optimizer: str, scale: str) -> Config:
        """Hyperparameters: those of the column config, and the columns ``hp_<name>``, which must agree with it.

        Numbers are asked for where figures need an order: in `ALWAYS_NUMBERS`, and where a declared space has them.
        """
        given = self.cells.get("config")
        if isinstance(given, str) and not given.strip():
            given = None
        if given is not None and not isinstance(given, Mapping):
            raise self.error(f": config must be an object of hyperparameters, not {checked.shown(given)}")
        told: dict[str, Any] = {}
        for key, cell in cells.settings(given or {}).items():
            if cell not in (None, ""):
                name, value = hyperparameter_name(str(key)), self.hyperparameter(str(key), cell)
                if name in told and told[name] != value:
                    raise self.error(
                        f": config has {name} twice, {checked.shown(told[name])} and {checked.shown(value)}; keep one"
                    )
                told[name] = value
        named = {
            name[3:]: self.hyperparameter(name[3:], value)
            for name, value in self.cells.items()
            if name.startswith("hp_") and value not in (None, "")
        }
        for name in told.keys() & named.keys():
            if told[name] != named[name]:
                raise self.error(
                    f": config has {name} {checked.shown(told[name])}, the column of its own "
                    f"{checked.shown(named[name])}; keep one"
                )
        config = told | named
        try:
            frozen = TrialSpec.freeze(config)
        except InputError as error:
            odd = next((f"{name}: " for name, value in config.items() if value != value), "")  # NaN
            raise self.error(f": {odd}{error}") from None
        # A word in the place of a number would make its coordinate one of words, without an order, in every figure.
        known = axes(optimizer, scale) or {}
        for name, value in frozen:
            if not is_number(value) and (name in ALWAYS_NUMBERS or (name in known and known[name].numeric)):
                cure = "; leave the cell empty where it does not apply" if cells.is_empty(value) else ""
                raise self.error(f": {name} must be a number, not {checked.shown(value)}{cure}")
            if is_number(value) and not checked.is_usual(value):
                raise self.error(f": {name} is beyond anything tuned, {checked.shown(value)}")
            if name in ALWAYS_NUMBERS and float(value) < 0:
                raise self.error(f": {name} must not be negative, {checked.shown(value)}")
        return frozen

    def hyperparameter(self, name: str, value: Any) -> Any:
        """A hyperparameter's value; text that writes a number or a switch becomes one."""
        if not isinstance(value, str):
            return value
        if "," in value or (self.comma and "." in value):  # beside decimal commas a point groups digits
            with suppress(ValueError):
                return cells.number(value, self.comma)
        return cells.value(value)

    def curve(self) -> tuple[CurveSample, ...]:
        """The learning curve; a table has one loss for each point, which stands for both splits."""
        hint = "a curve is a list of [fraction of the run, loss] with fractions in (0, 1]"
        try:
            curve = cells.points(self.cells.get("curve"))
        except (TypeError, ValueError, KeyError, OverflowError, RecursionError):
            raise self.error(f" has a curve that cannot be read; {hint}") from None
        if len(curve) > LARGEST_CURVE:
            raise self.error(f" has a curve of {len(curve):,} points; thin it to {LARGEST_CURVE:,}")
        if not all(0 < fraction <= 1 and math.isfinite(loss) for fraction, loss in curve):
            raise self.error(f" has a curve with a bad point; {hint} and finite losses")
        return tuple(CurveSample(fraction, loss, loss) for fraction, loss in curve)

    def positive(self, name: str, zero: bool = False) -> float | None:
        """A positive number, or not negative with ``zero``; None where the row has none."""
        value = self.amount(name)
        if value is not None and (value < 0 or (value == 0 and not zero)):
            raise self.error(f": {name} must {'not be negative' if zero else 'be positive'}, not {value:g}")
        return value

    def amount(self, name: str) -> float | None:
        """A finite number, also from text such as ``5e6``; None where the row has none.

        A switch is no number, though Python says so: a column of true and false has another meaning than 1 and 0.
        """
        if (value := self.cells.get(name)) is None or cells.is_empty(value):
            return None
        shown = checked.shown(value)  # cut, with control characters spelt out: it is printed on a terminal
        try:
            if isinstance(value, str):
                word = value.rstrip("xX\u00d7 ") if name == "ratio" else value
                amount = cells.number(word, self.comma, name in COUNTS)
            else:
                amount = math.nan if isinstance(value, bool) else float(value)
        except cells.AmbiguousCommaError as error:
            raise self.error(f": {name} must be a number, not {shown} ({error})") from None
        except (TypeError, ValueError):
            cure = "; write the mean alone, and its spread in a column std" if "\u00b1" in str(value) else ""
            raise self.error(f": {name} must be a number, not {shown}{cure}") from None
        except OverflowError:
            amount = math.inf
        if not math.isfinite(amount):
            where = "a run diverged" if name == "loss" else "it was not reached" if name.startswith("target_") else ""
            raise self.error(f": {name} must be a finite number, not {shown}"
                             + (f"; leave it empty where {where}" if where else ""))  # fmt: skip
        if not checked.is_usual(amount):
            raise self.error(f": {name} is beyond anything measured, {shown}; check its unit")
        return amount

    def word(self, name: str) -> str:
        """A name, one line of text; empty where the row has none, as R's ``NA`` says too."""
        value = self.cells.get(name)
        word = "" if value is None else str(value).strip()
        try:
            return "" if cells.is_empty(word) else checked.text(name, word)
        except InputError as error:
            raise self.error(f": {error}") from None

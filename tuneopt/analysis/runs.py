"""A training run as the analysis sees it, whatever it came from.

Records of a ledger become `TrainingRun` values directly (`from_records`); tables from elsewhere are parsed into the
same type once (`tuneopt.analysis.columns`). Every statistic works on these values alone, so it cannot depend on the
source. Units: nats per token, tokens, non-embedding parameters, device-seconds, FLOPs, bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tuneopt.ledger import TrialRecord
from tuneopt.ledger.record import SECONDS
from tuneopt.ledger.table import devices
from tuneopt.search.axis import is_number
from tuneopt.spec import Config as Config
from tuneopt.spec import Scale

Array = npt.NDArray[np.float64]

COMPLEMENTS = ("beta1", "beta2", "momentum", "shampoo_beta")
"""Coordinates whose law is that of 1 - value, where no declared space says so, and whose grid is read so: averaging
rates."""

FRACTIONS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Parts of training at which learning curves are compared. Fractions, because steps differ with the batch size."""

LARGEST_LOSS = 13.0
"""Nats above which no language model ends that has learned anything: guessing among 400,000 tokens costs as much. Where
all losses are larger, they are in another unit."""


class RegimeKey(NamedTuple):
    """What results are compared in: corpus, scale name, data-to-model ratio."""

    corpus: str
    scale: str
    ratio: float

    @property
    def label(self) -> str:
        """Short text for people, such as ``130m/1x``, with the corpus in front where there is one."""
        place = f"{self.scale}/{self.ratio:g}x"
        return f"{self.corpus} {place}" if self.corpus else place


class CurveSample(NamedTuple):
    """One measurement during training: the fraction of the run in (0, 1], and the losses on both splits (nats)."""

    fraction: float
    select_loss: float | None
    report_loss: float | None


class Role(IntEnum):
    """What a run may decide. A run that several sweeps share has the largest of its roles."""

    EXPLORED = 0
    """Fills stars, transfers, budgets and orders among trials; a sweep tried it and moved on."""
    REPLICATE = 1
    """Also counts for the noise between seeds, such as the start of a sweep."""
    CANDIDATE = 2
    """May also stand for its optimizer: the incumbent of a sweep, and every run of a table from elsewhere."""


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """One training run.

    ``status`` is ``completed``, ``diverged`` or ``unproven`` (completed, but without a passed update check); only
    completed runs have losses that may be compared, and they have both. ``variant`` holds what else tells runs of one
    configuration apart (precision, compilation, micro-batch size, semantics). ``sigma`` is a noise given with the row.
    ``tokens`` is the budget, ``trained`` what was trained of it, in ``steps`` optimizer steps. ``seconds`` are
    device-seconds of training, ``device_seconds`` those of the whole trial. ``curve`` is ordered by fraction, and empty
    where none is known.
    """

    trial: str
    optimizer: str
    regime: RegimeKey
    parameters: int | None  # without embeddings; None where a table does not say
    tokens: float  # of the budget
    config: Config
    seed: int  # `UNSEEDED` where a table does not say
    status: str
    select_loss: float | None  # nats per token, as the next two
    report_loss: float | None
    sigma: float | None = None
    variant: tuple[Any, ...] = ()
    trained: float | None = None  # tokens
    seconds: float | None = None
    device_seconds: float | None = None
    flops: float | None = None  # of training
    peak_bytes: float | None = None  # of the fullest device
    checkpoint_bytes: float | None = None  # of one checkpoint
    curve: tuple[CurveSample, ...] = ()
    role: Role = Role.CANDIDATE
    steps: float | None = None
    fingerprint: str = ""  # of the corpus's text; empty where a table does not say

    @property
    def setting(self) -> tuple[RegimeKey, str, Config, tuple[Any, ...]]:
        """All that a result depends on but the seed: runs of one setting are replicates."""
        return self.regime, self.optimizer, self.config, self.variant

    @property
    def precision(self) -> str:
        """The compute precision, which a ledger's variants name first; empty where a table says none."""
        first = self.variant[0] if self.variant else ""
        return first if isinstance(first, str) else ""

    @property
    def losses(self) -> tuple[float, float]:
        """The final select and report loss of a completed run; raises `ValueError` for a run without them."""
        if self.select_loss is None or self.report_loss is None:
            raise ValueError(f"run {self.trial} has no loss")
        return self.select_loss, self.report_loss


def from_records(records: Iterable[TrialRecord], roles: Mapping[str, Role] | None = None) -> tuple[TrainingRun, ...]:
    """The runs of a ledger's records, in their order.

    ``roles`` gives the role of each trial, by id; without it every run is a candidate.
    """
    held = list(records)
    names = corpus_names((record.spec.regime.corpus.name, record.spec.regime.corpus.fingerprint) for record in held)
    scales = scale_names(record.spec.regime.scale for record in held)
    return tuple(
        _from_record(record, names, scales, Role.CANDIDATE if roles is None else roles[record.trial]) for record in held
    )


def _from_record(
    record: TrialRecord, corpora: Mapping[tuple[str, str], str], scales: Mapping[Scale, str], role: Role
) -> TrainingRun:
    spec, regime, count = record.spec, record.spec.regime, devices(record)
    steps = spec.steps  # worked out once for each record, not for each of its points
    samples = (CurveSample(point.step / steps, point.select_loss, point.report_loss) for point in record.curve)
    return TrainingRun(
        trial=record.trial,
        optimizer=spec.optimizer,
        regime=RegimeKey(
            corpora[regime.corpus.name, regime.corpus.fingerprint], scales[regime.scale], float(regime.ratio)
        ),
        parameters=regime.scale.parameters,
        tokens=float(regime.tokens),
        # Numbers are floats, as in an exported table, so that a ledger and its export give the same document.
        config=tuple((name, float(value) if is_number(value) else value) for name, value in spec.hyperparameters),
        seed=spec.seed,
        status="unproven" if record.status == "completed" and not record.comparable else record.status,
        select_loss=record.select_loss,
        report_loss=record.report_loss,
        variant=(
            spec.precision,
            spec.compile,
            spec.micro_batch,
            spec.semantics,
            *own_order(spec.seed, spec.order_seed),
        ),
        trained=float(record.tokens),
        seconds=count * record.seconds["train"],
        device_seconds=sum(count * record.seconds[part] for part in SECONDS),
        flops=float(record.flops),
        peak_bytes=record.peak_bytes,
        checkpoint_bytes=record.checkpoint_bytes,
        curve=tuple(sorted(samples, key=lambda sample: sample.fraction)),
        role=role,
        steps=float(record.steps),
        fingerprint=regime.corpus.fingerprint,
    )


def own_order(seed: int, data_seed: int | None) -> tuple[int, ...]:
    """What the order of the data adds to a run's variant: nothing where it is the seed's, as in every sweep.

    Runs with one order and several weights then are replicates of each other, and of no run that changes both.
    """
    return () if data_seed in (None, seed) else (data_seed,)


def corpus_names(corpora: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """A name for each (name, fingerprint): with the first digits of its fingerprint where two texts share a name."""
    different = set(corpora)
    texts = Counter(name for name, _ in different)
    return {
        (name, fingerprint): f"{name}@{fingerprint[:8]}" if texts[name] > 1 else name for name, fingerprint in different
    }


def one_name_each(runs: Sequence[TrainingRun]) -> list[TrainingRun]:
    """Runs of several sources with one name for each text: `corpus_names` asked of all of them together."""
    own = [run.regime.corpus.removesuffix(f"@{run.fingerprint[:8]}") if run.fingerprint else "" for run in runs]
    names = corpus_names((name, run.fingerprint) for name, run in zip(own, runs, strict=True) if run.fingerprint)
    return [
        replace(run, regime=run.regime._replace(corpus=names[name, run.fingerprint])) if run.fingerprint else run
        for name, run in zip(own, runs, strict=True)
    ]


def scale_names(scales: Iterable[Scale]) -> dict[Scale, str]:
    """A name for each scale: with the first digits of its digest where two architectures share a name, as after an
    edit of a scale's file.
    """
    different = set(scales)
    shapes = Counter(scale.name for scale in different)
    return {scale: f"{scale.name}@{scale.digest}" if shapes[scale.name] > 1 else scale.name for scale in different}


class Curves:
    """The learning curves of many trials, by trial id, for reading at equal fractions of the run."""

    def __init__(self, curves: Mapping[str, Sequence[CurveSample]]) -> None:
        # (points, 3) each: fraction, select loss, report loss; a loss that was not measured becomes NaN
        self._points = {
            trial: np.array(sorted(points, key=lambda sample: sample.fraction), float)
            for trial, points in curves.items()
            if points
        }

    def __bool__(self) -> bool:
        return bool(self._points)

    def at(self, trials: Sequence[str], fractions: Sequence[float] = FRACTIONS, loss: str = "select_loss") -> Array:
        """Losses (nats) of ``trials`` at ``fractions``, shape (trials, fractions), by linear interpolation.

        A place before a trial's first measurement or after its last is NaN, which every comparison leaves out: the
        curve is never extrapolated. So is all of a trial that has no curve. A point without a loss is bridged.
        """
        aligned = np.full((len(trials), len(fractions)), np.nan)
        column = CurveSample._fields.index(loss)
        for row, trial in enumerate(trials):
            points = self._points.get(trial)
            known = None if points is None else points[np.isfinite(points[:, column])]
            if known is not None and len(known):
                aligned[row] = np.interp(fractions, known[:, 0], known[:, column], left=np.nan, right=np.nan)
        return aligned

"""What a scale is and costs: parameters, FLOPs, tokens, memory, and the time of a step on this machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tuneopt.api.own_models import limits_of, role_summary, scale_named
from tuneopt.architecture import Scale
from tuneopt.constants import VOCAB_SIZES
from tuneopt.scale_files import ladder_note
from tuneopt.spec import CorpusId, OwnModel, Regime

if TYPE_CHECKING:
    from tuneopt.ledger import Ledger


@dataclass(frozen=True, slots=True)
class ScaleFacts:
    """A scale in figures, over a vocabulary of ``vocabulary`` tokens.

    ``tokens`` are those of one Chinchilla budget (ratio 1). ``memory_bytes`` is the predicted peak of a trial of AdamW
    in fp32, with ``micro_batch`` sequences in a pass. ``family`` is the model of transformers that a trained model can
    be exported as, None where there is none. ``step_seconds`` is measured here for ``step_sequences`` sequences, and
    None unless it was asked for.
    """

    scale: Scale
    vocabulary: int
    parameters: int
    total_parameters: int
    flops_per_token: int
    tokens: int
    trial_flops: int
    micro_batch: int
    memory_bytes: int
    family: str | None
    step_seconds: float | None = None
    step_sequences: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """The JSON shape of ``scale show``."""
        return {**asdict(self), "scale": self.scale.to_dict()}


def scale_facts(name: str, corpus: str = "embedded", *, measure: bool = False) -> ScaleFacts:
    """The figures of a scale: a name, a YAML file, or a shorthand such as ``6x384,seq=256``.

    With ``measure`` a few uncompiled AdamW steps are trained on ``corpus`` in this process. Raises `InputError` for
    what is no scale.
    """
    from tuneopt.api.devices import peak_bytes
    from tuneopt.search.study.cost import TrialShape
    from tuneopt.search.study.study import Devices
    from tuneopt.search.sweep import micro_batch
    from tuneopt.training.weights import family_of

    scale = scale_named(name)
    regime = Regime(scale, 1.0, CorpusId("unread", "", VOCAB_SIZES[scale.ladder]))
    step_seconds, sequences = None, None
    if measure:
        step_seconds, sequences, regime = _measured(name, corpus)
    vocabulary = regime.corpus.vocab_size
    passes = micro_batch(sequences or 10**6, scale)
    family = family_of(scale)
    return ScaleFacts(
        scale=scale,
        vocabulary=vocabulary,
        parameters=scale.parameters,
        total_parameters=scale.total_parameters(vocabulary),
        flops_per_token=scale.flops_per_token(vocabulary),
        tokens=regime.tokens,
        trial_flops=regime.flops,
        micro_batch=passes,
        memory_bytes=peak_bytes(TrialShape("adamw", scale, vocabulary, "fp32", passes, Devices())),
        family=family.architecture if family else None,
        step_seconds=step_seconds,
        step_sequences=sequences,
    )


def scale_notes(scales: Iterable[Scale], ledger: Ledger) -> list[str]:
    """What a reader has to know of scales that are not built in: whose grids apply, and whether the ledger has trials
    of another architecture of the same name, as after an edit of the file.
    """
    own = [scale for scale in dict.fromkeys(scales) if ladder_note(scale)]
    if not own:
        return []
    others: Counter[Scale] = Counter()
    for record in ledger.records(sound=True):
        known = record.spec.regime.scale
        others.update(known for scale in own if known.name == scale.name and known != scale)
    notes = [ladder_note(scale) for scale in own]
    for scale in own:
        if isinstance(scale, OwnModel):
            notes += [
                limits_of(scale),
                f"{role_summary(scale)}; `tuneopt model show` has all of it, --route changes it",
            ]
    for scale, count in others.items():
        trials = f"{count} trial{'s' * (count > 1)}"
        notes.append(
            f"the ledger has {trials} of another scale called {scale.name}, so this is another study: "
            "they stay as they are, and none of them counts here"
        )
    return notes


def _measured(name: str, corpus: str) -> tuple[float, int, Regime]:
    """Seconds of a step, its sequences, and the regime that it was measured in."""
    from tuneopt.api.sweeps import single_trial
    from tuneopt.training.run import trained_throughput

    spec, loaded = single_trial("adamw", scale=name, corpus=corpus, compile=False)
    rate = trained_throughput(spec, loaded)
    return spec.batch * spec.regime.scale.seq_len / rate, spec.batch, spec.regime

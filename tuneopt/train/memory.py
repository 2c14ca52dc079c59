"""Bytes that one rank of a trial needs at its peak, from shapes alone; imports no torch.

The peak of a step is either in the backward pass, with activations and logits alive, or in the update, with the
optimizer's workspace; what stays throughout is counted in both.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from tuneopt.spec import Scale

FP32 = 4
BUCKET = 2**26
"""Elements that DeepSpeed averages at a time (`tuneopt.train.zero.engine`)."""
PARCEL = 2**25
"""Elements of one parcel between shards and owners (`tuneopt.train.zero.exchange`)."""
LIVE = 2**28
"""Elements of weights that stage 3 keeps fetched (`tuneopt.train.zero.engine`)."""
STACKS = {"muon": 3.0, "scion": 3.0, "soap": 3.0, "kron": 5.5}
"""Copies of the largest stack of equal matrices that a matrix rule holds while it computes, gradients included; other
rules work in place. Measured."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes by what they are for; ``host`` says how many of them lie in host memory because of offload."""

    weights: int
    gradients: int
    master: int
    state: int
    buffers: int
    """Communication, and gradients and displacements at their owners."""
    activations: int
    logits: int
    workspace: int
    """What an update needs for itself."""
    host: int = 0

    @property
    def total(self) -> int:
        """The peak of the rank, host memory included."""
        held = self.weights + self.gradients + self.master + self.state
        return held + max(self.activations + self.logits, self.workspace + self.buffers)

    def to_dict(self) -> dict[str, int]:
        """Plain data for JSON, with the total."""
        return {**asdict(self), "total": self.total}


def memory(
    scale: Scale,
    vocab_size: int,
    optimizer: str,
    state_bytes: float,
    *,
    precision: str = "fp32",
    micro_batch: int = 1,
    ranks: int = 1,
    zero: int = 0,
    offload: bool = False,
) -> Memory:
    """The memory of the fullest rank; ``state_bytes`` per parameter as `tuneopt.optim.info` lists them.

    ``micro_batch`` counts sequences of a rank's forward pass. Of each layer and token the backward pass reads
    10 d + 4 f values (4 d of them in fp32 whatever the precision), and it computes with 5 f + 4 d more in one layer at
    a time; of the logits there are three copies. A tensor has one owner under ZeRO, so no rank has less than the
    largest tensor.
    """
    count = scale.total_parameters(vocab_size)
    sharded = zero > 0
    share = -(-count // ranks)
    owned = max(share, vocab_size * scale.d_model) if sharded else count
    half = precision == "bf16"
    resident = share + min(count, LIVE) if zero == 3 else count
    tokens = micro_batch * scale.seq_len
    gradients = share if zero >= 2 else count
    bucket = min(BUCKET, count)
    buffers = bucket if ranks > 1 else 0
    if sharded:
        # At the owner gradients, displacements and, while the proof is taken, weights; two parcels, out and in; copies
        # that DeepSpeed makes of its shards of the gradient; at stage 3 its bucket stays, too.
        parcels = 2 * min(2 * PARCEL, count) // ranks if ranks > 1 else 0
        copies = {1: 2 * share, 2: share, 3: share + bucket}[zero]
        buffers = 3 * owned + parcels + copies
    state = int(state_bytes * owned)
    master = FP32 * share if sharded else 0
    return Memory(
        weights=FP32 * resident + (2 * resident if half else 0),
        gradients=FP32 * gradients,
        master=master,
        state=state,
        buffers=FP32 * buffers,
        activations=tokens * (scale.layers * _saved(scale, half) + FP32 * (5 * scale.d_ff + 4 * scale.d_model)),
        logits=3 * tokens * vocab_size * FP32,
        workspace=int(FP32 * _largest_stack(scale, owned) * STACKS.get(optimizer, 0.0)),
        host=master + state + FP32 * share if offload else 0,
    )


def _saved(scale: Scale, half: bool) -> int:
    """Bytes per token and layer that the forward pass leaves for the backward pass."""
    d, f = scale.d_model, scale.d_ff
    return FP32 * 4 * d + 2 * (9 * d + 4 * f) if half else FP32 * (10 * d + 4 * f)


def _largest_stack(scale: Scale, owned: int) -> int:
    """Elements of the largest stack of equal matrices: those of the feed-forward layers, as far as they are owned."""
    return min(3 * scale.layers * scale.d_model * scale.d_ff, owned)

"""Bytes that one rank of a trial needs at its peak, and how much it computes at once, from shapes alone; no torch.

The peak of a step is either in its passes, with activations and logits alive, or in the update, with the optimizer's
workspace and the tensors that travel between ranks; what stays throughout is counted in both.

How many tokens are computed at once never depends on the machine: chunks order floating-point sums, and a trial is to
give the same loss wherever it runs.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, fields
from typing import Any

from tuneopt.optim.info import Workspace, entry_of
from tuneopt.spec import OwnModel, Scale

FP32, BF16 = 4, 2

BUCKET = 2**24
"""Elements that DeepSpeed averages or gathers at a time, 64 MiB in fp32; a buffer of this size is held throughout."""

LIVE = 2**27
"""Elements of fetched weights that stage 3 keeps before it drops some, 512 MiB in fp32."""

OWNER_BUCKET = 2**24
"""Elements of an owner's tensors that step together under ZeRO, 64 MiB in fp32; a larger tensor is alone."""

STACK, SLICE = 9 * 2**24, 9 * 2**23
"""Elements of a portion or stack, and of a slice, on a device (`tuneopt.optim.portions`, whose test compares)."""

SHARDED = 10**9
"""Parameters from which on several ranks share optimizer state by default: the 1.2b scale and what is larger."""
REDUCED = {1: 1, 2: 2, 3: 1.5}
"""Buckets under way in a backward pass, by stage, on top of the one that stage 3 always has: of gradients that are
averaged, and at stage 3 half a bucket of weights that are fetched ahead."""
PLAIN_BUCKET = 25 * 2**18
"""Elements that torch's DDP averages at a time, 25 MiB: of these a copy is under way."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes by what they are for; ``host`` says how many of them lie in host memory because of offload."""

    weights: int  # that the passes use
    gradients: int  # of one step
    master: int
    """fp32 weights that the update moves, where they are not the weights themselves."""
    state: int  # of the optimizer
    buffers: int
    """What communication holds throughout."""
    fetched: int
    """Stage 3, while passes run: weights gathered from all ranks."""
    activations: int  # of one pass, between its layers
    logits: int  # of what the head computes at once
    reduction: int
    """While gradients are averaged: copies of what is under way, and the gradient that was computed last."""
    workspace: int
    """What an update computes with."""
    exchange: int
    """Under ZeRO, gradients and updates under way."""
    applied: int
    """In stages 1 and 2, when all updates are there: DeepSpeed's own copy of its shards."""
    curvature: int
    """While a Hessian-vector product is taken (Sophia): probe, gradient, product and its parts, and activations."""
    host: int = 0
    accumulates: bool = True
    """Whether gradients are alive during a pass: there are several in a step, or they have a buffer of their own."""

    @property
    def passes(self) -> int:
        """What forward and backward passes need on top of what stays."""
        return self.fetched + self.activations + self.logits + self.reduction

    @property
    def update(self) -> int:
        """What an update needs on top of what stays."""
        return max(self.workspace + self.exchange, self.applied, self.curvature)

    @property
    def total(self) -> int:
        """The peak of the rank, host memory included."""
        held = self.weights + self.master + self.state + self.buffers
        if self.accumulates:
            return held + self.gradients + max(self.passes, self.update)
        # Activations go as gradients come.
        return held + max(self.passes, self.gradients + self.update)

    @property
    def device(self) -> int:
        """The part of the peak that lies in device memory."""
        return self.total - self.host

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
    checkpointing: bool = False,
    head_chunk: int | None = None,
    passes: int = 2,
    on_cpu: bool = False,
    compiled: bool = False,
) -> Memory:
    """The memory of the fullest rank; ``state_bytes`` per parameter as `tuneopt.optim.info` lists them.

    ``on_cpu`` says where the trial runs, which decides what an update computes with; with ``offload`` updates run on
    the CPU. Blocks that are ``compiled`` keep less for the backward pass.

    ``micro_batch`` counts sequences of a rank's forward pass, of which a step has ``passes``; ``head_chunk`` the tokens
    whose logits exist at once (`tuneopt.training.memory`), None for all. A tensor has one owner under ZeRO, so no rank
    has less than the largest tensor.
    """
    if isinstance(scale, OwnModel):
        own = scale.total_parameters(vocab_size)
        # Weights, gradients and state are known; what a pass keeps of a model of a user's own is not.
        known: dict[str, Any] = {entry.name: 0 for entry in fields(Memory) if entry.type == "int"}
        known |= {"weights": FP32 * own, "gradients": FP32 * own, "state": int(state_bytes * own)}
        return Memory(**known)
    facts = entry_of(optimizer)
    count, half = scale.total_parameters(vocab_size), precision == "bf16"
    tokens = micro_batch * scale.seq_len
    share = -(-count // ranks)
    largest = max(vocab_size * scale.d_model, scale.d_ff * scale.d_model)
    # Without ZeRO, too, several ranks deal the tensors of whole-matrix rules out (`tuneopt.training.dealing`).
    dealt = ranks > 1 and facts.family == "matrix"
    owned = max(share, largest) if zero or dealt else count
    bucket = owned if facts.needs_all_gradients else min(owned, max(OWNER_BUCKET, largest))
    state = int(state_bytes * owned)
    gradients = share if zero >= 2 else count
    master = share if zero in (1, 2) or (zero and offload) else 0
    # Autocast keeps a copy of what it cast, which is all but the embedding; stage 3 casts anew each time.
    logits, lasting = _logits(scale, vocab_size, tokens, half, head_chunk, on_cpu)
    kept, working = _activations(scale, tokens, half, checkpointing, compiled)
    cast = BF16 * (count - vocab_size * scale.d_model) if half and zero < 3 else 0
    return Memory(
        weights=FP32 * (share if zero == 3 else count) + cast,
        gradients=FP32 * gradients,
        master=FP32 * master,
        state=state,
        # Gradients and updates of an owner's bucket, its weights where those count, and the bucket that stage 3 gathers
        # weights into.
        buffers=FP32 * (((2 + facts.needs_weights) * bucket if zero else 0) + (min(BUCKET, count) if zero == 3 else 0)),
        fetched=FP32 * min(count, max(LIVE, largest)) if zero == 3 else 0,
        # A GPU's allocator gives the room of the logits to the backward pass. The C library of a CPU may not.
        activations=kept + (working if on_cpu else max(0, working - (logits - lasting))),
        logits=logits,
        reduction=int(FP32 * _averaged(zero, count, largest, passes)) if ranks > 1 or zero else 0,
        workspace=FP32 * _workspace(scale, vocab_size, facts.workspace, owned, bucket, bool(zero), on_cpu or offload),
        # Transfers of one bucket, each as it leaves and as it arrives, and of the next if there is one: updates of a
        # bucket leave while the gradients of the next but one arrive.
        exchange=FP32
        * (
            2 * ((1 + facts.needs_weights) * bucket + min(bucket, owned - bucket))
            if zero
            else dealt * ranks * min(BUCKET, share)
        ),
        applied=FP32 * share if zero in (1, 2) else 0,
        curvature=_curvature(scale, vocab_size, micro_batch, zero, head_chunk) if facts.curvature else 0,
        host=FP32 * (master + share + 2 * bucket) + state if offload else 0,
        accumulates=passes > 1 or zero == 3 or (zero == 0 and ranks > 1),
    )


def stage_for(
    scale: Scale,
    vocab_size: int,
    optimizer: str,
    state_bytes: float,
    available: int,
    *,
    ranks: int,
    precision: str = "fp32",
    micro_batch: int = 1,
    checkpointing: bool = False,
    head_chunk: int | None = None,
    offload: bool = False,
    on_cpu: bool = False,
) -> int:
    """The ZeRO stage for a trial on several ranks: the lowest that fits into ``available`` bytes of each one's device.

    Low stages talk less. Models of `SHARDED` parameters and more, and such that offload, begin at stage 1, which
    averages gradients for the price of stage 0. Stage 3 where none fits: it needs least.
    """
    if ranks == 1 and not offload:
        return 0
    lowest = 1 if offload or scale.total_parameters(vocab_size) >= SHARDED else 0
    for stage in range(lowest, 3):
        need = memory(
            scale,
            vocab_size,
            optimizer,
            state_bytes,
            precision=precision,
            micro_batch=micro_batch,
            ranks=ranks,
            zero=stage,
            checkpointing=checkpointing,
            head_chunk=head_chunk,
            offload=offload,
            on_cpu=on_cpu,
        )
        if need.device <= available:
            return stage
    return 3


def _workspace(
    scale: Scale, vocab_size: int, copies: Workspace, owned: int, bucket: int, sharded: bool, on_cpu: bool
) -> int:
    """Elements that an update computes with; tensors step all together, or, ``sharded``, bucket by bucket."""
    d, heads, keys = scale.d_model, scale.attention_width, scale.groups * scale.head_width
    shapes = [(heads, d)] * 2 + [(keys, d)] * 2 + [(scale.d_ff, d)] * (scale.mlp_matrices - 1) + [(d, scale.d_ff)]
    equal = Counter((min(shape), max(shape), copies.upright and shape[0] > shape[1]) for shape in shapes)
    table = vocab_size * d
    peaks = [copies.whole * table]
    if on_cpu:  # slices of a few MiB: what counts is the largest stack, which is that of the feed-forward layers
        return int(max(*peaks, copies.host * min(bucket, scale.layers * scale.mlp_matrices * d * scale.d_ff)))
    most = bucket if sharded else owned
    # Lists are those of the parameters that decay, all but embedding and vectors; matrix rules leave them the head.
    lists = table if copies.stack else scale.total_parameters(vocab_size) - table
    peaks.append(copies.portion * min(STACK, lists, most))
    for (short, long, _), count in equal.items():
        size = short * long
        stack = max(1, min(count * scale.layers, -(-STACK // size), most // size))
        part = min(stack, max(1, SLICE // size))
        peaks.append(size * (copies.stack * stack + (copies.slice + copies.gram * short / long) * part))
    return int(max(peaks))


def _averaged(zero: int, count: int, largest: int, passes: int) -> float:
    """Elements of copies while gradients are averaged, and of the gradient that was computed last.

    DDP's buckets come on top of the gradients of passes that are not averaged. Zeroing gradients, which then stay views
    of the buckets, would not help: DDP makes its buckets anew in the second step, and those that are viewed stay.
    """
    if zero:
        return largest + REDUCED[zero] * min(BUCKET, count)
    return largest + min(PLAIN_BUCKET, count) + (count if passes > 1 else 0)


def _activations(scale: Scale, tokens: int, half: bool, checkpointing: bool, compiled: bool) -> tuple[int, int]:
    """Bytes that the forward pass leaves for the backward pass, and those that this computes with, a layer at a time.

    Of each layer and token the backward pass reads 10 d + 4 f values, 4 d of them in fp32 whatever the precision, and
    computes with 5 f + 4 d more; from compiled blocks 8 d + 3 f, d of them in fp32. With checkpointing a layer leaves
    its input alone, and one layer at a time the rest. Without a gate two of the four f values do not exist; queries may
    be wider than d.
    """
    d = max(scale.d_model, scale.attention_width)
    f = scale.d_ff * (scale.mlp_matrices - 1) // 2
    wide, narrow = (d, 7 * d + 3 * f) if compiled else (4 * d, (9 if half else 6) * d + 4 * f)
    layer = FP32 * wide + (BF16 if half else FP32) * narrow
    left = scale.layers * FP32 * d + layer if checkpointing else scale.layers * layer
    return tokens * left, tokens * FP32 * (5 * f + 4 * d)


def _curvature(scale: Scale, vocab_size: int, micro_batch: int, zero: int, chunk: int | None) -> int:
    """Bytes of `tuneopt.training.second_order` over weights, gradients and state; stage 3 gathers whole weights.

    Above one block of queries a layer keeps its input and the gradient of its output, and one layer at a time and five
    matrices of a block the rest; else about three times what an ordinary pass keeps, and T x T matrices. Measured.
    """
    d, f, layers, seq_len = scale.d_model, scale.d_ff, scale.layers, scale.seq_len
    tokens = micro_batch * seq_len
    if seq_len > ATTENTION_ROWS:
        matrices = 5 * min(ATTENTION_ELEMENTS, scale.heads * ATTENTION_ROWS * seq_len)
        kept = tokens * (2 * d * layers + 38 * d + 12 * f) + matrices
    else:
        matrices = int((2.65 * layers + 11) * scale.heads * seq_len**2) * micro_batch
        kept = 3 * tokens * layers * (10 * d + 4 * f) + matrices
    copies = (5 if zero == 3 else 4) * scale.total_parameters(vocab_size)
    return FP32 * (kept + copies) + _logits(scale, vocab_size, tokens, False, chunk, False)[0]


def _logits(scale: Scale, vocab_size: int, tokens: int, half: bool, chunk: int | None, on_cpu: bool) -> tuple[int, int]:
    """Bytes of logits, of their softmax and its gradient, and of the head's gradient; then those that outlast the head.

    In chunks the head's gradient comes early and stays. A CPU has no product that adds up in fp32, so there it needs
    another one in bf16 for a moment.
    """
    if chunk is None:
        return 3 * tokens * vocab_size * FP32, 0
    head = vocab_size * scale.d_model
    copies = (2 * BF16 if on_cpu else BF16) if half else 0
    each = (10 if half else 8) if on_cpu else (8 if half else 4)
    return chunk * vocab_size * each + head * (FP32 + copies), head * FP32


CHUNKED_VOCABULARY = 2**14
"""From this many entries on, logits are computed in chunks; smaller ones, of the nano ladder, stay whole."""

LEAST_CHUNKS = 4
"""Chunks of a pass at least: with fewer, logits would still be the largest tensor of a step."""

CHUNK_ELEMENTS = 2**29
"""Logits of one chunk at most: 1 GiB in bf16. Each chunk reads and writes the head's gradient in fp32 once, so that
twice as large a chunk halves that. From here on it is a fifth of the head's bytes, and memory would be dearer."""

ATTENTION_ROWS = 256
"""Queries of a block where attention is differentiated twice. Sequences of one block, as on the nano ladder, take
torch's plain products (`tuneopt.training.second_order`)."""

ATTENTION_ELEMENTS = 2**23
"""Numbers of one matrix of such a block at most, 32 MiB in fp32, of which five are alive at once."""


def chunk_tokens(tokens: int, vocab_size: int) -> int | None:
    """Tokens of a forward pass over ``tokens`` whose logits exist at once; None where all of them do.

    A power of two, so that passes over whole sequences divide into equal chunks: at most a quarter of the pass, and
    `CHUNK_ELEMENTS` logits.
    """
    if vocab_size < CHUNKED_VOCABULARY:
        return None
    most = max(1, min(-(-tokens // LEAST_CHUNKS), CHUNK_ELEMENTS // vocab_size))
    return int(1 << (most.bit_length() - 1))

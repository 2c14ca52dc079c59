"""What ranks send each other in a step, counted from the code that sends it, and what that is predicted to cost.

    python benchmarks/wire_bytes.py --scale 1.2b --ranks 8 --optimizers adamw,muon,soap

The model has shapes and no storage, and messages go to a process group that counts and delivers nothing, so it runs
anywhere in seconds. Counted are bytes that the fullest rank sends for one optimizer step, and its share of the update's
work. All-reduce, reduce-scatter and gathering of weights are NCCL's, inside DDP and DeepSpeed; they are put in by their
sizes: a ring moves 2 (W - 1) / W of the gradients. Times are predictions, from `OPTIMIZER_MS` and `WIRE`.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist

from tuneopt.optim import create
from tuneopt.optim.base import Optimizer
from tuneopt.optim.factory import LOOP, implementation
from tuneopt.search.space import load_space
from tuneopt.spec import SCALES, Scale
from tuneopt.training.dealing import Dealt, is_dealt
from tuneopt.training.model import Decoder
from tuneopt.training.ranks import Ranks
from tuneopt.training.zero.owned import assign, cut, loads, shapes
from tuneopt.training.zero.shards import Exchange, Extent

GB, FP32 = 1e9, 4

WIRE = 350.0
"""GB/s that a rank sends over NVLink in large messages, of 450 that a data sheet of H100 gives for one direction."""

OPTIMIZER_MS = {"adamw": 16.0, "muon": 150.0, "soap": 165.0}
"""A whole optimizer step at 1.2b on one H200, predicted (docs/benchmarks.md): Muon in TF32, SOAP with its refreshes
spread over ten steps."""

STEP_MS = 11_400.0
"""524,288 tokens of AdamW at 1.2b on one H200, predicted."""


class Counting(Ranks):
    """A rank of a group in which nobody listens; what all ranks would answer is computed instead."""

    extents: list[dict[str, Extent]]

    def gather(self, value: Any) -> list[Any]:
        """What every rank holds."""
        return self.extents


class _Done:
    def wait(self) -> None: ...


@contextlib.contextmanager
def counted(rank: int) -> Iterator[dict[str, int]]:
    """Bytes that ``rank`` sends to others, by kind of message."""
    sent = {"broadcast": 0, "all_to_all": 0}
    before = dist.broadcast, dist.all_to_all_single

    def broadcast(message: torch.Tensor, owner: int, async_op: bool = False) -> _Done:
        sent["broadcast"] += FP32 * message.numel() * (owner == rank)
        return _Done()

    def all_to_all(
        arriving: torch.Tensor, leaving: torch.Tensor, to_me: list[int], by_me: list[int], **_: Any
    ) -> _Done:
        sent["all_to_all"] += FP32 * (sum(by_me) - by_me[rank])
        return _Done()

    dist.broadcast, dist.all_to_all_single = broadcast, all_to_all
    try:
        yield sent
    finally:
        dist.broadcast, dist.all_to_all_single = before


def built(name: str, scale: Scale, vocabulary: int) -> Optimizer:
    """An optimizer over a model without storage."""
    with torch.device("meta"):
        model = Decoder(scale, vocabulary)
    config = {key: value for key, value in load_space(name).on(scale.ladder).start if key not in LOOP}
    return create(name, model, **scale.facts(implementation(name).model_facts), **config)


def flat_extents(optimizer: Optimizer, ranks: int) -> list[dict[str, Extent]]:
    """Which part of each tensor lies on each rank at stages 1 and 2: groups are flattened and cut into equal parts."""
    every, found = shapes(optimizer), [dict[str, Extent]() for _ in range(ranks)]
    for group in optimizer.param_groups:
        names, first = group["param_names"], 0
        part = -(-sum(every[name].numel() for name in names) // ranks)
        for name in names:
            size = every[name].numel()
            for rank in range(ranks):
                low, high = max(first, rank * part), min(first + size, (rank + 1) * part)
                found[rank][name] = (low - first, high - low) if high > low else (0, 0)
            first += size
    return found


def piece_extents(optimizer: Optimizer, ranks: int) -> list[dict[str, Extent]]:
    """The same at stage 3: every tensor is cut into equal pieces."""
    found: list[dict[str, Extent]] = []
    for rank in range(ranks):
        found.append({})
        for name, shape in shapes(optimizer).items():
            size = -(-shape.numel() // ranks)
            count = max(0, min(shape.numel() - rank * size, size))
            found[-1][name] = (rank * size, count) if count else (0, 0)
    return found


def sharded_bytes(optimizer: Optimizer, ranks: int, extents: list[dict[str, Extent]]) -> int:
    """Bytes that the fullest rank sends so that gradients reach their owners and updates come back."""
    owners = assign(loads(optimizer), ranks)
    buckets, every, most = cut(optimizer, owners, ranks), shapes(optimizer), 0
    for rank in range(ranks):
        member = Counting(rank, ranks, torch.device("meta"))
        object.__setattr__(member, "extents", extents)
        exchange = Exchange(member, buckets, owners, extents[rank])
        with counted(rank) as sent:
            for number in range(len(buckets)):
                exchange.to_owners(number, lambda name, own=extents[rank]: torch.empty(own[name][1], device="meta"))
                exchange.to_holders(number, lambda name: torch.empty(every[name].numel(), device="meta"))
        most = max(most, sent["all_to_all"])
    return most


def dealt_bytes(optimizer: Optimizer, ranks: int) -> int:
    """Bytes that the fullest owner sends so that all have the weights that it moved: to each once, along a ring."""
    most = 0
    for rank in range(ranks):
        dealt = Dealt(optimizer, Ranks(rank, ranks, torch.device("meta")))
        with counted(rank) as sent:
            dealt._hand_out()
        most = max(most, sent["broadcast"])
    return most


def fullest(optimizer: Optimizer, ranks: int) -> float:
    """The share of the whole update's work that the busiest owner has."""
    work = {name: load[1] for name, load in loads(optimizer).items()}
    owners = assign(loads(optimizer), ranks)
    held = [sum(work[name] for name in work if owners[name] == rank) for rank in range(ranks)]
    return max(held) / sum(held)


def rows(name: str, scale: Scale, vocabulary: int, ranks: int) -> list[dict[str, Any]]:
    """One for each way to train on several ranks."""
    optimizer = built(name, scale, vocabulary)
    parameters = FP32 * scale.total_parameters(vocabulary)
    ring = parameters * (ranks - 1) / ranks  # what a rank sends to scatter sums of this size, or to gather pieces
    share, found = fullest(optimizer, ranks), []
    moved = {1: sharded_bytes(optimizer, ranks, flat_extents(optimizer, ranks))}
    moved |= {2: moved[1], 3: sharded_bytes(optimizer, ranks, piece_extents(optimizer, ranks))}
    found.append({"way": "DDP", "hidden": 2 * ring, "open": 0.0, "work": 1.0})
    if is_dealt(name):
        # Owners send one after another over the same links: what counts is what a rank takes in, all but its own.
        found[0]["way"] = "DDP, nothing dealt out (as before)"
        found.append(
            {"way": "DDP", "hidden": 2 * ring, "open": ring, "sent": dealt_bytes(optimizer, ranks), "work": share}
        )
    for stage in (1, 2, 3):
        # Stages 1 and 2 gather weights after the step, stage 3 in each pass, forward and backward.
        hidden, open_ = (2 * ring, ring) if stage < 3 else (3 * ring, 0.0)
        found.append({"way": f"ZeRO {stage}", "hidden": hidden, "open": open_ + moved[stage], "work": share})
    for row in found:
        row["optimizer_ms"] = OPTIMIZER_MS.get(name, 0.0) * row["work"]
        row["open_ms"] = 1e3 * row["open"] / GB / WIRE
        row["share"] = (row["optimizer_ms"] + row["open_ms"]) / (STEP_MS / ranks)
    return found


def markdown(found: Mapping[str, list[dict[str, Any]]]) -> str:
    """One table; GB are counted, milliseconds and shares predicted."""
    columns = ["optimizer", "way", "GB behind the backward pass", "GB after it", "work of the busiest rank"]
    columns += ["update, ms", "GB after it, ms", "of a step"]
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for name, ways in found.items():
        for row in ways:
            lines.append(
                f"| {name} | {row['way']} | {row['hidden'] / GB:.1f} | {row['open'] / GB:.1f} | {row['work']:.1%} | "
                f"{row['optimizer_ms']:.0f} | {row['open_ms']:.0f} | {row['share']:.1%} |"
            )
    return "\n".join(lines) + "\n"


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", choices=SCALES, default="1.2b")
    parser.add_argument("--vocabulary", type=int, default=128_256)
    parser.add_argument("--ranks", type=int, default=8)
    parser.add_argument("--optimizers", default="adamw,muon,soap")
    wanted = parser.parse_args(words)
    scale = SCALES[wanted.scale]
    print(
        markdown({name: rows(name, scale, wanted.vocabulary, wanted.ranks) for name in wanted.optimizers.split(",")}),
        end="",
    )


if __name__ == "__main__":
    main()

"""Options that several commands share, and how every command prints its outcome."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

DONE, BAD_INPUT, NO_CERTIFICATE, INTERRUPTED = 0, 2, 3, 130

"""Exit codes."""

Optimizer = Annotated[
    str, typer.Option("--optimizer", "-O", help="Optimizer, as `tuneopt optimizers` lists them, or PATH.py:Class.")
]
Space = Annotated[
    str | None, typer.Option("--space", help="Search space: PATH.py or a name; default: the optimizer's.")
]
ScaleName = Annotated[str, typer.Option("--scale", help="Model scale: nano-65k ... nano-1m, 130m ... 1.2b.")]
Ratio = Annotated[float, typer.Option("--ratio", help="Tokens over the Chinchilla optimum (20 per parameter).")]
CorpusName = Annotated[str, typer.Option("--corpus", help="`embedded`, a prepared corpus, or a folder of text.")]
LedgerUri = Annotated[str, typer.Option("--ledger", help="Where trial records are kept: a folder, s3:// or gs://.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Pin a coordinate; repeatable.")]
Grid = Annotated[list[str] | None, typer.Option("--grid", metavar="NAME=V1,V2", help="Replace a grid; repeatable.")]
Start = Annotated[list[str] | None, typer.Option("--start", metavar="NAME=VALUE", help="Begin there; repeatable.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of weights and data order.")]
Compile = Annotated[bool | None, typer.Option("--compile/--no-compile", help="torch.compile; default: if possible.")]
Ranks = Annotated[int, typer.Option("--ranks", min=1, help="Processes of a trial, one for each device.")]
Zero = Annotated[
    int | None, typer.Option("--zero", min=0, max=3, help="ZeRO stage, 0 for plain data parallel; default: what fits.")
]
Offload = Annotated[bool, typer.Option("--offload", help="With ZeRO: keep state in host memory.")]
Precision = Annotated[str, typer.Option("--precision", help="Of the compute: fp32 or bf16; weights stay fp32.")]
Checkpointing = Annotated[bool, typer.Option("--checkpointing", help="Compute activations twice, to save memory.")]
Sequences = Annotated[
    int | None, typer.Option("--micro-batch", min=1, help="Sequences of a pass at most; default: on a GPU what fits.")
]
Deterministic = Annotated[bool, typer.Option("--deterministic", help="GPU kernels that repeat to the bit; slower.")]
KeepWeights = Annotated[bool, typer.Option("--keep-weights", help="Keep final weights, for `tuneopt export`.")]
Address = Annotated[str | None, typer.Option("--address", help="Ray cluster; default: this machine.")]
MaxConcurrent = Annotated[int | None, typer.Option("--max-concurrent", min=1, help="Trials at once.")]
Backend = Annotated[
    str, typer.Option("--backend", help="ray; or inline: one trial after another in this process, without Ray.")
]
Output = Annotated[Path | None, typer.Option("-o", "--output", help="Report file; default: in reports/.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, nothing else there.")]


def group(about: str) -> typer.Typer:
    """A command that only holds others."""
    return typer.Typer(help=about, no_args_is_help=True, rich_markup_mode=None)


def show(document: Any, as_json: bool, draw: Callable[[Any], None]) -> int:
    """Print ``document`` as the one JSON text on stdout, or let ``draw`` show it to people."""
    if as_json:
        sys.stdout.write(json.dumps(document, indent=2, sort_keys=False, allow_nan=False) + "\n")
    else:
        draw(document)
    return DONE

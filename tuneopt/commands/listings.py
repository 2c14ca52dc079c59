"""``tuneopt optimizers``, ``tuneopt space`` and ``tuneopt doctor``."""

from __future__ import annotations

from typing import Annotated

import typer

from tuneopt.commands.options import BAD_INPUT, DONE, Json, show


def optimizers(json_: Json = False) -> int:
    """List the optimizers, also of installed packages: family, fallback rule, source, state bytes per parameter."""
    from tuneopt import api, console

    return show(api.optimizers(), json_, console.optimizers)


def space(
    name: Annotated[str, typer.Argument(help="Optimizer, or the path of a search-space file.")], json_: Json = False
) -> int:
    """Print a search space: grids and starts of both ladders, and the published tuned points."""
    from tuneopt import console
    from tuneopt.search import load_space

    return show(load_space(name).describe(), json_, console.space)


def doctor(
    address: Annotated[str | None, typer.Option("--address", help="Also look at the Ray cluster there.")] = None,
    json_: Json = False,
) -> int:
    """Say what this machine or cluster can run, and what is missing."""
    from tuneopt import console
    from tuneopt.cluster.doctor import examine

    findings = [finding.to_dict() for finding in examine(address)]
    show(findings, json_, console.findings)
    return BAD_INPUT if any(finding["status"] == "missing" for finding in findings) else DONE

"""Whether trials compile their model: part of what a trial is, so that it is decided before any runs."""

from __future__ import annotations

from collections.abc import Iterable

from tuneopt.spec import InputError, OwnModel, Scale


def compiles(asked: bool | None) -> bool:
    """Whether trials compile; None asks for it where it is possible. Raises `InputError` where it is not."""
    from tuneopt.training.kernels import has_compiler

    if asked is False or has_compiler():  # the quick answers, without torch
        return asked is not False
    from tuneopt.training.building import can_compile  # a GPU needs no C++ compiler; asking for one takes torch

    if asked and not can_compile():
        raise InputError("--compile needs a C++ compiler; install g++ or leave it out")
    return can_compile()


def compiles_at(asked: bool | None, scales: Iterable[Scale]) -> bool:
    """As `compiles`; a model of a user's own compiles on demand alone, because nobody knows whether it can."""
    return compiles(False if asked is None and any(isinstance(scale, OwnModel) for scale in scales) else asked)

"""A full disk: told apart from other errors, and said in one sentence."""

from __future__ import annotations

import errno
from pathlib import Path

from tuneopt.spec import InputError

_FULL = {errno.ENOSPC, errno.EDQUOT}


class NoRoomError(InputError):
    """Nothing more can be written at a place: its disk is full, or the user's share of it is used up."""

    def __init__(self, place: str | Path) -> None:
        super().__init__(
            f"no space is left for {place}; make room and run the same command again: it goes on from what is stored"
        )


def no_room(error: BaseException) -> bool:
    """Whether ``error`` says that a disk is full."""
    return isinstance(error, OSError) and error.errno in _FULL

"""Progress for callers of the API: one line that changes in a notebook's cell, the live display on a terminal.

A script whose stderr is a file gets nothing: it did not ask. The commands have displays of their own.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from typing import Any

from tuneopt.console import err
from tuneopt.display import RunDisplay, status_line
from tuneopt.observe.observer import Observer
from tuneopt.observe.state import RunState

PAUSE_SECONDS = 1.0
"""Least time between two pictures in a notebook: each one travels to a browser."""


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook: IPython runs and its shell speaks to a front end."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and hasattr(shell, "kernel")


@contextmanager
def progress(
    verb: str, title: str, wanted: bool | None, observers: Sequence[Observer] = ()
) -> Iterator[list[Observer]]:
    """``observers``, and one that shows the run where it is ``wanted``.

    None wants it in a notebook and on a terminal, where no other observer is there to do it.
    """
    with _displays(verb, title, False if wanted is None and observers else wanted) as displays:
        yield [*observers, *displays]


@contextmanager
def _displays(verb: str, title: str, wanted: bool | None) -> Iterator[list[Observer]]:
    if wanted is False:
        yield []
    elif in_notebook():
        display = NotebookDisplay(verb, title)
        yield [display]
        display.end()
    elif wanted or err.is_terminal:
        with RunDisplay(verb, title) as shown:
            yield [shown]
    else:
        yield []


class NotebookDisplay(Observer):
    """Shows a run in the output of a cell: what is running, how far it is, and when it is expected to end."""

    def __init__(self, verb: str, title: str) -> None:
        from IPython.display import display

        self.title = f"{verb} {title}"
        self._drawn = 0.0
        self._line = "starting"
        self._state: RunState | None = None
        self._handle: Any = display(self._bundle(), raw=True, display_id=True)

    def changed(self, state: RunState) -> None:
        """Draw the moment, at most once in `PAUSE_SECONDS`."""
        self._state, self._line = state, status_line(state)
        if time.monotonic() - self._drawn > PAUSE_SECONDS:
            self._drawn = time.monotonic()
            self._handle.update(self._bundle(), raw=True)

    def end(self) -> None:
        """Draw the last moment; the cell's own result follows."""
        if self._state is not None:
            self._state.look_again()
            self._line = status_line(self._state)
        self._handle.update(self._bundle(), raw=True)

    def _bundle(self) -> dict[str, str]:
        html = f"<b>{escape(self.title)}</b><br>{escape(self._line)}"
        return {"text/plain": f"{self.title}\n{self._line}", "text/html": html}

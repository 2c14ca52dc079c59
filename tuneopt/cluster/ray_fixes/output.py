"""Where Ray's words go: into the log, not onto stdout, which is the one JSON document of ``--json``.

Ray prints what its raylets report on the driver's stdout (ray-project/ray, issue 9654), lets its C++ core write to
stderr, and sets its own handlers on its Python loggers.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tuneopt.observe.logs import Shown

_log = logging.getLogger("tuneopt.ray")


@contextmanager
def messages_to_log() -> Iterator[None]:
    """Log what raylets report, such as the death of a worker, at level INFO; Ray prints it on stdout by default.

    What follows for a trial is said of the trial, at level WARNING.
    """
    from ray._private import worker

    printed = worker.print_to_stdstream
    worker.print_to_stdstream = _to_log
    try:
        yield
    finally:
        worker.print_to_stdstream = printed


@contextmanager
def errors_as_asked() -> Iterator[None]:
    """Show what Ray logs in this process as the command line shows all other records, if it does; else as Ray does.

    To be entered after `ray.init`, which sets Ray's handlers anew.
    """
    logger = logging.getLogger("ray")
    before = list(logger.handlers)
    asked: list[logging.Handler] = [
        handler for handler in logging.getLogger("tuneopt").handlers if isinstance(handler, Shown)
    ]
    logger.handlers = asked or before
    try:
        yield
    finally:
        logger.handlers = before


@contextmanager
def core_messages() -> Iterator[Callable[[], str]]:
    """Hold back what Ray's C++ core writes to stderr; the value reads it. A refused connection brings twenty lines.

    The file descriptor is replaced, because C++ does not know of ``sys.stderr``.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield lambda: os.pread(file.fileno(), 1 << 20, 0).decode(errors="replace")
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _to_log(data: Mapping[str, Any], ignore_prefix: bool = False) -> None:
    text = " ".join(" ".join(map(str, data["lines"])).split())
    _log.info("%s: %s", data.get("pid", "ray"), text, extra={"event": "ray"})

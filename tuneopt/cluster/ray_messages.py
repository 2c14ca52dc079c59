"""What Ray's own processes report to the driver: into the log, where it would stand on stdout otherwise."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tuneopt.observe.logs import Shown

_log = logging.getLogger("tuneopt.ray")


@contextmanager
def messages_to_log() -> Iterator[None]:
    """Log what raylets report, such as the death of a worker, at level INFO; Ray prints it on stdout by default.

    That is no place for it: stdout is the one JSON document of ``--json``. What follows for a trial is said of the
    trial, at level WARNING.
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


def _to_log(data: Mapping[str, Any], ignore_prefix: bool = False) -> None:
    text = " ".join(" ".join(map(str, data["lines"])).split())
    _log.info("%s: %s", data.get("pid", "ray"), text, extra={"event": "ray"})

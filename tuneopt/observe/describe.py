"""The events of a trial's log in words.

A log may come from another release, or from a file that somebody edited: an event that is not as expected is shown
field by field, and control characters are spelt out, since they could steer a terminal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuneopt.errors import visible

_HIDDEN = ("time", "level", "event", "trial")


def describe(event: Mapping[str, Any]) -> str:
    """One line for people, such as ``point: step 20 of 90, select 4.1231``; control characters are spelt out."""
    name = str(event["event"])
    maker = _MAKERS.get(name)
    try:
        text = maker(event) if maker else _plain(event)
    except (KeyError, TypeError, ValueError):  # a log of another release
        text = _plain(event)
    return visible(f"{name}: {text}" if text else name)


def line(event: Mapping[str, Any]) -> str:
    """A whole line for people, with its time, and the traceback below it where there is one."""
    level = str(event.get("level", "info"))
    head = f"{event.get('time', '')} {level:7} {describe(event)}"
    below = str(event.get("traceback", "")).rstrip()
    return f"{head}\n{visible(below, keep=chr(10))}" if below else head


def _start(event: Mapping[str, Any]) -> str:
    return f"{event['optimizer']} at {event['regime']}, process {event['pid']} on {event['host']}"


def _ready(event: Mapping[str, Any]) -> str:
    return f"on {event['device']} after {event['startup_seconds']:.1f} s"


def _resume(event: Mapping[str, Any]) -> str:
    return f"from step {event['step']} of {event['steps']}"


def _point(event: Mapping[str, Any]) -> str:
    losses = ", ".join(f"{name} {_loss(event[f'{name}_loss'])}" for name in ("train", "select", "report"))
    return f"step {event['step']} of {event['steps']}, {losses}, {event['seconds']:.1f} s"


def _end(event: Mapping[str, Any]) -> str:
    if "select_loss" not in event:  # the driver's word on a trial that a scheduler cut
        return _text(event)
    proof = {True: "proof passed", False: "proof FAILED", None: "no proof"}[event["proof_passed"]]
    return f"{event['status']}, select {_loss(event['select_loss'])}, report {_loss(event['report_loss'])}, {proof}"


def _text(event: Mapping[str, Any]) -> str:
    return str(event["text"]).strip()


def _plain(event: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in event.items() if name not in (*_HIDDEN, "traceback"))


def _loss(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4f}"


_MAKERS = {
    "start": _start,
    "ready": _ready,
    "resume": _resume,
    "point": _point,
    "end": _end,
    "warning": _text,
    "error": _text,
    "failed": _text,
    "restart": _text,
    "interrupted": _text,
    "unreadable": _text,
}

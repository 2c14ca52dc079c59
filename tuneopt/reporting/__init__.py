"""The report: what was compared, the verdict with its uncertainty, and every figure behind it, in one HTML file.

Names resolve lazily, so that importing this package loads neither plotly nor jinja2.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuneopt.reporting.study import StudyView, SweepView, read_study
    from tuneopt.reporting.write import write_report

__all__ = ["StudyView", "SweepView", "read_study", "write_report"]

_HOMES = {"StudyView": "study", "SweepView": "study", "read_study": "study", "write_report": "write"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

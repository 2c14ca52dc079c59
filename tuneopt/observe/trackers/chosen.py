"""From what a user asks for to trackers, with answers at once to what cannot work."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tuneopt.observe.trackers.tracker import Tracker
from tuneopt.spec import InputError, nearest

_PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow"}

_MLFLOW = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks", "file")


@contextmanager
def tracking(
    tensorboard: str | None = None, wandb: str | None = None, mlflow: str | None = None
) -> Iterator[tuple[Tracker, ...]]:
    """Trackers to observe runs with: a folder, a project, an address. Closed at the end, within half a minute.

    Raises `InputError` at once for a target that cannot be one, and for a package that is not installed.
    """
    wanted = {"tensorboard": tensorboard, "wandb": wandb, "mlflow": mlflow}
    targets = {kind: target for kind, target in wanted.items() if target is not None}
    check(targets)
    trackers = tuple(Tracker(kind, target) for kind, target in targets.items())
    try:
        yield trackers
    finally:
        for tracker in trackers:
            tracker.close()


def check(targets: Mapping[str, str]) -> None:
    """Raise `InputError` for the first target that cannot be written to, without any network."""
    for kind, target in targets.items():
        if not target.strip():
            raise InputError(f"--{kind} is empty; give {_example(kind)}")
        if not installed(_PACKAGES[kind]):
            raise InputError(f"--{kind} needs the package {_PACKAGES[kind]}; pip install 'tuneopt[{kind}]'")
    if "tensorboard" in targets:
        folder = Path(targets["tensorboard"])
        if next((path for path in (folder, *folder.parents) if path.exists()), folder).is_file():
            raise InputError(f"--tensorboard {str(folder)!r} is a file or lies in one; give a folder")
    if "wandb" in targets and set(targets["wandb"]) & set("/\\#?%:"):
        raise InputError(f"--wandb {targets['wandb']!r} is no name of a project; leave out / \\ # ? % and :")
    if "mlflow" in targets:
        _check_mlflow(targets["mlflow"])


def installed(package: str) -> bool:
    """Whether a package can be imported; a folder of that name (where W&B keeps its runs) is none."""
    found = importlib.util.find_spec(package)
    return found is not None and found.origin is not None


def _check_mlflow(uri: str) -> None:
    scheme, known, _ = uri.partition(":")
    if not known and uri == "databricks":
        return
    scheme = scheme.partition("+")[0] if known else "file"
    if scheme not in _MLFLOW:
        raise InputError(f"--mlflow {scheme}: is no address that MLflow knows; {nearest(scheme, _MLFLOW)}")
    if scheme == "file" and not os.environ.get("MLFLOW_ALLOW_FILE_STORE"):
        raise InputError(f"--mlflow: MLflow no longer writes into plain folders; give {_example('mlflow')}")


def _example(kind: str) -> str:
    examples = {
        "tensorboard": "a folder",
        "wandb": "the name of a project",
        "mlflow": "sqlite:///mlflow.db or a server",
    }
    return examples[kind]

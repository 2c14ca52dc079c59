"""Who can reach a Ray that runs on this machine: programs of this user, from this machine.

Whoever reaches Ray's ports with its token may run programs as this user. Ray opens its ports on every network
interface (ray-project/ray, issue 19702 and pull request 59852), and makes ``~/.ray/auth_token`` with the permissions
that the umask leaves: on most systems everybody may read it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

CHOSEN = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
"""Variables by which a user brings a token; its file is then theirs to guard."""


@contextlib.contextmanager
def loopback() -> Iterator[Callable[[], str]]:
    """Ray started within this listens on 127.0.0.1 alone. The value, always empty, stands for held-back messages.

    Ray's switch for it is the one that keeps firewalls of desktop systems from asking. Its processes inherit the
    variable; this process read it when Ray was imported, so the constant is set too.
    """
    from ray._private import ray_constants

    name = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    before, allowed = os.environ.get(name), ray_constants.ENABLE_RAY_CLUSTER
    os.environ[name], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield str
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = allowed
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def guard_token() -> None:
    """Make the token before Ray does, or take it away from others; a home that cannot be written is left to Ray."""
    if os.environ.get("RAY_AUTH_MODE") == "disabled" or any(os.environ.get(name) for name in CHOSEN):
        return
    with contextlib.suppress(OSError, RuntimeError):
        path = Path.home() / ".ray" / "auth_token"
        path.parent.mkdir(mode=0o700, exist_ok=True)
        if not path.exists():
            _make(path)
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)


def _make(path: Path) -> None:
    """Put a new token under its name all at once: another process may read it at any moment."""
    for left in path.parent.glob(".auth_token-*"):  # of one that was killed here
        if left.stat().st_mtime < time.time() - 60:
            left.unlink(missing_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".auth_token-")  # mode 0600
    try:
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(32))
        with contextlib.suppress(FileExistsError):  # another run was first, and its token is as good
            os.link(name, path)
    finally:
        Path(name).unlink()

"""Ray's token of this user, readable by nobody else.

Ray makes ``~/.ray/auth_token`` when it starts, with the permissions that the umask leaves: on most systems everybody
may read it, and whoever has it may run programs through this user's Ray.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from pathlib import Path

CHOSEN = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
"""Variables by which a user brings a token; its file is then theirs to guard."""


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
    """A new token under its name all at once: another process may read it at any moment."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".auth_token-")  # mode 0600
    try:
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(32))
        with contextlib.suppress(FileExistsError):
            os.link(name, path)
    finally:
        Path(name).unlink()

"""Copies of a trial's checkpoints in the object store of its ledger, so that another machine can go on.

Under ``checkpoints/<trial>/``, ``step-<step>~<word>/`` holds the files of a checkpoint, and ``step-<step>.json`` names
them with their sizes and checksums. An object store has no rename, so a folder cannot appear at once; a description
can. It is put last and deleted first: what it names is whole. The random word keeps two machines that upload the same
step (an orphaned worker and its successor) out of each other's files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
import secrets
import shutil
import threading
from pathlib import Path
from typing import IO, Any

from tuneopt.errors import NoRoomError, no_room
from tuneopt.ledger.files import RemoteFiles

KEPT = 2
"""Checkpoints that stay, here and in the trial's own folder: the newest, and one to go on from where that is
damaged."""

END_SECONDS = 60.0
"""How long the end of a trial waits for an upload under way to notice that it is not wanted any more: many times what
one chunk takes. Waiting longer would hold a device for the sake of files that `tuneopt ledger clean` removes."""

_NAME = re.compile(r"step-(\d{9})\.json")
_CHUNK = 8 << 20
"""Bytes that are read and hashed at a time: what an upload holds in memory, and how soon it notices the end."""

_log = logging.getLogger(__name__)


class Mirror:
    """The checkpoints of one trial in an object store.

    Uploads run on a thread of their own, one at a time. A checkpoint that comes while another is going up waits, and
    gives way to a newer one: training never waits, and at most one upload is behind.
    """

    def __init__(self, objects: RemoteFiles, trial: str) -> None:
        self.objects = objects
        self.prefix = f"checkpoints/{trial}"
        self._turn = threading.Condition()  # guards what follows
        self._waiting: tuple[int, Path] | None = None  # step and file or folder of the newest checkpoint to send
        self._busy = False  # an upload is under way
        self._ended = False  # the trial has its record: uploads stop at their next chunk
        self._thread: threading.Thread | None = None

    def steps(self) -> list[int]:
        """Steps whose checkpoint is whole in the store, oldest first."""
        matches = map(_NAME.fullmatch, self.objects.names(self.prefix))
        return sorted(int(match[1]) for match in matches if match)

    def send(self, step: int, path: Path) -> None:
        """Upload a checkpoint, a file or a folder of files, when the one before it is up; returns at once."""
        with self._turn:
            self._waiting = (step, path)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="checkpoint-upload", daemon=True)
                self._thread.start()
            self._turn.notify_all()

    def settle(self, seconds: float = END_SECONDS) -> bool:
        """Wait until nothing is going up; False where that took too long."""
        with self._turn:
            return self._turn.wait_for(lambda: not self._busy and self._waiting is None, seconds)

    def fetch(self, folder: Path, newer_than: int) -> None:
        """Download the newest whole checkpoint into ``folder``, if it is of a later step than ``newer_than``.

        A copy that cannot be read is passed over for the one before it, as a damaged local checkpoint is. Raises
        `NoRoomError` where this machine's disk is full: an older copy would not fit either.
        """
        for step in reversed(self.steps()):
            if step <= newer_than:
                return
            try:
                self._download(step, folder)
                return
            except OSError as error:
                if no_room(error):
                    raise NoRoomError(folder) from None
                _log.warning("the uploaded checkpoint of step %d cannot be used (%s)", step, error)
            except (ValueError, KeyError, TypeError) as error:
                _log.warning("the uploaded checkpoint of step %d is damaged (%s)", step, error)

    def clear(self) -> None:
        """Remove the trial's checkpoints from the store."""
        with self._turn:
            self._waiting, self._ended = None, True
        self.settle()
        with contextlib.suppress(OSError):  # what stays is in nobody's way: the trial has its record
            self.objects.delete_tree(self.prefix)

    def _work(self) -> None:
        while True:
            with self._turn:
                self._turn.wait_for(lambda: self._waiting is not None)
                assert self._waiting is not None
                # Taken and marked busy under one lock, so that `settle` never sees neither.
                (step, path), self._waiting, self._busy = self._waiting, None, True
            try:
                if not self._ended:
                    self._upload(step, path)
            except OSError as error:
                _log.warning("the checkpoint of step %d was not uploaded (%s); the next one will be", step, error)
            finally:
                with self._turn:
                    self._busy = False
                    self._turn.notify_all()

    def _upload(self, step: int, path: Path) -> None:
        folder = f"step-{step:09d}~{secrets.token_hex(4)}"
        described: dict[str, Any] = {}
        with contextlib.ExitStack() as stack:
            # All open at once: a file that is dropped meanwhile can still be read to its end.
            files = sorted(path.iterdir()) if path.is_dir() else [path]
            opened = [(part.name, stack.enter_context(part.open("rb"))) for part in files]
            for name, file in opened:
                described[name] = self._put(file, f"{self.prefix}/{folder}/{name}")
        if self._ended:  # what was put of it goes with the whole folder (`clear`)
            return
        plain = {"step": step, "folder": folder, "whole": path.name, "files": described}
        self.objects.replace(f"{self.prefix}/step-{step:09d}.json", json.dumps(plain).encode())
        for old in self.steps()[:-KEPT]:
            self._remove(old)

    def _put(self, file: IO[bytes], name: str) -> dict[str, Any]:
        digest, size = hashlib.sha256(), 0
        with self.objects.writing(name) as stream:
            while not self._ended and (chunk := file.read(_CHUNK)):
                stream.write(chunk)
                digest.update(chunk)
                size += len(chunk)
        return {"bytes": size, "sha256": digest.hexdigest()}

    def _remove(self, step: int) -> None:
        name = f"{self.prefix}/step-{step:09d}.json"
        with contextlib.suppress(OSError, ValueError, KeyError):
            folder = json.loads(self.objects.read(name))["folder"]
            self.objects.delete(name)  # first: without a description nobody reads half a checkpoint
            self.objects.delete_tree(f"{self.prefix}/{_plain_name(folder)}")

    def _download(self, step: int, folder: Path) -> None:
        plain = json.loads(self.objects.read(f"{self.prefix}/step-{step:09d}.json"))
        source, whole = _plain_name(plain["folder"]), _plain_name(plain["whole"])
        aside = folder / f"{whole}.{secrets.token_hex(4)}.tmp"
        aside.mkdir(parents=True)
        try:
            for name, expected in plain["files"].items():
                self._get(f"{self.prefix}/{source}/{_plain_name(name)}", aside / name, expected)
            # A checkpoint of several ranks is a folder, whose name has no suffix; that of one process is a file.
            made = aside if whole.count(".") == 0 else aside / whole
            # There already: another process of this machine fetched it meanwhile.
            if not (folder / whole).exists():
                made.replace(folder / whole)
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def _get(self, name: str, target: Path, expected: dict[str, Any]) -> None:
        digest = hashlib.sha256()
        with self.objects.reading(name) as stream, target.open("wb") as file:
            while chunk := stream.read(_CHUNK):
                file.write(chunk)
                digest.update(chunk)
        if digest.hexdigest() != expected["sha256"]:
            raise ValueError(f"{name} does not match its checksum")


def _plain_name(name: Any) -> str:
    """A name without a path in it; raises ValueError for anything else that a description may hold.

    Whoever may write to the bucket must not be able to write elsewhere on the machines that read it.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._~-]{0,100}", name):
        raise ValueError(f"{name!r} is no file of a checkpoint")
    return name

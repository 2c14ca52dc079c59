"""A process that encodes units for its parent: ``python -m tuneopt.data.recipe.worker PIPE FOLDER``."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import traceback
from multiprocessing.connection import Connection
from pathlib import Path

import pyarrow as pa

from tuneopt.data.recipe.rows import Job
from tuneopt.data.recipe.units import Unit
from tuneopt.data.recipe.workers import encode_to_file
from tuneopt.spec import InputError


def work(pipe: Connection, folder: Path, parent: int) -> None:
    """Encode what arrives until the parent is gone: a unit that is done then is kept, what still waits is not begun."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group, and the parent decides
    pa.set_cpu_count(1)
    with contextlib.suppress(EOFError, OSError):
        job = pipe.recv()
        while True:
            unit = pipe.recv()
            if os.getppid() != parent:
                return
            pipe.send(_outcome(job, unit, folder))


def _outcome(job: Job, unit: Unit, folder: Path) -> tuple[str, str]:
    try:
        return "done", str(encode_to_file(job, unit, folder))
    except InputError as error:
        return "bad", str(error)
    except FileNotFoundError:
        raise  # the folder is gone, and with it whoever wanted the rows
    except OSError as error:
        return "full" if error.errno == errno.ENOSPC else "error", str(error)
    except Exception:
        return "error", traceback.format_exc()


if __name__ == "__main__":
    work(Connection(int(sys.argv[1])), Path(sys.argv[2]), os.getppid())

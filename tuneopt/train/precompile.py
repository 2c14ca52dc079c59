"""Compile a trial's kernels ahead of the workers that need them: ``python -m tuneopt.train.precompile SPEC``.

Ray takes ten seconds to start and its workers five to import torch. A process that compiles in the meantime leaves
its kernels in Inductor's cache of this machine, where the workers find them; who comes too early waits (`Engine`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from tuneopt.spec import TrialSpec


@contextmanager
def compiling(spec: TrialSpec, environment: Mapping[str, str]) -> Iterator[None]:
    """Compile the kernels of ``spec`` in a process beside this one; whatever is left undone at the end is dropped.

    ``environment`` is what the workers set beside this process's own: their kernels are to be the same.
    """
    command = [sys.executable, "-m", __name__, json.dumps(spec.to_dict())]
    process = subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    from tuneopt.train.engine import Engine

    Engine().prepare(TrialSpec.from_dict(json.loads(sys.argv[1])))

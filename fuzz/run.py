"""Fuzz one target under atheris, guided by coverage: ``python fuzz/run.py record --seconds 600``.

Needs the extra ``fuzz``. Data that breaks a target is written to fuzz/found/TARGET, where the tests try it again. An
exception is shown once for each place that raises it, and fuzzing goes on; what ends or holds up the process ends it.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import logging
import random
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import atheris

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

LARGEST = 64 * 1024
"""Bytes of an input; what larger ones do is a matter of the limits, which have tests of their own."""

with atheris.instrument_imports(include=["tuneopt", "yaml"]):
    import hostile
    import seeds
    import targets

    # Modules that a target imports late are watched as well, if they are imported here.
    SEEDS = seeds.seeds()
    for name, valid in SEEDS.items():
        for data in valid:
            targets.TARGETS[name](data)


def mutator(name: str) -> Callable[[bytes, int, int], bytes] | None:
    """What changes the document two times of three, and its bytes otherwise; None: bytes alone."""
    change: Callable[[bytes, random.Random], bytes]
    if name in targets.JSON_TARGETS:
        change = hostile.json_mutated
    elif name in targets.YAML_TARGETS:
        change = hostile.yaml_mutated
    elif name in targets.PARQUET_TARGETS:
        change = hostile.parquet_mutated
    else:
        return None

    def mutate(data: bytes, size: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.67:
            with contextlib.suppress(Exception):  # what is broken already is changed as bytes
                changed = change(data, rng)
                if 0 < len(changed) <= size:
                    return changed
        return bytes(atheris.Mutate(data, size))

    return mutate


def going_on(target: targets.Target, found: Path) -> targets.Target:
    """The target, with what breaks it written down once for each line that raised."""
    seen: set[tuple[str, int]] = set()

    def act(data: bytes) -> None:
        try:
            target(data)
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = last.filename, last.lineno or 0
            if where not in seen:
                seen.add(where)
                name = hashlib.sha256(data).hexdigest()[:16]
                (found / f"found-{name}").write_bytes(data)
                print(f"FOUND {name}: {type(error).__name__} at {where[0]}:{where[1]}: {error}"[:300], flush=True)

    return act


def main() -> None:
    """Run one target for some seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=sorted(targets.TARGETS))
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    found = HERE / "found" / asked.target
    found.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as corpus:
        for number, data in enumerate(SEEDS[asked.target]):
            (Path(corpus) / f"seed-{number}").write_bytes(data)
        options = [
            sys.argv[0], corpus, f"-max_total_time={asked.seconds}", f"-seed={asked.seed}", f"-max_len={LARGEST}",
            "-timeout=20", "-rss_limit_mb=3000", f"-artifact_prefix={found}/", "-print_final_stats=1", "-verbosity=1",
        ]  # fmt: skip
        mutate = mutator(asked.target)
        more = {} if mutate is None else {"custom_mutator": mutate}
        atheris.Setup(options, going_on(targets.TARGETS[asked.target], found), **more)
        atheris.Fuzz()


if __name__ == "__main__":
    main()

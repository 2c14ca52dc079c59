"""Fuzz one target under atheris, guided by coverage: ``python fuzz/run.py record --seconds 60``.

Needs the extra ``fuzz``. Data that breaks a target is written to fuzz/found/TARGET, where the tests try it again.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import warnings
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


def json_mutator(data: bytes, size: int, seed: int) -> bytes:
    """Change the document two times of three, its bytes otherwise."""
    rng = random.Random(seed)
    if rng.random() < 0.67:
        try:
            text = json.dumps(hostile.mutated(json.loads(data), rng))
        except (ValueError, RecursionError):
            text = ""
        if 0 < len(text) <= size:
            return text.encode(errors="surrogatepass")
    return bytes(atheris.Mutate(data, size))


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
    with tempfile.TemporaryDirectory() as corpus:
        for number, data in enumerate(seeds.seeds()[asked.target]):
            (Path(corpus) / f"seed-{number}").write_bytes(data)
        options = [
            sys.argv[0], corpus, f"-max_total_time={asked.seconds}", f"-seed={asked.seed}", f"-max_len={LARGEST}",
            "-timeout=20", "-rss_limit_mb=3000", f"-artifact_prefix={found}/", "-print_final_stats=1", "-verbosity=1",
        ]  # fmt: skip
        mutator = json_mutator if asked.target in targets.JSON_TARGETS else None
        if mutator is None:
            atheris.Setup(options, targets.TARGETS[asked.target])
        else:
            atheris.Setup(options, targets.TARGETS[asked.target], custom_mutator=mutator)
        atheris.Fuzz()


if __name__ == "__main__":
    main()

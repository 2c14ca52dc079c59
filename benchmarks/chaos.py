"""Kill anything, run again, same answer: a real sweep under seeded faults, compared with the undisturbed one.

    python benchmarks/chaos.py --faults 100 --seed 0 --json chaos.json [--markdown chaos.md]

A small study (two optimizers, real training at nano-65k) runs while workers, the driver, raylets and whole nodes are
killed or paused, files truncated, the disk filled, calls of the system let fail and clocks put wrong; after every end
the same command is run again. Every record and
the answer of the final ledger are compared with those of an undisturbed run. Results are appended to the JSON file
sweep by sweep; started again with the same arguments it goes on where it stopped (``--sweeps`` stops it after so many).
``--collect`` makes one table of several such files. It needs Linux, a gigabyte of memory for each Ray node, root for
the faults that fill a disk and a C compiler for errors and clocks (they are left out otherwise, and that is said).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))

from faults.episode import Episode, can_mount, undisturbed
from faults.plan import PLACES, WORLD, schedule
from faults.table import markdown
from faults.world import build, can_build

from tuneopt.data import load_corpus


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ratio", type=float, default=0.1, help="tokens of a trial over the Chinchilla optimum")
    parser.add_argument("--places", nargs="+", choices=PLACES, default=list(PLACES))
    parser.add_argument("--json", type=Path, default=Path("chaos.json"))
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--work", type=Path, help="scratch folder; default: a temporary one")
    parser.add_argument("--sweeps", type=int, default=1_000_000, help="stop after so many; the next call goes on")
    parser.add_argument("--collect", type=Path, nargs="+", help="only print the table of these files")
    given = parser.parse_args()
    if given.collect:
        print(markdown(*(json.loads(path.read_text()) for path in given.collect)))
        return 0
    work = given.work or Path(tempfile.gettempdir()) / f"tuneopt-chaos-{given.seed}"
    places = [place for place in given.places if place != "small disk" or can_mount()]
    without = () if can_build() else WORLD
    document = _load(given.json, vars(given), [*(place for place in given.places if place not in places), *without])
    faults = schedule(given.faults, given.seed, tuple(places), without)
    library = build(work) if can_build() else None
    left_to_do = given.sweeps
    cache = work / "cache"
    load_corpus("embedded", vocab_size=1024, cache_dir=cache)
    seconds = undisturbed(work / "undisturbed", cache, given.ratio)
    document["undisturbed_seconds"] = document.get("undisturbed_seconds") or seconds
    while left_to_do and (left := [fault for fault in faults if fault.number >= document["next"]]):
        left_to_do -= 1
        group = left[:8]
        group = group[: next((at for at, fault in enumerate(group) if fault.place != group[0].place), len(group))]
        folder = work / f"sweep-{len(document['sweeps']):03d}-{time.time_ns()}"
        episode = Episode(group[0].place, folder, cache, work / "undisturbed", given.ratio, library)
        began = time.monotonic()
        entry: dict[str, Any] = {"place": group[0].place, "faults": []}
        try:
            entry["faults"] = episode.disturb(group)
            entry |= episode.judge()
        except Exception:  # it is kept, it counts as a failure, and the faults go on
            entry["error"] = traceback.format_exc()
        finally:
            episode.close()
        entry["seconds"] = time.monotonic() - began
        document["sweeps"].append(entry)
        document["next"] += len(entry["faults"]) or ("error" in entry)
        _keep(given.json, document)
        print(_line(entry, document["next"], given.faults), flush=True)
        if _good(entry):
            shutil.rmtree(folder, ignore_errors=True)
    if given.markdown:
        given.markdown.write_text(markdown(document))
    return 0 if all(map(_good, document["sweeps"])) else 1


def _load(path: Path, given: dict[str, Any], left_out: list[str]) -> dict[str, Any]:
    asked = {name: given[name] for name in ("faults", "seed", "ratio", "places")}
    if path.exists():
        document: dict[str, Any] = json.loads(path.read_text())
        if document["asked"] != asked:
            raise SystemExit(f"{path} holds a run with other arguments ({document['asked']}); give another file")
        return document
    import ray
    import torch

    versions = {"python": platform.python_version(), "torch": torch.__version__, "ray": ray.__version__}
    where = {"cpus": os.cpu_count(), "machine": platform.machine(), "versions": versions}
    return {"asked": asked, "left_out": left_out, "where": where, "next": 0, "sweeps": []}


def _keep(path: Path, document: dict[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(document, indent=1))
    temporary.replace(path)


def _good(entry: dict[str, Any]) -> bool:
    if "error" in entry:
        return False
    harmless = not any(entry[name] for name in ("lost", "doubled", "different", "verify", "stuck", "bad ends"))
    return harmless and entry["same answer"] and all(cost["within"] or cost["excused"] for cost in entry["work lost"])


def _line(entry: dict[str, Any], done: int, wanted: int) -> str:
    kinds = ", ".join(fault["kind"] for fault in entry["faults"])
    verdict = "same answer" if _good(entry) else "NOT THE SAME"
    starts = entry.get("starts", "?")
    return f"{done}/{wanted} {entry['place']}: {kinds}: {starts} starts, {entry['seconds']:.0f} s, {verdict}"


if __name__ == "__main__":
    sys.exit(main())

"""Preparing a corpus: `tuneopt data prepare` against `datasets.map`, with one tokenizer and as many processes.

    python benchmarks/data_prepare.py                                   # 100 MB and 1 GB of text, two processes
    python benchmarks/data_prepare.py --megabytes 100 --workers 4

The text is the embedded corpus, repeated with a number in front of every document. Ours counts from JSON lines to
verified shards: reading, hashing, splitting, tokenizing, mixing, checksums. The peer's time is that of its `map` alone,
the fastest call its tokenizer has; reading the JSON lines into its own format comes before and is listed apart. Then
the largest size is prepared again with one process, and with two that are killed in the middle and started again; the
shards must be the same bytes. Memory is the sum over all processes of their proportional share (PSS), sampled five
times a second. Writes OUT.md and OUT.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

FILES = 8
SECONDS = 0.2
PACKAGES = ("tuneopt", "datasets", "tokenizers", "pyarrow")

PEER = """
import json, sys, time
from tokenizers import Tokenizer
import datasets
datasets.disable_progress_bars()
files, tokenizer_file, workers, cache, outcome = json.loads(sys.argv[1])
begin = time.monotonic()
data = datasets.load_dataset("json", data_files=files, split="train", cache_dir=cache, num_proc=workers)
loaded = time.monotonic()
tokenizer = Tokenizer.from_file(tokenizer_file)
def tokens(batch):
    return {"ids": [one.ids for one in tokenizer.encode_batch_fast(batch["text"], add_special_tokens=False)]}
mapped = data.map(tokens, batched=True, num_proc=workers, remove_columns=["text"])
end = time.monotonic()
import pyarrow.compute as pc
count = sum(pc.sum(pc.list_value_length(chunk)).as_py() for chunk in mapped.data["ids"].chunks)
json.dump({"load": loaded - begin, "map": end - loaded, "documents": len(mapped), "tokens": count}, open(outcome, "w"))
"""


class Watched:
    """A command with its wall time, CPU seconds and peak memory, its children counted."""

    def __init__(self, command: list[str], log: Path) -> None:
        self.peak = 0
        environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        before = os.times()
        begin = time.monotonic()
        with log.open("w") as stream:
            self.process = subprocess.Popen(command, stdout=stream, stderr=stream, env=environment)
        watcher = threading.Thread(target=self._watch)
        watcher.start()
        code = self.process.wait()
        watcher.join()
        after = os.times()
        self.seconds = time.monotonic() - begin
        self.cpu = after.children_user + after.children_system - before.children_user - before.children_system
        if code:
            raise SystemExit(f"{command[:4]} failed:\n{log.read_text()[-2000:]}")

    def _watch(self) -> None:
        while self.process.poll() is None:
            self.peak = max(self.peak, memory(self.process.pid))
            time.sleep(SECONDS)


def memory(pid: int) -> int:
    """Bytes of a process and its descendants, each page counted once."""
    total = 0
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return 0
    for one in family:
        try:
            total += one.memory_full_info().pss
        except psutil.Error:
            continue
    return total


def write_text(folder: Path, size: int) -> list[Path]:
    """About ``size`` bytes of JSON lines in a few files."""
    from tuneopt.data.sources import EmbeddedSource

    documents = list(EmbeddedSource().documents())
    paths = [folder / f"text-{number}.jsonl" for number in range(FILES)]
    written = copy = 0
    streams = [path.open("w") for path in paths]
    while written < size:
        for number, text in enumerate(documents):
            line = json.dumps({"text": f"{copy} {number}\n{text}"}, ensure_ascii=False) + "\n"
            streams[number % FILES].write(line)
            written += len(line.encode())
            if written >= size:
                break
        copy += 1
    for stream in streams:
        stream.close()
    return paths


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a corpus."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def ours(recipe: Path, out: Path, workers: int, log: Path) -> tuple[Watched, dict[str, Any]]:
    command = [sys.executable, "-m", "tuneopt", "data", "prepare", str(recipe), "--out", str(out)]
    watched = Watched([*command, "--workers", str(workers)], log)
    return watched, json.loads((out / "manifest.json").read_text())


def killed(recipe: Path, out: Path, workers: int, log: Path, shards: int) -> int:
    """Start a preparation and kill its driver with -9 after half of the shards; how many there were then."""
    command = [sys.executable, "-m", "tuneopt", "data", "prepare", str(recipe), "--out", str(out)]
    with log.open("w") as stream:
        process = subprocess.Popen([*command, "--workers", str(workers)], stdout=stream, stderr=stream)
    while process.poll() is None and len(list(out.glob("train-*[0-9].arrow"))) < max(1, shards // 2):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return len(list(out.glob("train-*[0-9].arrow")))


def compare(size: int, workers: int, vocabulary: int, folder: Path, last: bool) -> dict[str, Any]:
    """One size of text: ours and the peer's; for the last size also one process, and a kill."""
    from tuneopt.data import load_corpus

    text = folder / f"text-{size}"
    text.mkdir()
    paths = write_text(text, size * 10**6)
    tokenizer = load_corpus(vocab_size=vocabulary).folder / "tokenizer.json"
    recipe = folder / f"recipe-{size}.yaml"
    recipe.write_text(
        f"name: blown-up\ntokenizer: {{file: {tokenizer}}}\n"
        f"sources:\n  text: {{files: {text}, weight: 1}}\nevaluation: {{held_out: 0.01}}\nshard_tokens: 16777216\n"
    )
    row: dict[str, Any] = {"megabytes": sum(path.stat().st_size for path in paths) / 1e6, "workers": workers}
    out = folder / f"ours-{size}"
    watched, manifest = ours(recipe, out, workers, folder / "ours.log")
    splits = manifest["splits"].values()
    row["tokens"] = sum(split["tokens"] for split in splits)
    row["documents"] = sum(split["documents"] for split in splits)
    row["ours"] = {"seconds": watched.seconds, "cpu_seconds": watched.cpu, "peak_bytes": watched.peak}
    print(row, flush=True)
    if last:
        expected = digests(out)
        shards = len(manifest["splits"]["train"]["shards"])
        row["shards"] = shards
        for name, count in (("one", 1), ("killed", workers)):
            other = folder / f"other-{name}"
            if name == "killed":
                row["killed_after_shards"] = killed(recipe, other, count, folder / "killed.log", shards)
            single, _ = ours(recipe, other, count, folder / f"{name}.log")
            row[f"seconds_{name}"] = single.seconds
            row[f"same_bytes_{name}"] = digests(other) == expected
            shutil.rmtree(other)
        print(row, flush=True)
    shutil.rmtree(out)
    outcome = folder / "peer.json"
    arguments = json.dumps([list(map(str, paths)), str(tokenizer), workers, str(folder / "cache"), str(outcome)])
    peer = Watched([sys.executable, "-c", PEER, arguments], folder / "peer.log")
    said = json.loads(outcome.read_text())
    row["peer"] = {"seconds": peer.seconds, "cpu_seconds": peer.cpu, "peak_bytes": peer.peak, **said}
    row["same_tokens"] = said["tokens"] + said["documents"] == row["tokens"]
    row["ratio"] = said["map"] / watched.seconds
    row["ratio_cpu"] = peer.cpu / watched.cpu
    print(row, flush=True)
    shutil.rmtree(folder / "cache")
    shutil.rmtree(text)
    return row


COLUMNS = (
    "text, MB", "tokens", "ours, s", "map alone, s", "its load, s", "ratio", "ratio of CPU seconds", "our peak, MB",
    "its peak, MB",
)  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    for row in rows:
        mine, peer = row["ours"], row["peer"]
        cells = (
            f"{row['megabytes']:.0f}", f"{row['tokens']:,}", f"{mine['seconds']:.1f}", f"{peer['map']:.1f}",
            f"{peer['load']:.1f}", f"{row['ratio']:.2f}", f"{row['ratio_cpu']:.2f}", f"{mine['peak_bytes'] / 1e6:.0f}",
            f"{peer['peak_bytes'] / 1e6:.0f}",
        )  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    last = rows[-1]
    lines += [
        "",
        f"Same bytes with one process ({last['seconds_one']:.1f} s): {last['same_bytes_one']}. After kill -9 behind "
        f"{last['killed_after_shards']} of {last['shards']} shards and a second start "
        f"({last['seconds_killed']:.1f} s): {last['same_bytes_killed']}. "
        f"Token counts equal the peer's: {all(row['same_tokens'] for row in rows)}.",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--vocabulary", type=int, default=32_768)
    parser.add_argument("--folder", type=Path, help="where the text and the corpora go for a while")
    parser.add_argument("--out", type=Path, default=Path("data_prepare"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        sizes = sorted(options.megabytes)
        rows = [compare(size, options.workers, options.vocabulary, Path(folder), size == sizes[-1]) for size in sizes]
    setting = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "versions": {name: metadata.version(name) for name in PACKAGES},
        "vocabulary": options.vocabulary,
    }
    options.out.with_suffix(".json").write_text(json.dumps({"setting": setting, "rows": rows}, indent=1) + "\n")
    options.out.with_suffix(".md").write_text(f"{json.dumps(setting)}\n\n{table(rows)}\n")
    print(table(rows))


if __name__ == "__main__":
    main()

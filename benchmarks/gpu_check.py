"""The first ten minutes on a GPU: one command that says whether the path is right, how fast it is, and where it is not.

    python benchmarks/gpu_check.py                        # one CUDA device; at most 560 s
    python benchmarks/gpu_check.py --device cpu --toy     # the same logic at toy size, without a GPU

It needs torch (with triton), numpy, pyarrow and tokenizers, and this source tree. Each stage (`gpu_stages.py`) is a
process with a time limit of its own, so that one that hangs or runs out of memory takes nothing with it: what it had
measured by then is kept. After each stage a JSON line is printed; a table, measured beside predicted, comes last and
goes to OUT.md, the lines to OUT.jsonl. Predictions are for one H200 and come from counts on a pretended device
(docs/benchmarks.md). Exit code 1 where a stage failed or a check did not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FACT = "fact "
"""What a line of a stage begins with that holds one measurement."""

SECONDS = 560.0
"""Of all stages together: what a machine that is lent for ten minutes leaves after its start."""


@dataclass(frozen=True)
class Stage:
    """A stage by its name in `gpu_stages`, and the seconds that it may take."""

    name: str
    limit: float


STAGES = (
    Stage("ceilings", 50),
    Stage("optimizers", 110),
    Stage("small", 90),
    Stage("steps", 110),
    Stage("large", 110),
    Stage("head", 60),
    Stage("soap", 60),
    Stage("sophia", 40),
)

PREDICTED: Mapping[str, str] = {
    "ceilings.copy": "4.3",
    "ceilings.products_bf16": "788",
    "ceilings.products_fp32": "50",
    "small.seconds_per_524288_tokens": "3.0, before the changes to the head",
    "small.mfu": "28% to 33%",
    "large.seconds_per_524288_tokens": "11.4, before the changes to the head",
    "large.mfu": "45% to 48%",
    "steps.adamw": "16",
    "steps.lion": "30",
    "steps.mars": "26",
    "steps.nadamw": "29",
    "steps.adam_mini": "22",
    "steps.cautious": "82",
    "steps.sophia": "36",
    "steps.kron": "450",
    "steps.muon_fp32": "950",
    "steps.muon_tf32": "150",
    "steps.muon_bf16": "130",
    "steps.soap": "130",
}
"""What was expected of one H200 before anything had run, by fact; units are the facts' own."""


def run_stage(stage: Stage, device: str, toy: bool, seconds: float) -> dict[str, Any]:
    """The outcome of one stage: ``status``, ``seconds``, its facts, and the last line of what went wrong."""
    began = time.perf_counter()
    if seconds < 5:
        return {"stage": stage.name, "status": "left out", "seconds": 0.0, "facts": {}, "error": "no time was left"}
    command = [sys.executable, str(Path(__file__).with_name("gpu_stages.py")), stage.name, "--device", device]
    environment = {"PYTORCH_ALLOC_CONF": "expandable_segments:True", **os.environ}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command + ["--toy"] * toy, stdout=out, stderr=errors, env=environment, start_new_session=True
        )
        try:
            code: int | None = process.wait(min(stage.limit, seconds))
        except subprocess.TimeoutExpired:
            code = None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # compilers are children of it
                process.wait()
        out.seek(0)
        errors.seek(0)
        facts = facts_of(out.read().splitlines())
        words = [line.strip() for line in errors.read().splitlines() if line.strip()]
    status = "cut at its limit" if code is None else "done" if code == 0 else "failed"
    wrong = [name for name, fact in facts.items() if fact.get("holds") is False]
    if status == "done" and wrong:
        status = "does not hold: " + ", ".join(wrong)
    error = words[-1] if status == "failed" and words else ""
    spent = round(time.perf_counter() - began, 1)
    return {"stage": stage.name, "status": status, "seconds": spent, "facts": facts, "error": error}


def facts_of(lines: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The facts among the lines of a stage; a line that was cut off in the middle is left out."""
    facts = {}
    for line in lines:
        if line.startswith(FACT):
            try:
                plain = json.loads(line.removeprefix(FACT))
            except json.JSONDecodeError:
                continue
            facts[plain.pop("name")] = plain
    return facts


def table(outcomes: Sequence[Mapping[str, Any]], device: str, toy: bool) -> str:
    """Markdown: a row for each fact, then one for each stage that did not end well."""
    lines = [f"- Date: {datetime.now(UTC).date().isoformat()}; device {device}{', toy size: no figure counts' * toy}"]
    lines += ["", "| stage | fact | measured | predicted |", "|---|---|---|---|"]
    for outcome in outcomes:
        for name, fact in outcome["facts"].items():
            expected = "" if toy else PREDICTED.get(f"{outcome['stage']}.{name}", "")
            verdict = {True: "yes", False: "NO"}.get(fact.get("holds"), "")  # type: ignore[arg-type]
            cell = " ".join(filter(None, [verdict, shown(fact.get("value")), fact.get("unit", "")]))
            lines.append(f"| {outcome['stage']} | {name} | {cell} | {expected} |")
    lines += ["", "| stage | status | seconds | error |", "|---|---|---|---|"]
    lines += [f"| {o['stage']} | {o['status']} | {o['seconds']:.0f} | {o['error'][:160]} |" for o in outcomes]
    return "\n".join(lines) + "\n"


def shown(value: Any) -> str:
    """A value in a cell: numbers to four digits, lists as their first entries."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return "; ".join(map(str, value[:3]))
    return "" if value is None else str(value)


def main(words: list[str] | None = None) -> int:
    """Run the stages; 1 where one of them failed or something does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--toy", action="store_true", help="tiny shapes: tries the logic and times nothing of interest")
    parser.add_argument("--only", help="stages, comma-separated; default: " + ",".join(s.name for s in STAGES))
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of all stages together (default: %(default)g)")
    parser.add_argument("--out", type=Path, help="path without suffix; default: reports/gpu-check-DEVICE")
    wanted = parser.parse_args(words)
    known = {stage.name: stage for stage in STAGES}
    names = wanted.only.split(",") if wanted.only else list(known)
    if unknown := [name for name in names if name not in known]:
        parser.error(f"unknown stage {unknown[0]!r}; known: {', '.join(known)}")
    out: Path = wanted.out or Path("reports") / f"gpu-check-{wanted.device}"
    out.parent.mkdir(parents=True, exist_ok=True)
    began, outcomes = time.perf_counter(), []
    with out.with_suffix(".jsonl").open("w") as lines:
        for name in names:
            left = wanted.seconds - (time.perf_counter() - began)
            outcomes.append(run_stage(known[name], wanted.device, wanted.toy, left))
            line = json.dumps(outcomes[-1])
            print(line, flush=True)
            lines.write(line + "\n")
            lines.flush()
    text = table(outcomes, wanted.device, wanted.toy)
    out.with_suffix(".md").write_text(text)
    print(text, end="")
    return int(any(outcome["status"] != "done" for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())

"""Runs every command of a table while single calls of the system fail, in a process of `faults.world`.

``python faulty_commands.py FOLDER COMMANDS SAMPLES KINDS`` with the library in LD_PRELOAD. FOLDER holds what `make`
made; for each command and KINDS kinds of error, the first call that can fail, the last and SAMPLES others between them
fail, once and from then on. Prints a JSON list with a row for each: what the command did, what it left, and how it did
afterwards.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import re
import shlex
import shutil
import sys
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

TRAINED = "-O adamw --scale 1x16,seq=32 --corpus text.txt --ratio 1 --set train_batch_size=8 --no-compile"

COMMANDS = {
    "space": "space ./space.py --json",
    "scale": "scale show scale.yaml --json",
    "predict": "predict -O soap --params 1e6 --ratio 1 --ledger L --json",
    "report of a CSV": "report --results t.csv -o out/r.html --json",
    "report of JSON": "report --results t.json -o out/r.html --figures out/figures --json",
    "report of a ledger": "report --ledger L -o out/r.html --json",
    "ledger ls": "ledger ls --ledger L --json",
    "ledger show": "ledger show TRIAL --ledger L --json",
    "ledger logs": "ledger logs TRIAL --ledger L --json",
    "ledger verify": "ledger verify --ledger L --json",
    "ledger mend": "ledger mend --ledger L --json",
    "ledger compact": "ledger compact --ledger L --json",
    "ledger clean": "ledger clean --ledger L --json",
    "ledger export CSV": "ledger export out/x.csv --ledger L --json",
    "ledger export Parquet": "ledger export out/x.parquet --ledger L --json",
    "ledger export Optuna": "ledger export out/x.db --ledger L --json",
    "data inspect": "data inspect --corpus text.txt --json",
    "data prepare": "data prepare recipe.yaml --out out/c --workers 0 --json",
    "study plan": "study plan study.yaml --ledger L --json",
    "study status": "study status study.yaml --ledger L --json",
    "compare": "compare soap --corpus text.txt --minutes 5 --dry-run --save out/plan.yaml --ledger L --json "
    "--tokens-per-second 1e5",
    "tune, dry": f"tune {TRAINED} --ledger L --dry-run --json",
    "train": f"train {TRAINED} --ledger out/L --json",
    "tune": f"tune {TRAINED} --ledger out/L --backend inline --max-trials 2 -o out/t.html --json",
}

CHANGING = ("train", "tune", "ledger clean", "data prepare", "report of a ledger")
"""Commands whose document holds times or names of what was there before: it is not compared."""

NEW = re.compile(r'"added": \d+')
"""What a command says of the place that it wrote to: the next one finds there what the last one had time to write."""

LEFT_ON_PURPOSE = (
    "logs/",
    "checkpoints/",
    ".lock",
    ".tuneopt-",
    "tuneopt-traceback",
    "leases/",
    ".preparing",
    ".building",
    "/runs/",
)
"""Parts of names of files that may stay: logs and accounts of runs say what happened, and the next command removes or
uses the others."""

UNDELETED = (".tmp", ".part")
"""What may stay besides where every call fails from one on, that which deletes too: the next run removes or replaces
it, once the process that wrote it is dead."""

SPACE = """
from tuneopt.search.space import SearchSpace, learning_rate, train_batch_size, warmup, weight_decay
FIXED = {"lr_schedule": "cosine", "min_lr_ratio": 0, "max_grad_norm": 1}
SPACE = SearchSpace(
    optimizer="adamw",
    coordinates=(
        learning_rate({"nano": (0.1, 0.2), "paper": (0.1, 0.2)}, {"nano": 0.1, "paper": 0.1}),
        train_batch_size(), warmup(), weight_decay(),
    ),
    fixed={"nano": FIXED, "paper": FIXED}, source="me", grid_source="by trying",
)
"""

RECIPE = """
name: small
tokenizer: {train: 300}
tokens: 10000
sources:
  own: {files: text.txt, weight: 1}
evaluation: {held_out: 0.05}
"""


def make(folder: Path) -> None:
    """Fill a folder with what the commands read: two sweeps in a ledger, tables, texts and files of a user."""
    sys.path.insert(0, str(ROOT / "tests" / "reporting"))
    from report_samples import make_sweep, run_sweep

    from tuneopt.ledger import Ledger
    from tuneopt.ledger.logs import TrialLog

    source = random.Random(0)
    words = ["".join(source.choice("aeioulnstrmdk") for _ in range(source.randint(2, 9))) for _ in range(3000)]
    documents = [" ".join(source.choices(words, k=100)) for _ in range(300)]
    (folder / "text.txt").write_text("\n<|endoftext|>\n".join(documents))
    rows = [
        {"optimizer": name, "scale": "nano-65k", "ratio": ratio, "seed": seed, "loss": 3.5 - 0.1 * ratio + 1e-3 * seed}
        for name in ("adamw", "muon") for ratio in (1, 2, 4) for seed in range(3)
    ]  # fmt: skip
    lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
    (folder / "t.csv").write_text("\n".join(lines))
    (folder / "t.json").write_text(json.dumps(rows))
    (folder / "space.py").write_text(SPACE)
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "scale.yaml").write_text("name: mine\nlayers: 2\nd_model: 64\n")
    shutil.copy(ROOT / "studies" / "smoke.yaml", folder / "study.yaml")
    ledger = Ledger(folder / "L")
    run_sweep(ledger, make_sweep("soap", ratio=1))
    trial = min(ledger.ids())
    TrialLog(ledger, trial).write("start", config={})
    ledger.put_run({"run": [trial]})
    shutil.copytree(folder / "L", folder.with_name("kept"))


def call(words: list[str]) -> tuple[object, str, str]:
    """A command in this process: its exit code, stdout and stderr."""
    from tuneopt import cli

    out, err = io.StringIO(), io.StringIO()
    sys.argv = ["tuneopt", *words]
    code: object
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = cli._run()
        except BaseException:
            code = traceback.format_exc()
    return code, out.getvalue(), err.getvalue()


def main() -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from faults.world import ERRORS, World

    folder, chosen, samples, most = Path(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    os.chdir(folder)
    world = World(Path(os.environ["TUNEOPT_CHAOS_WORLD"]), Path(os.environ["LD_PRELOAD"]), (folder, folder))
    trial = min(path.stem for path in (folder / "L" / "trials").iterdir())
    rows = []

    def begin() -> None:
        world.mend()
        for place in ("out", "L"):
            shutil.rmtree(folder / place, ignore_errors=True)
        (folder / "out").mkdir()
        shutil.copytree(folder.with_name("kept"), folder / "L")

    def files() -> set[str]:
        return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}

    for turn, name in enumerate(chosen):
        words = shlex.split(COMMANDS[name].replace("TRIAL", trial))
        for _ in range(2):  # the second time nothing is imported or cached any more
            begin()
            usual = call(words)
        whole = files()
        left_to_try = most
        for kind in [*list(ERRORS)[turn % len(ERRORS) :], *list(ERRORS)[: turn % len(ERRORS)]]:  # each has its turn
            begin()
            world.fail(kind, 0, 600)
            call(words)
            count = world.asked
            if not count or not left_to_try:  # a command that only reads never hears of a full disk
                continue
            left_to_try -= 1
            between = random.Random(f"{name} {kind}").sample(range(count), min(samples, count))
            for number in sorted({0, count - 1, *between}) if count else ():
                for last in (number + 1, 1 << 60):
                    begin()
                    before = files()
                    world.fail(kind, 1, 600, 0, (number, last))
                    code, out, err = call(words)
                    world.mend()
                    may = LEFT_ON_PURPOSE if last == number + 1 else (*LEFT_ON_PURPOSE, *UNDELETED)
                    left = sorted(path for path in files() - before - whole if not any(part in path for part in may))
                    again = call(words)
                    same = name in CHANGING or NEW.sub("", again[1]) == NEW.sub("", usual[1])
                    rows.append(
                        {
                            "command": name, "kind": kind, "call": f"{number} of {count}", "once": last == number + 1,
                            "code": code, "usual": usual[0], "out": out[:200], "err": err[-600:], "left": left,
                            "same": name in CHANGING or code != usual[0] or out == usual[1],
                            "again": again[0], "again same": same, "again err": again[2][-300:],
                        }
                    )  # fmt: skip
    print(json.dumps(rows), file=sys.__stdout__)


if __name__ == "__main__":
    main()

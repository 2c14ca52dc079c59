"""The chaos harness: its schedule, what it counts as lost, and that it would notice a wrong ledger."""

import dataclasses
import importlib
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from tuneopt.ledger import CurvePoint, Ledger, TrialRecord
from tuneopt.scale_files import find_scale
from tuneopt.spec import CorpusId, Regime, TrialSpec

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    names = ("plan", "lives", "compare", "table", "inject", "episode")
    return SimpleNamespace(**{name: importlib.import_module(f"faults.{name}") for name in names})


def test_a_seed_fixes_the_schedule(faults) -> None:
    first = faults.plan.schedule(100, 0)
    assert first == faults.plan.schedule(100, 0) != faults.plan.schedule(100, 1)
    assert [fault.number for fault in first] == list(range(100))
    counts = Counter((fault.place, fault.kind) for fault in first)
    assert max(counts.values()) - min(counts.values()) <= 1, "every kind about equally often"
    assert {fault.place for fault in faults.plan.schedule(50, 0, ("three nodes",))} == {"three nodes"}
    assert all(fault.kind in faults.inject._HARMS for fault in first)


def life(faults, **changes):
    base = faults.lives.Life("t", 1, 0, 0, 100.0, 20, 110.0, 18, 109.0, 0.5, 0.5, False)
    return dataclasses.replace(base, **changes)


def test_work_lost_is_what_the_successor_trained_again(faults) -> None:
    killed, successor = life(faults), life(faults, pid=2, born=1, first_step=18, began=120.0, ended=True)
    (cost,) = faults.lives.losses([killed, successor], [])
    assert cost["steps"] == 2 and cost["seconds"] == 1.0 and cost["within"] and not cost["excused"]
    late = life(faults, saved_step=4, saved_at=103.0)
    (cost,) = faults.lives.losses([late, dataclasses.replace(successor, first_step=4)], [])
    assert cost["steps"] == 16 and not cost["within"], "more than an interval was lost, and that counts"
    (cost,) = faults.lives.losses([killed, dataclasses.replace(successor, first_step=12)], [])
    assert cost["excused"] == "older checkpoint"
    (cost,) = faults.lives.losses([late, dataclasses.replace(successor, first_step=4)], [(105.0, 112.0)])
    assert cost["excused"] == "no writing"
    first = life(faults, step=3, saved_step=0, saved_at=100.0)
    (cost,) = faults.lives.losses([first, dataclasses.replace(successor, first_step=0)], [])
    assert cost["excused"] == "first steps"
    assert faults.lives.losses([life(faults, ended=True), successor], []) == []
    assert faults.lives.losses([killed, dataclasses.replace(successor, began=105.0)], []) == [], "both at once"


def test_the_eyes_see_every_step_of_a_real_training(faults, tmp_path: Path) -> None:
    """In a process of its own, through sitecustomize, as the harness uses them."""
    script = tmp_path / "train.py"
    script.write_text(
        "import sys, random\n"
        "from pathlib import Path\n"
        "from tuneopt.data import load_corpus\n"
        "from tuneopt.spec import Evaluation, Regime, Scale, TrialSpec\n"
        "from tuneopt.training.loop import Training\n"
        "folder = Path(sys.argv[1])\n"
        "(folder / 'text').mkdir()\n"
        "words = 'the sea ship storm captain whale over dark night'.split()\n"
        "for n in range(200):\n"
        "    text = ' '.join(random.Random(n).choice(words) for _ in range(120))\n"
        "    (folder / 'text' / f'{n}.txt').write_text(text)\n"
        "corpus = load_corpus(str(folder / 'text'), vocab_size=272, cache_dir=folder / 'cache')\n"
        "scale = Scale('tiny', 'nano', layers=1, d_model=16, d_ff=64, heads=1, seq_len=32)\n"
        "config = dict(learning_rate=0.01, weight_decay=0.1, beta1=0.9, beta2=0.95, epsilon=1e-8, max_grad_norm=1.0,\n"
        "              train_batch_size=8, warmup=0.1, min_lr_ratio=0.0, lr_schedule='cosine')\n"
        "spec = TrialSpec('adamw', TrialSpec.freeze(config), Regime(scale, 0.1, corpus.id), micro_batch=8,\n"
        "                 evaluation=Evaluation(points=4, curve_sequences=16, final_sequences=32))\n"
        "training = Training(spec, corpus, folder / 'checkpoints')\n"
        "for _ in range(7):\n"
        "    training.train_step()\n"
        "training.save()\n"
        "training.train_step()\n"
        "print(spec.id)\n"
    )
    eyes = tmp_path / "eyes"
    eyes.mkdir()
    environment = {
        "PATH": "/usr/bin:/bin", "PYTHONPATH": f"{BENCHMARKS / 'faults' / 'eyes'}:{ROOT}", "OMP_NUM_THREADS": "1",
        "TUNEOPT_CHAOS_EYES": str(eyes), "HOME": str(tmp_path),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], env=environment, capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stderr
    (seen,) = faults.lives.lives(eyes)
    assert (seen.trial, seen.first_step, seen.step, seen.saved_step) == (done.stdout.strip(), 0, 8, 7)
    assert not seen.ended and not seen.alive and seen.pause == 10.0
    assert seen.began <= seen.saved_at <= seen.step_at <= time.monotonic()


def record(seed: int, loss: float = 3.5, seconds: float = 1.0) -> TrialRecord:
    regime = Regime(find_scale("nano-65k"), 0.1, CorpusId("none", "0000", 1024))
    spec = TrialSpec("adamw", TrialSpec.freeze({"train_batch_size": 16, "learning_rate": 0.01}), regime, seed=seed)
    curve = (CurvePoint(spec.steps, regime.tokens, 0.0, loss, loss, loss, seconds),)
    return TrialRecord(
        trial=spec.id, status="completed", spec=spec, select_loss=loss, report_loss=loss, initial_loss=7.0, curve=curve,
        tokens=regime.tokens, steps=spec.steps, epochs=0.1, flops=1.0,
        seconds={"train": seconds, "eval": 0.0, "startup": 0.0, "checkpoint": 0.0}, peak_bytes=None,
        checkpoint_bytes=None, optimizer_state_bytes=None, proof={"passed": True, "checks": []}, routing=(),
        environment={}, started="2026-01-01T00:00:00+00:00", ended="2026-01-01T00:00:01+00:00", resumes=0,
        tokens_per_second=1.0,
    )  # fmt: skip


def test_a_record_counts_by_its_result_and_not_by_its_times(faults, tmp_path: Path) -> None:
    final, reference = Ledger(tmp_path / "final"), Ledger(tmp_path / "reference")
    for seed in range(3):
        reference.put(record(seed))
        final.put(dataclasses.replace(record(seed, seconds=9.0), resumes=2, ended="2026-01-02T00:00:01+00:00"))
    found = faults.compare.compare(final, reference, set(reference.ids()), tmp_path)
    assert found == {"records": 3, "lost": [], "different": [], "trained twice": [], "ahead": 0}


def test_lost_and_different_records_are_noticed(faults, tmp_path: Path) -> None:
    final, reference = Ledger(tmp_path / "final"), Ledger(tmp_path / "reference")
    for seed in range(3):
        reference.put(record(seed))
    final.put(record(0))
    final.put(record(1, loss=3.5000000000000004))
    for _ in range(2):
        final.put_run({"run": [record(0).trial]})
    found = faults.compare.compare(final, reference, set(reference.ids()), tmp_path)
    assert found["lost"] == [record(2).trial] and found["different"] == [record(1).trial]
    assert found["trained twice"] == [record(0).trial]


def test_the_table_counts_what_the_document_holds(faults) -> None:
    fault = {"kind": "kill driver", "did": "driver", "began": 10.0, "back_seconds": 4.0, "driver": [{"code": -9}]}
    cost = {"at": 10.5, "steps": 3, "seconds": 0.4, "excused": "", "within": True}
    sweep = {
        "place": "this machine", "faults": [fault, {**fault, "kind": "kill worker", "began": 20.0, "driver": []}],
        "lost": [], "doubled": [], "different": ["x"], "same answer": True, "work lost": [cost],
    }  # fmt: skip
    text = faults.table.markdown(json.loads(json.dumps({"sweeps": [sweep]})))
    assert "| this machine | kill driver | 1 | 1 | 3, 3 | 1 of 1 |" in text
    assert "| this machine | kill worker | 1 | 0 | - | 1 of 1 |" in text
    assert "2 faults in 1 sweeps: 0 records lost, 0 written twice, 1 different" in text
    assert "1 trials went on after a kill from their newest checkpoint, 1 of them with at most one" in text


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_few_faults_leave_the_same_answer(tmp_path: Path) -> None:
    """The whole harness, as from the command line: real training, real kills."""
    command = [sys.executable, str(BENCHMARKS / "chaos.py"), "--faults", "4", "--seed", "7", "--ratio", "0.03"]
    command += ["--places", "this machine", "--json", str(tmp_path / "chaos.json"), "--work", str(tmp_path / "work")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1450, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads((tmp_path / "chaos.json").read_text())
    assert sum(len(sweep["faults"]) for sweep in document["sweeps"]) == 4
    for sweep in document["sweeps"]:
        assert sweep["same answer"] and not sweep["lost"] and not sweep["doubled"] and not sweep["different"]

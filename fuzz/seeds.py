"""Valid data of every format, from which fuzzing starts."""

from __future__ import annotations

import io
import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tuneopt.ledger import CurvePoint, TrialRecord
from tuneopt.ledger.place import marker_text
from tuneopt.scale_files import find_scale
from tuneopt.search.space import load_space
from tuneopt.search.sweep import Sweep
from tuneopt.spec import CorpusId, Regime, TrialSpec

ROOT = Path(__file__).resolve().parents[1]

RECIPE = """\
name: mixture
tokenizer: {train: 32768}
tokens: 2e6
when_exhausted: stop
sources:
  web: {files: [web/*.parquet], weight: 3.8}
  code: {files: [code/*.parquet], text: content, weight: 0.25}
"""

WORDS = "learning_rate=0.01\nbeta1=0.9\nbeta2=0.95,0.98\nwarmup=0.1,0.2\nweight_decay=0.1\nepsilon=1e-8\n"

RESULTS: list[dict[str, Any]] = [
    {
        "optimizer": name, "scale": scale, "ratio": ratio, "loss": 3.5 - 0.1 * place, "seed": 0, "corpus": "text",
        "hp_learning_rate": 0.01, "seconds": 10.0, "flops": 1e12, "curve": [[0.5, 4.0], [1.0, 3.5]],
        "trial": f"{name}-{scale}-{ratio}", "config": {"beta1": 0.9},
    }
    for place, name in enumerate(("adamw", "muon"))
    for scale in ("nano-65k", "nano-147k")
    for ratio in (1, 2)
]  # fmt: skip

TRACKED: list[dict[str, Any]] = [
    {
        "name": f"run-{place}", "id": f"a{place}", "state": "finished", "_runtime": 10.5, "_timestamp": 1.7e9,
        "config": {"optimizer": name, "lr": 0.01, "model": "nano-65k", "tokens": 1310720, "seed": place, "beta1": 0.9},
        "summary": {"loss": 3.5 - 0.1 * place, "_step": 80, "gradient/norm": 0.5},
    }
    for place, name in enumerate(("adamw", "muon", "lion"))
]  # fmt: skip
"""Runs as Weights & Biases hands them out."""

TRACKED_CSV = (
    '"Name","State","Created","Runtime","config/optimizer","config/lr","params/batch_size","metrics/loss","tokens",'
    '"size","seed","user.tag"\n'
    '"a","finished","2026-01-01T00:00:00Z","10","AdamW","0.01","32","3.5","1310720","nano-65k","0","x"\n'
    '"b","crashed","2026-01-01T00:00:00Z","10","muon","0.02","32","","1310720","nano-65k","0","x"\n'
    '"c","finished","2026-01-01T00:00:00Z","10","muon","0.02","32","3.45","1.3M","nano-65k","1","x"\n'
)

GPT = "name: my-gpt\nfamily: gpt2\nlayers: 2\nd_model: 64\nheads: 2\nseq_len: 64\n"

CSV = "optimizer,scale,ratio,loss,seed,hp_learning_rate\nadamw,nano-65k,1,3.5,0,0.01\nmuon,nano-65k,1,,0,0.02\n"


def record() -> TrialRecord:
    """A record as a worker writes it."""
    regime = Regime(find_scale("nano-65k"), 0.2, CorpusId("text", "f" * 16, 1024))
    spec = TrialSpec("adamw", TrialSpec.freeze({"learning_rate": 0.004, "train_batch_size": 16, "on": True}), regime)
    tokens = spec.steps * spec.batch * regime.scale.seq_len
    curve = (CurvePoint(0, 0, 0.0, None, 7.0, 7.0, 0.1), CurvePoint(spec.steps, tokens, 0.004, 3.6, 3.5, 3.5, 9.0))
    return TrialRecord(
        trial=spec.id, status="completed", spec=spec, select_loss=3.5, report_loss=3.5, initial_loss=7.0, curve=curve,
        tokens=tokens, steps=spec.steps, epochs=0.1, flops=regime.flops,
        seconds={"train": 8.0, "eval": 1.0, "startup": 0.0, "checkpoint": 0.0}, peak_bytes=1 << 20,
        checkpoint_bytes=None, optimizer_state_bytes=4096,
        proof={"passed": True, "checks": [{"name": "adamw.vector", "passed": True}]},
        routing=({"parameter": "norm.weight", "rule": "adamw"},), environment={"torch": "2.13.0", "devices": 1},
        started="2026-01-31T12:00:00+00:00", ended="2026-01-31T12:00:09+00:00", resumes=0, tokens_per_second=5e4,
        notes=("a note",),
    )  # fmt: skip


def whole_sweep() -> Sweep:
    """A sweep whose trials include `record`."""
    return Sweep(load_space("adamw").on("nano"), record().spec.regime)


def corpus(folder: Path) -> Path:
    """A small prepared corpus."""
    from tuneopt.data import load_corpus

    words = [first + second for first in "abcdefgh" for second in ("ra", "to", "mi", "sel", "von")]
    texts = (" ".join(words[(7 * row + 3 * place) % 40] for place in range(150)) for row in range(150))
    (folder / "text.txt").write_text("\n<|endoftext|>\n".join(texts))
    return load_corpus(str(folder / "text.txt"), vocab_size=280, cache_dir=folder / "cache").folder


def seeds() -> dict[str, list[bytes]]:
    """Valid data by target; some of it in more than one form."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch

    from tuneopt.ledger import Ledger

    sweep = whole_sweep()
    now = datetime.now(UTC).isoformat(timespec="seconds")
    moment = {"study": "s", "at": now, "over": False, "slots": 2, "running": {"ab": 0.5}, "seconds": 9.5,
              "device_seconds": 3.0}  # fmt: skip
    holder = {"token": "ab", "host": "h", "machine": "m", "process": 1, "born": "2", "since": now, "beat": 1, "at": 1.5}
    run = {"sweep": sweep.id, "run": [record().trial], "reused": [], "failed": {}, "slots": 2, "wall_seconds": 9.5,
           "busy_seconds": 9.0, "interrupted": False, "previous": ""}  # fmt: skip
    table, checkpoint = io.BytesIO(), io.BytesIO()
    pq.write_table(pa.Table.from_pylist(RESULTS), table)
    torch.save({"step": 3, "model": {"weight": torch.zeros(4)}, "seconds": {"train": 1.0}}, checkpoint)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepared = corpus(folder)
        ledger = Ledger(folder / "ledger")
        ledger.put(record())
        ledger.compact()
        files = {each: (prepared / each).read_bytes() for each in ("manifest.json", "tokenizer.json")}
        shards = [path.read_bytes() for path in sorted(prepared.glob("select-*.arrow"))]
        compacted = (folder / "ledger" / "compacted" / "trials.parquet").read_bytes()
    return {
        "study": [path.read_bytes() for path in sorted((ROOT / "studies").glob("*.yaml"))],
        "recipe": [RECIPE.encode()],
        "record": [record().to_json().encode()],
        "sealed_record": [record().to_json().encode()],
        "sealed_sweep": [json.dumps(sweep.to_dict()).encode()],
        "account": [json.dumps(run).encode()],
        "moment": [json.dumps(moment).encode()],
        "lease": [json.dumps(holder).encode()],
        "tracker_csv": [TRACKED_CSV.encode()],
        "tracker_json": [json.dumps(TRACKED).encode()],
        "scale": [GPT.encode(), *(path.read_bytes() for path in sorted((ROOT / "scales").glob("*.yaml")))],
        "scale_word": [b"6x384,seq=256", b"4x64,heads=2,activation=relu2,tied=true"],
        "marker": [marker_text()],
        "sweep": [json.dumps(sweep.to_dict()).encode()],
        "compacted": [compacted],
        "results_csv": [CSV.encode()],
        "results_json": [json.dumps(RESULTS).encode()],
        "results_parquet": [table.getvalue()],
        "manifest": [files["manifest.json"]],
        "shard": shards,
        "tokenizer": [files["tokenizer.json"]],
        "checkpoint": [checkpoint.getvalue()],
        "words": [WORDS.encode()],
    }

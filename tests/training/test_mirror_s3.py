"""A machine that is lost in the middle of a trial whose ledger is in a bucket: another goes on from its checkpoint."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tuneopt.ledger import Ledger, open_ledger
from tuneopt.ledger.clean import leftovers
from tuneopt.ledger.files import RemoteFiles
from tuneopt.training.mirror import Mirror
from tuneopt.training.run import run_trial

SERVER = shutil.which("moto_server", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(SERVER is None, reason="moto's server is not installed (pip install 'moto[server]')"),
]

WORKER = """
import json, sys
from pathlib import Path
from tuneopt.data import open_corpus
from tuneopt.ledger import open_ledger
from tuneopt.spec import TrialSpec
from tuneopt.training.run import run_trial
spec = TrialSpec.from_dict(json.loads(sys.argv[1]))
record = run_trial(spec, open_corpus(Path(sys.argv[2])), open_ledger(sys.argv[3]))
print(record.resumes, record.select_loss, record.report_loss, flush=True)
"""


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
    for name, value in (("AWS_ACCESS_KEY_ID", "user"), ("AWS_SECRET_ACCESS_KEY", "word"), ("AWS_REGION", "us-east-1")):
        monkeypatch.setenv(name, value)
    assert SERVER is not None
    command = [SERVER, "-H", "127.0.0.1", "-p", host.rpartition(":")[2]]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 90
        while True:
            try:
                urllib.request.urlopen(urllib.request.Request(f"http://{host}/bucket", method="PUT"), timeout=5).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, "the server did not come up"
                time.sleep(0.1)
        yield f"s3://bucket/ledger?endpoint_override={host}&scheme=http&region=us-east-1"
    finally:
        process.terminate()
        process.wait(timeout=30)


def worker(spec, corpus, bucket: str, cache: Path) -> subprocess.Popen[str]:  # type: ignore[no-untyped-def]
    environment = {**os.environ, "TUNEOPT_CACHE": str(cache), "TUNEOPT_CHECKPOINT_SECONDS": "0"}
    command = [sys.executable, "-c", WORKER, json.dumps(spec.to_dict()), str(corpus.folder), bucket]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def test_a_lost_machine_costs_no_more_than_what_it_had_not_uploaded(corpus, make_spec, bucket: str, tmp_path) -> None:
    spec = make_spec(ratio=1.0)
    whole = run_trial(spec, corpus, Ledger(tmp_path / "undisturbed"))
    first = worker(spec, corpus, bucket, tmp_path / "machine-1")
    ledger = open_ledger(bucket)
    assert isinstance(ledger.files, RemoteFiles)
    copies = Mirror(ledger.files, spec.id)
    deadline = time.monotonic() + 120
    while not copies.steps():
        assert first.poll() is None and time.monotonic() < deadline, "nothing was uploaded"
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert ledger.get(spec.id) is None, "the worker was to die before its end"
    shutil.rmtree(tmp_path / "machine-1")
    uploaded = copies.steps()

    second = worker(spec, corpus, bucket, tmp_path / "machine-2")
    out, _ = second.communicate(timeout=200)
    assert second.returncode == 0
    assert out.split() == ["1", repr(whole.select_loss), repr(whole.report_loss)], f"not resumed from {uploaded}"
    record = ledger.get(spec.id)
    assert record is not None and record.resumes == 1 and record.select_loss == whole.select_loss
    assert copies.steps() == [] and leftovers(ledger) == [], "checkpoints go once the record is safe"
    assert ledger.verify() == []

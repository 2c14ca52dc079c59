"""A ledger in a bucket of a real S3-compatible server, moto's, on this machine."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from ledger_samples import make_record, make_spec

from tuneopt.ledger import Ledger, open_ledger
from tuneopt.ledger.browse import find_log
from tuneopt.ledger.logs import TrialLog, read_log
from tuneopt.spec import InputError

HERE = Path(__file__).parent
SERVER = shutil.which("moto_server", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")

pytestmark = pytest.mark.skipif(SERVER is None, reason="moto's server is not installed (pip install 'moto[server]')")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert SERVER is not None
    process = subprocess.Popen(
        [SERVER, "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    host = f"127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while not answers(f"http://{host}/"):
            assert process.poll() is None and time.monotonic() < deadline, "the server did not come up"
            time.sleep(0.1)
        yield host
    finally:
        process.terminate()
        process.wait(timeout=30)


def answers(url: str, method: str = "GET") -> bool:
    try:
        urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=5).close()
    except (urllib.error.URLError, OSError):
        return False
    return True


@pytest.fixture
def bucket(server: str, monkeypatch, request) -> str:
    """The address of an empty ledger in a bucket of its own, credentials in the environment as users have them."""
    for name, value in (("AWS_ACCESS_KEY_ID", "user"), ("AWS_SECRET_ACCESS_KEY", "word"), ("AWS_REGION", "us-east-1")):
        monkeypatch.setenv(name, value)
    name = request.node.name.replace("_", "-")[:60].strip("-")
    assert answers(f"http://{server}/{name}", "PUT")
    return f"s3://{name}/deep/ledger?endpoint_override={server}&scheme=http&region=us-east-1"


def test_records_come_back_from_a_bucket_whole(bucket: str) -> None:
    ledger, records = open_ledger(bucket), [make_record(make_spec(seed), 3.5 + seed) for seed in range(5)]
    assert all(ledger.put(record) for record in records)
    assert not ledger.put(make_record(make_spec(0), 9.0)), "the first writer of a trial wins"
    again = open_ledger(bucket, must_exist=True)
    assert sorted(again.records(), key=lambda each: each.trial) == sorted(records, key=lambda each: each.trial)
    assert again.get(make_spec(99).id) is None
    assert again.verify() == []


def test_sweeps_runs_and_the_compacted_table_live_there_too(bucket: str, tmp_path: Path) -> None:
    ledger = open_ledger(bucket)
    ledger.put_sweep("s" * 16, {"optimizer": "adamw"})
    ledger.put_run({"sweep": "s" * 16, "wall_seconds": 1.5})
    for seed in range(7):
        ledger.put(make_record(make_spec(seed)))
    before = ledger.table()
    assert ledger.compact() == 7
    ledger.put(make_record(make_spec(7)))
    other = open_ledger(bucket)
    assert other.table().slice(0, 0).schema == before.schema
    assert sorted(other.table()["trial"].to_pylist()) == sorted(make_spec(seed).id for seed in range(8))
    assert list(other.sweeps()) == ["s" * 16] and [run["wall_seconds"] for run in other.runs().values()] == [1.5]
    assert other.export(tmp_path / "all.parquet") == 8
    assert not other.is_local


def test_a_trials_log_goes_up_and_another_process_goes_on_with_it(bucket: str) -> None:
    spec = make_spec()
    first = TrialLog(open_ledger(bucket), spec.id)
    first.write("start", pid=1)
    first.write("error", "error", text="out of memory")
    again = TrialLog(open_ledger(bucket), spec.id)
    again.write("restart", "warning", text="its worker died")
    ledger = open_ledger(bucket, must_exist=True)
    assert [event["event"] for event in read_log(ledger, find_log(ledger, spec.id[:6]))[0]] == [
        "start", "error", "restart",
    ]  # fmt: skip
    assert again.where == f"{bucket.partition('?')[0]}/logs/{spec.id}.jsonl", "without how to reach the store"
    assert ledger.verify() == [] and ledger.ids() == []


def test_a_bucket_without_a_ledger_is_said_to_be_none(bucket: str) -> None:
    with pytest.raises(InputError):
        open_ledger(bucket, must_exist=True)


def test_a_driver_killed_between_and_inside_uploads_leaves_whole_records_only(bucket: str, tmp_path: Path) -> None:
    Ledger(bucket)
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
    for attempt, wait in enumerate((0.0, 0.011, 0.037)):
        start, seeds = tmp_path / f"start{attempt}", (attempt * 500, attempt * 500 + 500)
        command = [sys.executable, str(HERE / "ledger_writer.py"), bucket, "3.5", *map(str, seeds), str(start)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        start.touch()
        assert process.stdout is not None
        reported = [process.stdout.readline().strip()]
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL, "it had ended before it was killed"
        reported += rest.split("\n")[:-1]
        ledger = Ledger(bucket)
        assert {trial for trial in reported if trial} <= set(ledger.ids()), "a put that reported success was lost"
        assert len(list(ledger.records())) == len(ledger.ids())
        assert ledger.verify() == []

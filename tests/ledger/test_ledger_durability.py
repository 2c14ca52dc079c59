"""Real processes: writers that race for one id, a writer killed in the middle, a compaction beside a writer."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from ledger_samples import make_spec

from tuneopt.ledger import Ledger

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def writer(ledger: Path, loss: float, seeds: tuple[int, int], start: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(HERE / "ledger_writer.py"), str(ledger), str(loss), *map(str, seeds), str(start)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def release(start: Path, losses: list[float]) -> None:
    deadline = time.monotonic() + 60
    while not all(Path(f"{start}.{loss}").exists() for loss in losses):
        assert time.monotonic() < deadline, "the writers did not come up"
        time.sleep(0.002)
    start.touch()


def test_of_two_processes_with_the_same_ids_each_id_has_exactly_one_writer(tmp_path: Path) -> None:
    start, place = tmp_path / "start", tmp_path / "ledger"
    writers = {loss: writer(place, loss, (0, 60), start) for loss in (3.5, 3.4)}
    release(start, list(writers))
    won = {loss: process.communicate(timeout=60)[0].split() for loss, process in writers.items()}
    ledger = Ledger(place)
    assert sorted(won[3.5] + won[3.4]) == ledger.ids()
    assert len(ledger.ids()) == 60
    for loss, trials in won.items():
        for trial in trials:
            record = ledger.get(trial)
            assert record is not None and record.select_loss == loss
    assert ledger.verify() == []


def test_kill_in_the_middle_of_many_puts_leaves_no_half_record(tmp_path: Path) -> None:
    start, place = tmp_path / "start", tmp_path / "ledger"
    for attempt, wait in enumerate((0.004, 0.013, 0.03)):
        seeds = (attempt * 1200, attempt * 1200 + 1200)
        process = writer(place, 3.5, seeds, start)
        release(start, [3.5])
        assert process.stdout is not None
        reported = [process.stdout.readline().strip()]  # it is in the middle of its puts
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
        reported += [line for line in rest.split("\n")[:-1] if line]
        ledger = Ledger(place)
        assert set(reported) <= set(ledger.ids()), "a put that reported success was lost"
        assert len(list(ledger.records())) == len(ledger.ids()) < (attempt + 1) * 1200
        assert all("left behind" in problem for problem in ledger.verify())
        for file in (start, Path(f"{start}.3.5")):
            file.unlink()


def test_reading_and_compacting_beside_a_writer_sees_whole_records_only(tmp_path: Path) -> None:
    start, place = tmp_path / "start", tmp_path / "ledger"
    process = writer(place, 3.5, (0, 120), start)
    release(start, [3.5])
    ledger, seen = Ledger(place), 0
    while process.poll() is None:
        rows = ledger.table().num_rows
        assert rows >= seen
        seen = max(rows, ledger.compact())
    assert process.returncode == 0
    assert ledger.table().num_rows == 120 == ledger.compact()
    assert ledger.verify() == []
    assert ledger.table()["trial"].to_pylist() == sorted(make_spec(seed).id for seed in range(120))
    process.stdout.close()  # type: ignore[union-attr]

"""A full disk ends the whole run with one sentence, and no trial is given up for it."""

import errno
import json
import os
from pathlib import Path

import pytest
from test_tuning import Trial, a_run, sweep

from tuneopt import cli
from tuneopt.cluster import trainable
from tuneopt.cluster.trainable import TrialTrainable
from tuneopt.cluster.tuning import TuneSearcher
from tuneopt.errors import NoRoomError
from tuneopt.ledger import Ledger


def full() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Worker(TrialTrainable):
    """A worker without Ray whose training ends in an error."""

    def __init__(self, tmp_path: Path, error: Exception) -> None:
        self.spec, self.run, self.begun = sweep().spec(sweep().space.start), None, True
        self.config, self.error = {"ledger": str(tmp_path / "ledger")}, error

    def _train_on(self):
        raise self.error


@pytest.mark.parametrize("error", [full(), OSError(errno.EDQUOT, "Disk quota exceeded"), NoRoomError("/somewhere")])
def test_a_worker_says_why_the_run_has_to_stop(tmp_path: Path, error: Exception) -> None:
    result = Worker(tmp_path, error).step()
    assert result["done"] and result["halt"].startswith("no space is left for /")
    assert "run the same command again" in result["halt"]


def test_other_errors_of_a_worker_stay_errors(tmp_path: Path) -> None:
    with pytest.raises(PermissionError):
        Worker(tmp_path, PermissionError(errno.EACCES, "Permission denied")).step()


def test_a_worker_takes_up_a_trial_whatever_the_system_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Tune starts a trial again whose step raises, and gives one up whose worker cannot be reset.
    def refused(uri: str) -> Ledger:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), uri)

    monkeypatch.setattr(trainable, "open_ledger", refused)
    worker = TrialTrainable.__new__(TrialTrainable)
    spec = json.dumps(sweep().spec(sweep().space.start).to_dict())
    assert worker.reset_config({"spec": spec, "sources": "{}", "ledger": str(tmp_path), "every_point": False})
    with pytest.raises(OSError, match="Too many open files"):
        worker.step()


def test_nothing_more_is_started_and_nothing_is_given_up(tmp_path: Path) -> None:
    searcher, callback, controller, _ = a_run(tmp_path)
    first, second = Trial("a", searcher), Trial("b", searcher)
    callback.on_trial_start(trial=first)
    stop = {"trial": "a", "busy_seconds": 1.0, "done": True, "halt": "no space is left for x"}
    callback.on_trial_result(trial=first, result=stop)
    callback.on_trial_complete(trial=first)
    assert controller.halt == "no space is left for x" and second.config
    assert searcher.suggest("c") == TuneSearcher.FINISHED
    assert not controller.state.failed and not controller.plan.gave_up


def test_a_command_that_cannot_write_ends_in_one_line(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def app(**named: object) -> None:
        error = full()
        error.filename = "/full/reports/x.html"
        raise error

    monkeypatch.setattr(cli, "app", app)
    monkeypatch.setattr("sys.argv", ["tuneopt", "report"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    err = capsys.readouterr().err
    assert ended.value.code == 2
    assert err.count("\n") == 1 and "no space is left for /full/reports/x.html; make room" in err

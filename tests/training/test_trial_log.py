"""What a training process writes into its trial's log: start, points, resumes, warnings, errors, end."""

import logging
import os
import socket
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from tuneopt.data import Corpus
from tuneopt.errors import TrialFailedError
from tuneopt.ledger import Ledger
from tuneopt.ledger.logs import TrialLog, log_address, read_log
from tuneopt.spec import TrialSpec
from tuneopt.training.run import TrialRun, run_trial
from tuneopt.training.trial_log import logging_to


def events(ledger: Ledger, trial: str) -> list[dict]:
    return read_log(ledger, trial)[0]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger")


def test_a_trial_tells_its_whole_way(module_spec: Callable[..., TrialSpec], corpus: Corpus, ledger: Ledger) -> None:
    spec = module_spec()
    record = run_trial(spec, corpus, ledger)
    logged = events(ledger, spec.id)
    assert [event["event"] for event in logged] == ["start", "ready", *["point"] * len(record.curve), "end"]
    start, end = logged[0], logged[-1]
    assert (start["host"], start["pid"]) == (socket.gethostname(), os.getpid())
    assert start["config"] == spec.config and start["optimizer"] == "adamw"
    points = [{name: event[name] for name in asdict(record.curve[0])} for event in logged if event["event"] == "point"]
    assert points == [asdict(point) for point in record.curve]
    assert (end["status"], end["select_loss"]) == ("completed", record.select_loss)
    before = len(logged)
    run_trial(spec, corpus, ledger)
    assert len(events(ledger, spec.id)) == before, "a trial that is recorded already trains nothing and says nothing"


def test_a_resumed_trial_says_where_it_goes_on(module_spec, corpus: Corpus, ledger: Ledger) -> None:
    spec = module_spec(seed=5)
    first = TrialRun(spec, corpus, ledger)
    for _ in range(2):
        first.advance()
    assert first.training is not None
    first.training.save()
    step = first.training.step
    del first
    record = run_trial(spec, corpus, ledger)
    logged = events(ledger, spec.id)
    names = [event["event"] for event in logged]
    again = names.index("start", 1)
    assert names[again : again + 3] == ["start", "ready", "resume"]
    assert logged[again + 2]["step"] == step and logged[again + 2]["resumes"] == 1
    assert record.resumes == 1 and names[-1] == "end"


def test_fresh_points_come_once_and_after_a_resume_from_the_beginning(module_spec, corpus: Corpus, ledger) -> None:
    spec = module_spec(seed=6)
    run = TrialRun(spec, corpus, ledger)
    run.advance()
    assert [row[0] for row in run.fresh_points()] == [0, run.training.step]
    assert run.fresh_points() == []
    run.advance()
    assert [row[0] for row in run.fresh_points()] == [run.training.step]
    run.training.save()
    steps = [point.step for point in run.training.curve]
    again = TrialRun(spec, corpus, ledger)
    assert [row[0] for row in again.fresh_points()] == steps


def test_what_ends_a_trial_is_in_its_log_and_on_the_error(module_spec, corpus: Corpus, ledger, monkeypatch) -> None:
    spec = module_spec(seed=7)
    monkeypatch.setattr("tuneopt.training.run.TrialRun._describe", lambda run, training: 1 / 0)
    with pytest.raises(ZeroDivisionError) as caught:
        run_trial(spec, corpus, ledger)
    logged = events(ledger, spec.id)
    assert [event["event"] for event in logged][-2:] == ["error", "failed"]
    assert logged[-2]["text"] == "ZeroDivisionError: division by zero"
    assert "test_trial_log.py" in logged[-2]["traceback"]
    assert caught.value.__notes__ == [f"the trial's log: {log_address(ledger, spec.id)}"]


def test_warnings_of_any_library_are_kept_and_still_shown(ledger: Ledger, recwarn: pytest.WarningsRecorder) -> None:
    log = TrialLog(ledger, "t1")
    with logging_to(log):
        logging.getLogger("some.library").warning("slow kernel on %s", "cpu")
        logging.getLogger("some.library").info("not worth keeping")
        warnings.warn("deprecated", UserWarning, stacklevel=1)
        try:
            raise OSError("disk")
        except OSError:
            logging.getLogger("some.library").exception("could not write")
    logged = events(ledger, "t1")
    assert [(event["event"], event["level"], event["text"]) for event in logged] == [
        ("warning", "warning", "slow kernel on cpu"),
        ("warning", "warning", "deprecated"),
        ("warning", "error", "could not write"),
    ]
    assert logged[0]["logger"] == "some.library" and "test_trial_log.py" in logged[1]["where"]
    assert "OSError: disk" in logged[2]["traceback"]
    logging.getLogger("some.library").warning("after the trial")
    assert len(events(ledger, "t1")) == 3, "what comes after belongs to no trial"


def test_without_another_handler_a_warning_still_reaches_stderr(ledger: Ledger, capsys, monkeypatch) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    own = logging.getLogger("has.its.own")
    own.addHandler(logging.NullHandler())
    with logging_to(TrialLog(ledger, "t1")):
        logging.getLogger("nobody").warning("heard")
        own.warning("said elsewhere")
    assert capsys.readouterr().err == "heard\n"
    assert len(events(ledger, "t1")) == 2


def test_an_interruption_is_no_error(ledger: Ledger) -> None:
    with pytest.raises(KeyboardInterrupt), logging_to(TrialLog(ledger, "t1")):
        raise KeyboardInterrupt
    assert [event["event"] for event in events(ledger, "t1")] == ["interrupted"]


def test_a_log_that_cannot_be_written_does_not_feed_on_itself(tmp_path: Path, caplog) -> None:
    (tmp_path / "ledger").mkdir()
    (tmp_path / "ledger" / "logs").write_text("in the way")
    log = TrialLog(Ledger(tmp_path / "ledger"), "t1")
    with logging_to(log):
        for _ in range(3):
            log.write("point")
    assert len(caplog.records) == 1


class OddError(BaseException):
    """No `Exception`, as code from outside may raise."""


@pytest.mark.parametrize("error", [SystemExit(0), SystemExit("bye"), OddError("odd"), GeneratorExit()])
def test_code_that_asks_the_program_to_end_fails_its_trial_instead(tmp_path: Path, error: BaseException) -> None:
    ledger = Ledger(tmp_path)
    words = f"asked the program to end .{type(error).__name__}"
    with pytest.raises(TrialFailedError, match=words), logging_to(TrialLog(ledger, "t1")):
        raise error
    (event,) = read_log(ledger, "t1")[0]
    assert event["event"] == "error" and "Traceback" in event["traceback"]


def test_a_generator_around_a_trial_may_be_closed(ledger: Ledger) -> None:
    def trains() -> Iterator[None]:
        with logging_to(TrialLog(ledger, "t1")):
            yield

    around = trains()
    next(around)
    around.close()
    assert [event["event"] for event in events(ledger, "t1")] == ["interrupted"]


def test_a_worker_of_ray_that_was_asked_to_end_does(tmp_path: Path) -> None:
    program: dict[str, object] = {"__name__": "ray._private.utils"}
    exec("def leave(): raise SystemExit(1)", program)
    with pytest.raises(SystemExit), logging_to(TrialLog(Ledger(tmp_path), "t1")):
        program["leave"]()  # type: ignore[operator]
    assert read_log(Ledger(tmp_path), "t1")[0][0]["event"] == "interrupted"


def test_code_of_a_trial_cannot_end_the_process_at_once_but_its_own_processes_end_as_ever(tmp_path: Path) -> None:
    real = os._exit
    with pytest.raises(TrialFailedError, match="asked the program to end"), logging_to(TrialLog(Ledger(tmp_path), "t")):
        child = os.fork()
        if not child:
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        os._exit(0)
    assert os._exit is real

"""Log records as the command line shows them: text or JSON lines, with trial ids, quiet unless asked."""

import json
import logging
from collections.abc import Iterator

import pytest
from observe_samples import make_points, make_spec

from tuneopt.ledger import Ledger
from tuneopt.ledger.logs import read_log
from tuneopt.observe.logs import Narrator, Shown, TextLines, configure
from tuneopt.observe.observer import EventStream, Observer
from tuneopt.observe.state import RunState, TrialEnd
from tuneopt.search.plan import OneTrial
from tuneopt.spec import InputError

LOG = logging.getLogger("tuneopt.somewhere")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    logger = logging.getLogger("tuneopt")
    logger.handlers = [handler for handler in logger.handlers if not isinstance(handler, Shown)]
    logger.setLevel(logging.NOTSET)


def test_text_is_quiet_unless_something_is_wrong() -> None:
    lines: list[str] = []
    assert configure(None, "text", lines.append), "a progress display may run beside it"
    LOG.info("all is well")
    LOG.warning("worth a look", extra={"trial": "ab12"})
    assert len(lines) == 1 and lines[0][8:] == " warning trial ab12: worth a look"


def test_json_lines_carry_what_was_given_and_nothing_stands_between(capsys: pytest.CaptureFixture) -> None:
    assert not configure(None, "json", print), "no display beside JSON lines"
    LOG.debug("too fine")
    LOG.info("step %d\nof two lines", 3, extra={"trial": "ab12", "ratio": 0.5, "odd": {1, 2}})
    try:
        raise RuntimeError("boom")
    except RuntimeError:
        LOG.exception("failed")
    out, err = capsys.readouterr()
    first, second = [json.loads(line) for line in err.splitlines()]
    assert out == ""
    assert first["message"] == "step 3\nof two lines" and first["level"] == "info" and first["logger"] == LOG.name
    assert (first["trial"], first["ratio"], first["odd"]) == ("ab12", 0.5, "{1, 2}")
    assert first["time"].endswith("+00:00")
    assert "RuntimeError: boom" in second["traceback"]


def test_levels_count_and_unknown_words_are_bad_input() -> None:
    lines: list[str] = []
    configure("error", "text", lines.append)
    LOG.warning("not shown")
    configure("debug", "text", lines.append)
    LOG.debug("shown")
    assert [line[9:] for line in lines] == ["debug shown"], "a second call takes the place of the first"
    with pytest.raises(InputError, match=r"--log-level 'warnin' is unknown; did you mean 'warning'"):
        configure("warnin", "text", print)
    with pytest.raises(InputError, match="--log-format 'jsn' is unknown"):
        configure(None, "jsn", print)


@pytest.mark.parametrize(("level", "whole"), [(None, False), ("info", True)])
def test_errors_of_ray_are_lines_without_tracebacks_unless_asked_for(level: str | None, whole: bool) -> None:
    configure(level, "text", print)
    (shown,) = (handler for handler in logging.getLogger("tuneopt").handlers if isinstance(handler, Shown))
    assert isinstance(shown.formatter, TextLines)
    try:
        raise RuntimeError("boom")
    except RuntimeError as error:
        about = (type(error), error, error.__traceback__)
    lines = [
        shown.formatter.format(logging.LogRecord(name, logging.ERROR, "", 0, "Trial task failed", (), about))
        for name in ("ray.tune.execution", "tuneopt.somewhere")
    ]
    assert lines[0].partition("\n")[0].endswith(" error Trial task failed")
    assert ("RuntimeError: boom" in lines[0]) == whole and "RuntimeError: boom" in lines[1]


def test_every_trial_record_names_the_trial_and_its_regime(tmp_path, caplog) -> None:
    spec = make_spec()
    narrator = Narrator(Ledger(tmp_path))
    with caplog.at_level(logging.DEBUG, "tuneopt"):
        narrator.started(spec)
        narrator.points(spec, make_points(0, 10))
        narrator.ended(spec, TrialEnd("completed", 3.5, 3.6, 12.0))
        narrator.reused(spec)
    assert [record.event for record in caplog.records] == ["started", "point", "point", "ended", "reused"]
    for record in caplog.records:
        assert (record.trial, record.optimizer, record.scale, record.ratio) == (spec.id, "soap", "nano-65k", 0.5)
    assert caplog.records[3].select_loss == 3.5 and caplog.records[3].seconds == 12.0
    assert not (tmp_path / "logs").exists(), "a trial that went well is its worker's to tell"


def test_what_killed_a_worker_is_in_the_trials_log_and_the_message_names_it(tmp_path, caplog) -> None:
    spec, ledger = make_spec(), Ledger(tmp_path)
    narrator = Narrator(ledger)
    with caplog.at_level(logging.INFO, "tuneopt"):
        narrator.started(spec)
        narrator.restarted(spec, "the worker died: out of memory")
        narrator.ended(spec, TrialEnd("failed", error="the worker died again"))
    events, _ = read_log(ledger, spec.id)
    assert [(event["event"], event["text"]) for event in events] == [
        ("restart", "the worker died: out of memory"),
        ("failed", "the worker died again"),
    ]
    warning = caplog.records[-1]
    assert warning.levelname == "WARNING" and "the worker died again" in warning.getMessage()
    assert f"{tmp_path}/logs/{spec.id}.jsonl" in warning.getMessage() and warning.log.endswith(f"{spec.id}.jsonl")


def test_interrupted_trials_say_so(tmp_path) -> None:
    ledger, running, done = Ledger(tmp_path), make_spec(0), make_spec(1)
    narrator = Narrator(ledger)
    for spec in (running, done):
        narrator.started(spec)
    narrator.ended(done, TrialEnd("completed", 3.5, 3.6))
    narrator.close()
    assert [event["event"] for event in read_log(ledger, running.id)[0]] == ["interrupted"]
    assert read_log(ledger, done.id)[0] == []


def test_an_observer_that_raises_is_left_out_with_one_warning(caplog) -> None:
    heard = []

    class Broken(Observer):
        wants_points = True

        def points(self, spec, points, worker=None) -> None:
            raise OSError("disk full")

    class Good(Observer):
        def points(self, spec, points, worker=None) -> None:
            heard.append(len(points))

    both = EventStream([Broken(), Good()], RunState(OneTrial(make_spec())))
    assert both.wants_points
    for _ in range(3):
        both.tell("points", make_spec(), make_points(1), None)
    assert heard == [1, 1, 1] and not both.wants_points
    assert [record.getMessage() for record in caplog.records] == ["Broken is left out from now on: disk full"]

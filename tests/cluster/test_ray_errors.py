"""What Ray logs and reports in the driver is shown as every other record, and everything is as before afterwards."""

import logging

import pytest
from ray._private import worker

from tuneopt.cluster.ray_fixes.output import errors_as_asked, messages_to_log
from tuneopt.observe.logs import JsonLines, Shown


def test_a_raylets_report_is_a_log_record(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture) -> None:
    report = {"lines": ["A worker died\nor was killed."], "pid": "raylet", "is_err": False}
    with caplog.at_level(logging.INFO, "tuneopt"), messages_to_log():
        worker.print_to_stdstream(report, ignore_prefix=False)
    assert [record.getMessage() for record in caplog.records] == ["raylet: A worker died or was killed."]
    assert capsys.readouterr() == ("", "")


def test_rays_records_are_shown_as_the_command_line_shows_all_others() -> None:
    ours, rays, lines = logging.getLogger("tuneopt"), logging.getLogger("ray"), []
    before = list(rays.handlers)
    with errors_as_asked():
        assert rays.handlers == before, "nothing was asked for"
    shown = Shown(JsonLines(), lines.append)
    ours.addHandler(shown)
    try:
        with errors_as_asked():
            assert rays.handlers == [shown]
            logging.getLogger("ray.tune").error("Trial task failed")
    finally:
        ours.removeHandler(shown)
    assert rays.handlers == before
    assert len(lines) == 1 and '"message": "Trial task failed"' in lines[0]

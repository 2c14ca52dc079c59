"""Ray's own messages must not get between a command and its stdout."""

import inspect

from tuneopt.cluster.ray_fixes.output import messages_to_log


def test_ray_prints_by_the_function_that_is_replaced(capsys) -> None:
    """If Ray renames it, this says so: messages of its nodes would go to stdout again."""
    from ray._private import worker

    assert "print_to_stdstream(" in inspect.getsource(worker.listen_error_messages)
    before = worker.print_to_stdstream
    with messages_to_log():
        worker.print_to_stdstream({"lines": ["The node is dead.\n more"], "pid": "raylet", "is_err": False}, False)
    assert worker.print_to_stdstream is before
    assert capsys.readouterr().out == ""

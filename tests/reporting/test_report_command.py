"""The command that repeats a sweep says what was changed of the declared space, and nothing else."""

import pytest

from tuneopt.reporting.provenance import changed
from tuneopt.search.space import load_space

DECLARED = load_space("adamw").on("nano")


def test_the_declared_space_needs_no_options() -> None:
    assert changed(DECLARED) == []


@pytest.mark.parametrize(
    ("overrides", "grids", "starts", "expected"),
    [
        ({"beta1": 0.95}, {}, {}, [("--set", "beta1", (0.95,))]),
        ({}, {"beta1": [0.8, 0.9]}, {}, [("--grid", "beta1", (0.8, 0.9))]),
        ({}, {}, {"beta1": 0.95}, [("--start", "beta1", (0.95,))]),
        ({}, {"beta1": [0.7, 0.8]}, {}, [("--grid", "beta1", (0.7, 0.8)), ("--start", "beta1", (0.8,))]),
        ({"min_lr_ratio": 0.1}, {}, {}, [("--set", "min_lr_ratio", (0.1,))]),
    ],
)
def test_what_was_changed_is_said_and_rebuilds_the_space(overrides, grids, starts, expected) -> None:
    space = load_space("adamw").on("nano", overrides, grids).begin_at(starts)
    found = changed(space)
    assert found == expected
    options = {kind: {name: values for option, name, values in found if option == kind} for kind in
               ("--set", "--grid", "--start")}  # fmt: skip
    rebuilt = load_space("adamw").on(
        "nano", {name: values[0] for name, values in options["--set"].items()}, options["--grid"]
    )
    assert rebuilt.begin_at({name: values[0] for name, values in options["--start"].items()}) == space

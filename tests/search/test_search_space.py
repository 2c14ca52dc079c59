"""Declared spaces: their checks, a user's overrides, and spaces from files."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

import search_spaces
from tuneopt.search.space import Coordinate, LadderSpace, SearchSpace, load_space, space_names, tuned
from tuneopt.spec import InputError

HOME = Path(search_spaces.__file__).parent
RATE = {
    "name": "learning_rate",
    "kind": "scale-free",
    "unit": "1",
    "meaning": "peak",
    "grids": {"nano": (0.1, 0.2)},
    "starts": {"nano": 0.1},
}
FIXED = {"train_batch_size": 16, "warmup": 0, "min_lr_ratio": 0, "lr_schedule": "cosine"}


def declared(*coordinates: Coordinate, **fixed: object) -> SearchSpace:
    return SearchSpace("mine", coordinates or (Coordinate(**RATE),), {"nano": FIXED | fixed}, "here", "by trying")


def test_overrides_pin_coordinates_and_change_fixed_numbers():
    space = load_space("soap").on(
        "nano", {"learning_rate": "0.02", "max_grad_norm": 2, "partition_grads_into_blocks": "false"}
    )
    config = dict(space.start)
    assert (config["learning_rate"], config["max_grad_norm"], config["partition_grads_into_blocks"]) == (0.02, 2, False)
    assert "learning_rate" not in {name for name, _, _ in space.star(space.start)}
    assert (
        len(space.star(space.start)) == len(load_space("soap").on("nano").star(load_space("soap").on("nano").start)) - 2
    )


def test_a_grid_is_replaced_and_still_extended():
    space = load_space("adamw").on("nano", grids={"learning_rate": "0.001,0.002", "train_batch_size": [8, 64]})
    rate = space.by_name["learning_rate"]
    assert (rate.values, rate.start, rate.line(0.002)) == ((0.001, 0.002), 0.002, (0.001, 0.004))
    assert space.by_name["train_batch_size"].values == (8, 64)


@pytest.mark.parametrize(
    ("overrides", "grids", "hint"),
    [
        ({"learning_rat": 0.1}, {}, "did you mean 'learning_rate'"),
        ({}, {"weigth_decay": (0, 1)}, "did you mean 'weight_decay'"),
        ({"learning_rate": "fast"}, {}, "learning_rate must be a finite number, not 'fast'; try learning_rate=0.008"),
        ({"learning_rate": -1}, {}, "between 1e-06 and 10, not -1"),
        ({}, {"warmup": (0.1, 0.9)}, "between 0 and 0.5, not 0.9"),
        ({"train_batch_size": 8.5}, {}, "whole number"),
        ({}, {"beta1": ()}, "grid of beta1 is empty"),
        ({"beta1": 0.9}, {"beta1": (0.9, 0.8)}, "both pinned"),
        ({}, {"nesterov": (True, False)}, "fixed for adamw and takes no grid"),
        ({"nesterov": "perhaps"}, {}, "nesterov must be true or false"),
        ({"lr_schedule": "linea"}, {}, "lr_schedule cannot be 'linea'; did you mean 'linear'"),
        ({"min_lr_ratio": "low"}, {}, "min_lr_ratio must be a finite number"),
        ({"min_lr_ratio": -0.5}, {}, "must not be negative"),
    ],
)
def test_a_wrong_override_is_refused_in_one_sentence_that_mends_it(overrides, grids, hint):
    with pytest.raises(InputError) as refused:
        load_space("adamw").on("nano", overrides, grids)
    assert hint in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_unknown_ladder_or_optimizer_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'nano'"):
        load_space("adamw").on("nono")
    with pytest.raises(InputError, match="did you mean 'soap'"):
        load_space("sopa")
    assert set(space_names()) >= {"adamw", "muon", "soap"}


def test_another_start_joins_the_grid():
    space = load_space("adamw").on("paper", {"epsilon": 1e-10})
    moved = space.begin_at({"learning_rate": 0.002, "beta2": 0.98, "epsilon": 1e-15})
    assert dict(moved.start)["learning_rate"] == 0.002
    assert moved.by_name["learning_rate"].values == (0.002, 0.004, 0.008, 0.016, 0.032)
    assert moved.by_name["epsilon"].values == (1e-15,), "what is held is held at its new value"
    assert without_start(moved, "beta2") == without_start(space, "beta2")
    with pytest.raises(InputError, match="did you mean 'beta2'"):
        space.begin_at({"beta22": 0.9})
    with pytest.raises(InputError, match="between"):
        space.begin_at({"beta2": 1.5})


@pytest.mark.parametrize(
    ("overrides", "grids", "start", "words"),
    [
        ({"learning_rate": 0.001}, {}, {"learning_rate": 0.002}, "learning_rate is both pinned to a value"),
        (
            {},
            {"learning_rate": (0.001,)},
            {"learning_rate": 0.002},
            "learning_rate is both pinned to a value and given",
        ),
        ({"lr_schedule": "cosine"}, {}, {"decay": 0.5}, "a cosine has no decay phase"),
    ],
)
def test_what_is_pinned_begins_nowhere_else(overrides, grids, start, words):
    with pytest.raises(InputError, match=words):
        load_space("muon").on("nano", overrides, grids, start)


def without_start(space: LadderSpace, name: str) -> tuple:
    axis = space.by_name[name]
    return axis.values, axis.low, axis.high, axis.extend, axis.whole


def test_a_ladder_space_survives_json():
    for name in space_names():
        for ladder in load_space(name).ladders:
            space = load_space(name).on(ladder)
            again = LadderSpace.from_dict(json.loads(json.dumps(space.to_dict())))
            assert (again, again.start, again.star(again.start)) == (space, space.start, space.star(space.start))


@pytest.mark.parametrize(
    ("changed", "hint"),
    [
        ({"kind": "scalefree"}, "did you mean 'scale-free'"),
        ({"extend": "geometrc"}, "did you mean 'geometric'"),
        ({"starts": {"paper": 0.1}}, "same ladders"),
        ({"grids": {"nano": ()}}, "empty grid"),
        ({"high": 0.15}, "between any value and 0.15, not 0.2"),
        ({"low": {"nano": 0.15}}, "between 0.15 and any value, not 0.1"),
    ],
)
def test_a_coordinate_that_contradicts_itself_is_refused(changed, hint):
    with pytest.raises(InputError, match=hint):
        Coordinate(**(RATE | changed))


def test_a_space_that_contradicts_itself_is_refused():
    rate = Coordinate(**RATE)
    with pytest.raises(InputError, match="names a coordinate twice"):
        declared(rate, rate)
    with pytest.raises(InputError, match="learning_rate is both fixed and searched"):
        declared(rate, learning_rate=0.1)
    with pytest.raises(InputError, match="learning_rate is missing"):
        declared(Coordinate(**(RATE | {"name": "momentum"})))


def test_choices_are_never_extended():
    norm = Coordinate("norm", "categorical", "", "which", {"nano": ("a", "b")}, {"nano": "b"})
    space = declared(Coordinate(**RATE), norm).on("nano")
    assert [value for name, value, _ in space.star(space.start) if name == "norm"] == ["a"]
    assert dict(declared(Coordinate(**RATE), norm).on("nano", {"norm": "A"}).start)["norm"] == "a"


def test_tuned_points_are_a_base_and_what_differs():
    (point,) = tuned({"a": 1, "b": 2}, [("130m", 4, 3.5, {"b": 3})])
    assert (point.scale, point.ratio, point.loss, dict(point.config)) == ("130m", 4, 3.5, {"a": 1, "b": 3})


MINE = """
from tuneopt.search.space import Coordinate, SearchSpace
SPACE = SearchSpace(
    "mine", (Coordinate("learning_rate", "scale-free", "1", "peak", {{"nano": (0.1, 0.2)}}, {{"nano": 0.1}}),),
    {{"nano": {fixed}}}, "here", "by trying")
"""


def test_a_space_is_loaded_from_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "adamw.py").write_text(MINE.format(fixed=FIXED))
    before = set(sys.modules)
    assert load_space("./adamw.py").optimizer == load_space(str(tmp_path / "adamw.py")).optimizer == "mine"
    assert load_space("adamw").optimizer == "adamw", "a name is never a file"
    assert "adamw" not in set(sys.modules) - before


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("SPACE = 3", "bind a SearchSpace to the name SPACE"),
        ("x = (", "cannot be run: SyntaxError"),
        ("raise ValueError('two\\nlines')", "cannot be run: ValueError: two lines"),
        (MINE.format(fixed={}), "train_batch_size is missing"),
    ],
)
def test_a_broken_file_is_refused_in_one_sentence(tmp_path, text, hint):
    (tmp_path / "my_space.py").write_text(text)
    with pytest.raises(InputError, match=hint) as refused:
        load_space(str(tmp_path / "my_space.py"))
    assert "\n" not in str(refused.value)


def test_a_missing_file_and_one_that_is_no_python_are_refused(tmp_path):
    with pytest.raises(InputError, match="there is no search space at"):
        load_space("./nowhere.py")
    (tmp_path / "space.yaml").write_text("a: 1")
    with pytest.raises(InputError, match="not a Python file"):
        load_space(str(tmp_path / "space.yaml"))


@pytest.mark.parametrize("path", sorted(HOME.glob("[!_]*.py")), ids=lambda path: path.stem)
def test_a_search_space_module_imports_the_space_classes_alone(path):
    imports = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [ast.unparse(node) for node in imports] == ["from tuneopt.search import space"]


def test_spaces_and_search_need_nothing_heavy():
    code = (
        "import sys, tuneopt.search; from tuneopt.search import load_space, Sweep, descend\n"
        "from tuneopt.run.simulated import simulate\n"
        "from tuneopt.search.space import space_names\n"
        "[load_space(name).on(ladder) for name in space_names() for ladder in load_space(name).ladders]\n"
        "print(sorted({'torch', 'ray', 'numpy', 'pyarrow', 'scipy', 'optuna'} & set(sys.modules)))"
    )
    assert importlib.util.find_spec("numpy"), "there is something to find"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    with pytest.raises(AttributeError, match="no attribute 'wings'"):
        import tuneopt.search

        tuneopt.search.wings  # noqa: B018


def test_every_optimizer_runs_under_every_schedule_and_a_cosine_tunes_no_decay():
    muon = load_space("muon").on("nano", {"lr_schedule": "cosine", "warmup": 0.1})
    start = dict(muon.start)
    assert start["lr_schedule"] == "cosine" and start["warmup"] == 0.1
    assert muon.by_name["decay"].pinned and "decay" not in [axis.name for axis in muon.varied]
    adamw = load_space("adamw").on("nano", {"lr_schedule": "linear", "decay": 0.4})
    assert dict(adamw.start)["decay"] == 0.4 and dict(adamw.start)["lr_schedule"] == "linear"
    assert load_space("adamw").on("nano", {"lr_schedule": "cosine"}) == load_space("adamw").on("nano"), "ids stay"
    for words, told in (
        ({"lr_schedule": "cosin"}, "cosine"),
        ({"lr_schedule": "cosine", "decay": 0.5}, "no decay phase"),
        ({"decay": 0.5}, "no decay phase"),
        ({"min_lr_ratio": 2}, "fraction"),
    ):
        with pytest.raises(InputError, match=told):
            load_space("adamw").on("nano", words)

"""All built-in search spaces pass the suite that third parties inherit, and the suite catches what is wrong."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tuneopt.search.space import load_space, space_names
from tuneopt.search.sweep import Sweep
from tuneopt.search.testing import SearchSpaceConformance, ids
from tuneopt.spec import SCALES, CorpusId, InputError, Regime

LADDERS = (("paper", "130m"), ("nano", "nano-65k"))
ALL = ("adam_mini", "adamw", "cautious", "kron", "lion", "mars", "muon", "nadamw", "scion", "soap", "sophia")


@pytest.mark.parametrize("name", ALL)
class TestBuiltIn(SearchSpaceConformance):
    """The suite, once per space."""

    @pytest.fixture(autouse=True)
    def under_test(self, name):
        self.space = name


def test_every_built_in_space_is_under_test():
    assert space_names() == ALL


GOOD = """
from tuneopt.search.space import Coordinate, SearchSpace, learning_rate, train_batch_size, warmup
FIXED = {{"lr_schedule": "cosine", "min_lr_ratio": 0, "weight_decay": 0.1}}
SPACE = SearchSpace(
    optimizer="{optimizer}",
    coordinates=(
        learning_rate({{"paper": {grid}, "nano": (0.1, 0.2)}}, {{"paper": 0.1, "nano": 0.1}}),
        train_batch_size(),
        warmup({warmup}),
        {more}
    ),
    fixed={{"paper": FIXED, "nano": {{**FIXED, **{nano}}}}},
    source="{source}",
    found="by trying",
)
{tail}
"""
PLAIN = {
    "optimizer": "adamw", "grid": "(0.1, 0.2)", "warmup": "", "more": "", "nano": "{}", "source": "here", "tail": "",
}  # fmt: skip

ADD = (
    'Coordinate("{0}", "scale-free", "1", "what it is", {{"paper": (1.0, 2.0), "nano": (1.0, 2.0)}}, '
    '{{"paper": 1.0, "nano": 1.0}}),'
)
BAD = {
    "test_it_loads_without_torch_and_ray_and_ids_are_the_same_in_another_process": {"tail": "import numpy"},
    "test_names_and_sources_are_given": {"source": " "},
    "test_grids_are_sorted_unique_and_within_bounds": {"grid": "(0.2, 0.1)"},
    "test_the_start_is_within_bounds_and_runs_at_every_scale": {"warmup": 'starts={"paper": 32000}'},
    "test_ladders_name_the_same_hyperparameters": {"nano": '{"nesterov": True}'},
    "test_the_optimizer_takes_every_value": {"more": ADD.format("momentum")},
    "test_every_ladder_is_declared": {"tail": "import dataclasses; SPACE = dataclasses.replace("
                                              "SPACE, fixed={'nano': FIXED})"},
    "test_published_points_are_complete": {"tail": "import dataclasses; from tuneopt.search.space import tuned\n"
        "SPACE = dataclasses.replace(SPACE, published=tuned({'learning_rate': 0.1}, (('130m', 1, 3.5, {}),)))"},
}  # fmt: skip


def suite(folder: Path, **changed: str) -> SearchSpaceConformance:
    path = folder / "my_space.py"
    path.write_text(GOOD.format(**{**PLAIN, **changed}))
    return type("Suite", (SearchSpaceConformance,), {"space": str(path)})()


CHECKS = [name for name in vars(SearchSpaceConformance) if name.startswith("test_")]


def test_a_sound_space_passes_every_check(tmp_path):
    sound = suite(tmp_path)
    for check in CHECKS:
        getattr(sound, check)()


@pytest.mark.parametrize("check", BAD)
def test_each_fault_is_caught_by_the_check_for_it(check, tmp_path):
    with pytest.raises((AssertionError, InputError)):
        getattr(suite(tmp_path, **BAD[check]), check)()


def test_a_space_for_another_optimizer_is_caught(tmp_path):
    wrong = suite(tmp_path, optimizer="lion")
    wrong.optimizer = "adamw"
    with pytest.raises(AssertionError, match="another optimizer"):
        wrong.test_the_optimizer_takes_every_value()


def test_a_suite_without_a_space_asks_for_one():
    with pytest.raises(AttributeError, match="set space"):
        SearchSpaceConformance().load()


FROZEN = {
    "adam_mini": ("9bee3877f5ba2291", "c43a901588514faa", "424d038d18d10c92"),
    "adamw": ("f001e92c8fe16c8f", "b08447419498ccf9", "02e4f956cdc06da5"),
    "cautious": ("fce8a2b0d4ffe570", "1ccf299bc8445e7c", "c29a62a4d388aa4d"),
    "kron": ("a9d8ae12d4ea5aa5", "1a054b4b43c9e290", "48a1d493226c26a6"),
    "lion": ("009ed9250e110c10", "4ef334dc8ee06de6", "a94dddfafef06190"),
    "mars": ("4130eea124abfe82", "a740659d792b53c1", "afaf78609324b644"),
    "muon": ("7367a748a0978b81", "ce414049031f0f22", "82170695299c7e1d"),
    "nadamw": ("7155a115cb49a8a5", "0a25156ef119512f", "78bc27e085b94b92"),
    "scion": ("be44242e7425e9f0", "908412bdc2acd61c", "60ef60aa35cb07f7"),
    "soap": ("d3919121ed014e4c", "21c8acb732ee8318", "f28e594cb5107f68"),
    "sophia": ("2310c56724b0664d", "8a07b11b3e025d15", "ae8a787783efda24"),
}
"""By name: the digest of what the space describes, and the ids of its starts at 130m and nano-65k, ratio 1, as they
were when every module still spelled out each coordinate (muon and scion: when their options were named)."""

CORPUS = CorpusId("c", "f" * 64, 1024)


@pytest.mark.parametrize("name", ALL)
def test_descriptions_and_ids_are_those_of_the_first_release(name):
    space = load_space(name)
    text = json.dumps(space.describe(), sort_keys=True)
    sweeps = [Sweep(space.on(ladder), Regime(SCALES[scale], 1.0, CORPUS)) for ladder, scale in LADDERS]
    found = (hashlib.sha256(text.encode()).hexdigest()[:16], *(sweep.trial_id(sweep.space.start) for sweep in sweeps))
    assert found == FROZEN[name]


def test_a_described_space_is_stable_json():
    for name in space_names():
        described = load_space(name).describe()
        assert json.loads(json.dumps(described)) == described
        assert set(ids(load_space(name))) == {"paper", "nano"}

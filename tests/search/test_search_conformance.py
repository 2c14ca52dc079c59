"""All built-in search spaces pass the suite that third parties inherit, and the suite catches what is wrong."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tuneopt.search.space import load_space, space_names
from tuneopt.search.sweep import Sweep
from tuneopt.search.testing import CORPUS as CONFORMANCE
from tuneopt.search.testing import SearchSpaceConformance, ids
from tuneopt.spec import SCALES, CorpusId, InputError, Regime

LADDERS = (("paper", "130m"), ("nano", "nano-65k"))
STUDY = ("adam_mini", "adamw", "cautious", "kron", "lion", "mars", "muon", "nadamw", "scion", "soap", "sophia")
SWITCHED = ("adamc", "adamh", "kl_soap", "moonlight", "muonc", "muonh", "normuon", "soap_muon")
FURTHER = ("ademamix", "adopt", "dion", "prodigy", "schedule_free", "sf_muon", "shampoo")
ALL = tuple(sorted(STUDY + SWITCHED + FURTHER))


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
    grid_source="by trying",
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
    "kron": ("6c37bb7a97de838d", "1a054b4b43c9e290", "48a1d493226c26a6"),
    "lion": ("009ed9250e110c10", "4ef334dc8ee06de6", "a94dddfafef06190"),
    "mars": ("4130eea124abfe82", "a740659d792b53c1", "afaf78609324b644"),
    "muon": ("6d773609bbaa39cc", "ce414049031f0f22", "82170695299c7e1d"),
    "nadamw": ("7155a115cb49a8a5", "0a25156ef119512f", "78bc27e085b94b92"),
    "scion": ("490acf1f119daf5d", "908412bdc2acd61c", "60ef60aa35cb07f7"),
    "soap": ("b3a66ab2eba1e77a", "21c8acb732ee8318", "f28e594cb5107f68"),
    "sophia": ("2310c56724b0664d", "8a07b11b3e025d15", "ae8a787783efda24"),
}
"""By name: the digest of what the space describes, and the ids of its starts at 130m and nano-65k, ratio 1, as they
were when every module still spelled out each coordinate (kron, muon, scion and soap: when their switches were
named, of soap the last two, of muon and scion `split_heads`; muon's and scion's products on the paper ladder were fp32
then, which `FP32` names)."""


FP32 = {("muon", "paper"): {"ns_precision": "fp32"}, ("scion", "paper"): {"ns_precision": "fp32"}}
"""What makes today's trials those of the first release."""

CORPUS = CorpusId("c", "f" * 64, 1024)


@pytest.mark.parametrize("name", STUDY)
def test_descriptions_and_ids_are_those_of_the_first_release(name):
    space = load_space(name)
    text = json.dumps(space.describe(), sort_keys=True)
    sweeps = [
        Sweep(space.on(ladder, FP32.get((name, ladder), {})), Regime(SCALES[scale], 1.0, CORPUS))
        for ladder, scale in LADDERS
    ]
    found = (hashlib.sha256(text.encode()).hexdigest()[:16], *(sweep.trial_id(sweep.space.start) for sweep in sweeps))
    assert found == FROZEN[name]


SWEEPS = [
    ("adam_mini", "paper", "db8a56df3b0430fc", "d3837e4fae2d89a7", "bf801a140f45d3ae"),
    ("adam_mini", "nano", "3e99b9c590e5272c", "36089e6ad7b27752", "6749604894c97819"),
    ("adamw", "paper", "dbce167ff8fdfe73", "c80f929f27c383b8", "7d5676cc59847057"),
    ("adamw", "nano", "085a7b9943684d85", "d57f1035ebe4b5c8", "2b169d5106bf1aba"),
    ("cautious", "paper", "aef62a521d9d23ef", "8465d83850a937c3", "8984da3fde2232db"),
    ("cautious", "nano", "487dfc722b7d38c0", "b9ce5907961f2726", "d219ddbc56a9ef57"),
    ("kron", "paper", "2e448c5917e1d652", "9f0e526e883d9e9a", "da97c1c3ff0e5159"),
    ("kron", "nano", "7e773748f59119b3", "f553822c3e21675b", "c841704ff1d6f9f1"),
    ("lion", "paper", "0e502a16688a5642", "cc2872d28ade3a80", "1839a5015cfc48cd"),
    ("lion", "nano", "157db79cf0e980f9", "7562a7a209e329a3", "dfd6c339d4a38a05"),
    ("mars", "paper", "2e883e97f7be3140", "4de79fffb65f8eb7", "e026c0bede5aa131"),
    ("mars", "nano", "de1009ef10f1c766", "1ce0454e24f9dd73", "775a649470a2f3db"),
    ("muon", "paper", "a76b6a136d0a12e1", "4ae75f1b30fdb09e", "a314faed0b28a083"),
    ("muon", "nano", "1e0080bd8c4587e2", "34eed727fce0ad68", "e944a48a170288d3"),
    ("nadamw", "paper", "020aa5a609f0ff82", "1e5bda9ea0a60c91", "33426f2a58f17a5c"),
    ("nadamw", "nano", "857327e5ea6255d2", "5fa4adc3fdf6df3b", "46914475fe0cb572"),
    ("scion", "paper", "62f7eb9366817429", "a42edccae3aec8c3", "ebe8b2ab5584f3f1"),
    ("scion", "nano", "5752bc4bec2f7820", "56e7b6b57943e679", "28aa8175d787d59e"),
    ("soap", "paper", "e2ae98626d437c4f", "9e5ca99eb6cae01c", "8269212fcb111a7b"),
    ("soap", "nano", "e246269f0de43e6a", "a09d00836fdee96a", "7fcb755329ab4e75"),
    ("sophia", "paper", "d7e1a9fd14e5774a", "f7221fa85b14f61c", "e874cf6765097f4b"),
    ("sophia", "nano", "6a4cb46419329060", "0c2ee5b4c4888702", "3acb373f53847543"),
]
"""By space and ladder: the id of the sweep of the ladder's first regime, of its start, and a digest of the ids of the
star around the start and of every extension beyond its edges, in order."""


@pytest.mark.parametrize(("name", "ladder", "swept", "start", "star"), SWEEPS)
def test_sweeps_stars_and_extensions_keep_their_ids(name, ladder, swept, start, star):
    space = load_space(name)
    regime = next(Regime(scale, 1.0, CONFORMANCE) for scale in SCALES.values() if scale.ladder == ladder)
    sweep = Sweep(space.on(ladder, FP32.get((name, ladder), {})), regime)
    assert [sweep.id, sweep.trial_id(sweep.space.start)] == [swept, start]
    assert (ids(space)[ladder] == [swept, start]) == ((name, ladder) not in FP32)
    around = [config for _, _, config in sweep.space.star(sweep.space.start)]
    for axis in sweep.space.axes:
        around += [sweep.space.change(sweep.space.start, axis.name, value) for value in (*axis.below, *axis.above)]
    text = " ".join(sweep.trial_id(config) for config in around)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == star


def test_a_described_space_is_stable_json():
    for name in space_names():
        described = load_space(name).describe()
        assert json.loads(json.dumps(described)) == described
        assert set(ids(load_space(name))) == {"paper", "nano"}


@pytest.mark.parametrize("name", ["muon", "scion"])
def test_products_are_tf32_on_the_paper_ladder_alone(name):
    fixed = {ladder: dict(load_space(name).on(ladder).fixed)["ns_precision"] for ladder, _ in LADDERS}
    assert fixed == {"paper": "tf32", "nano": "fp32"}

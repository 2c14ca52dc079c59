"""The example of docs/bring-your-own-optimizer.md: its own files, under the suites and through the command line."""

from __future__ import annotations

import json
import lzma
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from outside_samples import PAGE, SPACE, page_files

import tuneopt.data as tuneopt_data
from tuneopt import api, outside
from tuneopt.ledger import Ledger
from tuneopt.optim import UpdateCheck, external
from tuneopt.optim.factory import implementation
from tuneopt.optim.testing import OptimizerConformance, TinyModel, seed_gradients
from tuneopt.search.testing import SearchSpaceConformance

SMALL = ["--scale", "nano-65k", "--ratio", "0.02", "--no-compile"]
HELD = ["learning_rate=0.004,0.008", "weight_decay=0.1", "momentum=0.95", "warmup=0.1", "train_batch_size=16"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return page_files(tmp_path_factory.mktemp("page"))


def my_class(folder: Path):
    return implementation(external.resolve(f"{folder / 'my_optimizer.py'}:Mine"))


class TestMine(OptimizerConformance):
    @pytest.fixture(autouse=True)
    def under_test(self, folder):
        self.kind = my_class(folder)

    def make(self, params, **overrides):
        return self.kind(params, **overrides)


class TestMySpace(SearchSpaceConformance):
    @pytest.fixture(autouse=True)
    def under_test(self, folder):
        self.space = str(folder / "my_space.py")
        self.optimizer = f"{folder / 'my_optimizer.py'}:Mine"


def broken(kind, factor: float = 1.0, angle: float = 0.0):
    """The page's optimizer with a rule that takes a wrong step."""

    class Wrong(type(kind.rules[0])):
        def direction(self, gradients, state, settings, step):
            found = super().direction(gradients, state, settings, step)
            return [factor * u + angle * torch.ones_like(u) for u in found]

    return type("Wrong", (kind,), {"rules": (Wrong(),)})


@pytest.mark.parametrize(("factor", "angle"), [(1.01, 0.0), (1.0, 0.1)])
def test_the_proof_on_the_page_catches_a_wrong_rule(folder, factor, angle):
    def status(kind):
        model = TinyModel()
        optimizer = kind(model)
        check = UpdateCheck(optimizer)
        for seed in range(5):
            seed_gradients(model, seed)
            check.before_step()
            optimizer.step()
            check.after_step()
        return check.proof().status

    assert status(my_class(folder)) == "passed"
    assert status(broken(my_class(folder), factor, angle)) == "failed"


def test_without_a_reference_the_proof_is_generic(folder):
    kind = my_class(folder)
    model = TinyModel()
    optimizer = type("Bare", (kind,), {"reference": None})(model)
    check = UpdateCheck(optimizer)
    for seed in range(5):
        seed_gradients(model, seed)
        check.before_step()
        optimizer.step()
        check.after_step()
    proof = check.proof()
    assert proof.passed
    assert all("cannot show which rule ran" in claim.detail for claim in proof.checks[1:])


def test_the_page_shows_the_commands_that_these_tests_run():
    text = PAGE.read_text()
    for command in ("train", "tune "):
        assert f"tuneopt {command} --optimizer ./my_optimizer.py:Mine --space ./my_space.py" in text
    assert f"{outside.DIGITS:d}" == "12" and "twelve digits of the SHA-256" in text


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 200 documents of the embedded corpus, as a user's own folder."""
    folder = tmp_path_factory.mktemp("text")
    embedded = Path(tuneopt_data.__file__).parent / "embedded" / "public-domain-mix.txt.xz"
    for number, document in enumerate(lzma.decompress(embedded.read_bytes()).decode().split("<|endoftext|>")[:200]):
        (folder / f"{number:03d}.txt").write_text(document)
    return folder


def tuneopt(folder: Path, *arguments: str) -> dict:
    command = [sys.executable, "-m", "tuneopt", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=280)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


FILES = ["--optimizer", "./my_optimizer.py:Mine", "--space", "./my_space.py"]


MADE = ["--optimizer", "./torch_muon.py:torch_muon", "--space", "./torch_muon_space.py"]

TIED = """
from torch import nn

class Tied(nn.Module):
    def __init__(self, vocab_size, seq_len=32):
        super().__init__()
        self.words, self.mix, self.out = nn.Embedding(vocab_size, 32), nn.Linear(32, 32), nn.Linear(32, vocab_size)
        self.out.weight = self.words.weight

    def forward(self, tokens):
        return self.out(self.words(tokens) + self.mix(self.words(tokens)).relu())
"""


def test_the_function_on_the_page_gives_muon_the_matrices_alone(folder):
    (folder / "tied.py").write_text(TIED)
    optimizer, space = (str(folder / word.removeprefix("./")) for word in MADE[1::2])
    facts = api.model_facts(f"{folder / 'tied.py'}:Tied", optimizer, space)
    assert {row.parameter: (row.role, row.rule) for row in facts.routing} == {
        "words.weight": ("embedding", "AdamW"),  # and so the tied head
        "mix.weight": ("matrix", "Muon"),
        "mix.bias": ("vector", "AdamW"),
        "out.bias": ("vector", "AdamW"),
    }
    sweep, _ = api.plan(optimizer, space=space)
    spec = sweep.spec(sweep.space.start)
    assert spec.optimizer == external.resolve(optimizer) and spec.optimizer.startswith("torch_muon@")
    source = (folder / "torch_muon.py").read_text()
    (folder / "torch_muon.py").write_text(source.replace("0.15", "0.2"))
    assert api.plan(optimizer, space=space)[0].spec(sweep.space.start).id != spec.id, "the file is part of the id"
    (folder / "torch_muon.py").write_text(source)


class TestTorchMuonSpace(SearchSpaceConformance):
    @pytest.fixture(autouse=True)
    def under_test(self, folder):
        self.space = str(folder / "torch_muon_space.py")
        self.optimizer = f"{folder / 'torch_muon.py'}:torch_muon"


@pytest.mark.slow
@pytest.mark.parametrize("model", [[], ["--model", "tied.py:Tied"]], ids=["decoder", "own model"])
def test_what_the_function_makes_trains_and_is_proven(folder, text, model):
    (folder / "tied.py").write_text(TIED)
    budget = ["--steps", "40"] if model else ["--ratio", "0.02"]
    record = tuneopt(
        folder, "train", *MADE, *budget, *model, "--no-compile", "--corpus", str(text), "--ledger", "made",
        "--set", "train_batch_size=16",
    )  # fmt: skip
    assert record["proof"]["passed"] and record["select_loss"] < record["initial_loss"] - 0.3
    assert {check["name"].partition(".")[0] for check in record["proof"]["checks"]} == {"Muon", "AdamW"}
    assert {route["rule"] for route in record["routing"]} == {"Muon", "AdamW"}


@pytest.mark.slow
def test_the_suites_on_the_page_run_as_they_stand(folder):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py"],
        capture_output=True, text=True, cwd=folder, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "31 passed" in done.stdout


@pytest.mark.slow
def test_one_trial_of_each_kind_trains(folder, text):
    places = ["--corpus", str(text), "--ledger", "trained"]
    record = tuneopt(folder, "train", *FILES, *SMALL, *places, "--set", "train_batch_size=16")
    assert record["spec"]["optimizer"] == external.resolve(f"{folder / 'my_optimizer.py'}:Mine")
    assert record["proof"]["passed"] and record["select_loss"] < record["initial_loss"] - 0.3
    assert record["optimizer_state_bytes"] == 4 * sum(
        torch.Size(route["shape"]).numel() for route in record["routing"]
    ), "one momentum"
    (folder / "radam_space.py").write_text(SPACE.format(name="RAdam"))
    plain = tuneopt(
        folder, "train", "--optimizer", "./radam.py:RAdam", "--space", "./radam_space.py", *SMALL, *places,
        "--set", "train_batch_size=16",
    )  # fmt: skip
    assert plain["proof"]["passed"] and "cannot show which rule ran" in json.dumps(plain["proof"])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_sweep_runs_on_workers_and_an_edited_file_would_be_swept_anew(folder, text):
    grids = [word for grid in HELD for word in ("--grid", grid)]
    seeds = ["--replicates", "2", "--resolution", "0.3"]  # what two seeds of this little can certify
    sweep = ["tune", *FILES, *SMALL, "--corpus", str(text), "--ledger", "swept", *seeds, *grids]
    first = tuneopt(folder, *sweep)
    assert first["certificate"]["complete"] and first["trials"]["failed"] == 0 and first["trials"]["run"] >= 2
    assert first["optimizer"] == external.resolve(f"{folder / 'my_optimizer.py'}:Mine")
    again = tuneopt(folder, *sweep)
    assert again["trials"]["run"] == 0 and again["best"] == first["best"]
    source = (folder / "my_optimizer.py").read_text()
    (folder / "my_optimizer.py").write_text(source + "# edited\n")
    edited = tuneopt(folder, *sweep, "--dry-run")
    (folder / "my_optimizer.py").write_text(source)
    undone = tuneopt(folder, *sweep, "--dry-run")
    assert edited["optimizer"] != first["optimizer"] == undone["optimizer"]
    assert edited["trials"]["in_ledger"] == 0 and undone["trials"]["in_ledger"] == first["trials"]["run"]
    ledger = Ledger(folder / "swept")
    assert all(record.proof_passed for record in ledger.records()) and ledger.verify() == []
    (kept,) = ledger.sweeps().values()
    assert kept["optimizer_source"] == source

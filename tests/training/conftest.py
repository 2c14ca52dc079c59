"""A corpus small enough to prepare in a second, and trials that end in one."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tiny_trials import CONFIG, TINY, VOCAB

from tuneopt.data import Corpus, load_corpus
from tuneopt.spec import Evaluation, Regime, TrialSpec

WORDS = (
    "the",
    "sea",
    "ship",
    "storm",
    "captain",
    "sailed",
    "great",
    "white",
    "whale",
    "over",
    "dark",
    "night",
    "never",
)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corpus]:
    folder = tmp_path_factory.mktemp("text")
    generator = random.Random(0)
    for number in range(300):
        text = " ".join(generator.choice(WORDS) for _ in range(120))
        (folder / f"{number:03d}.txt").write_text(f"Chapter {number}. {text}.")
    yield load_corpus(str(folder), vocab_size=VOCAB, cache_dir=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def module_spec(corpus: Corpus) -> Callable[..., TrialSpec]:
    def make(optimizer: str = "adamw", ratio: float = 0.1, seed: int = 0, micro_batch: int = 8, **changes) -> TrialSpec:
        return TrialSpec(
            optimizer,
            TrialSpec.freeze({name: value for name, value in {**CONFIG, **changes}.items() if value is not None}),
            Regime(TINY, ratio, corpus.id),
            seed=seed,
            micro_batch=micro_batch,
            evaluation=Evaluation(points=4, curve_sequences=16, final_sequences=32),
        )

    return make


@pytest.fixture
def make_spec(module_spec: Callable[..., TrialSpec]) -> Callable[..., TrialSpec]:
    return module_spec


@pytest.fixture
def ledger_folder(tmp_path: Path) -> Path:
    return tmp_path / "ledger"

"""What sweeps run on: a folder of real text, and records as a worker would write them, without training."""

import lzma
from pathlib import Path

import pytest

import tuneopt.data


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 200 documents of the embedded corpus, as a user's own folder."""
    folder = tmp_path_factory.mktemp("text")
    embedded = Path(tuneopt.data.__file__).parent / "embedded" / "public-domain-mix.txt.xz"
    documents = lzma.decompress(embedded.read_bytes()).decode().split("<|endoftext|>")
    for number, text in enumerate(documents[:200]):
        (folder / f"{number:03d}.txt").write_text(text)
    return folder

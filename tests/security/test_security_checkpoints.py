"""A checkpoint that carries a program is passed over and the program does not run."""

import contextlib
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from tuneopt.training.checkpoint import CheckpointStore


class Touch:
    """Unpickled by an ordinary unpickler, this makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def saved(folder: Path, state: Any, name: str = "step-000000002.pt") -> Path:
    folder.mkdir(exist_ok=True)
    torch.save(state, folder / name)
    return folder / name


@pytest.mark.parametrize("form", ["archive", "bare pickle", "old torch format"])
def test_a_program_in_a_checkpoint_does_not_run(form: str, tmp_path: Path) -> None:
    caught, folder = tmp_path / "caught", tmp_path / "checkpoints"
    saved(folder, {"step": 1}, "step-000000001.pt")
    path = folder / "step-000000002.pt"
    if form == "archive":
        saved(folder, {"step": 2, "bad": Touch(caught)})
    elif form == "bare pickle":
        path.write_bytes(pickle.dumps(Touch(caught)))
    else:
        torch.save({"bad": Touch(caught)}, path, _use_new_zipfile_serialization=False)
    found = CheckpointStore(folder).load_newest(torch.device("cpu"))
    assert not caught.exists()
    assert found is not None and found[0] == 1, "the one before it is taken"
    with contextlib.suppress(RuntimeError):  # a bare pickle is no checkpoint in the end; its program ran by then
        torch.load(path, weights_only=False)
    assert caught.exists(), "the program would have run otherwise"


def test_an_archive_of_another_kind_is_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    with zipfile.ZipFile(folder / "step-000000001.pt", "w") as archive:
        archive.writestr("../../outside.txt", "x")
    assert CheckpointStore(folder).load_newest(torch.device("cpu")) is None
    assert not (tmp_path / "outside.txt").exists() and not (tmp_path.parent / "outside.txt").exists()

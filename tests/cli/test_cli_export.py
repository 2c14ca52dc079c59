"""``tuneopt export`` and the options of ranks: what they refuse, in one line, with nothing written."""

import json
import shlex
import sys
from pathlib import Path

import pytest

from tuneopt.api.weights import ExportedModel
from tuneopt.cli import main
from tuneopt.ledger import Ledger

TABLE = """
export                                        | trial
export abc                                    | folder
export abc model                              | no trial in
export abc model --to onnx                    | known: hf
export abc model --ledger nowhere             | there is no ledger at
export abc mine.txt                           | not empty; name a new folder
export abc full                               | not empty; name a new folder
tune -O adamw --ranks 0                       | --ranks
tune -O adamw --ranks 2 --zero 4              | --zero
tune -O adamw --ranks 2 --offload --zero 0    | offload needs ZeRO
train -O adamw --ranks none                   | --ranks
"""
CASES = [tuple(part.strip() for part in line.split("|")) for line in TABLE.strip().splitlines()]


@pytest.fixture
def place(tmp_path: Path, monkeypatch) -> Path:
    """A working folder with an empty ledger, a file and a folder that holds one."""
    monkeypatch.chdir(tmp_path)
    Ledger(tmp_path / "ledger").put_sweep("none", {})
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    return tmp_path


@pytest.mark.parametrize(("words", "said"), CASES, ids=[words for words, _ in CASES])
def test_refused_in_one_line(place: Path, monkeypatch, capsys, words: str, said: str) -> None:
    before = sorted(path.relative_to(place) for path in place.rglob("*"))
    monkeypatch.setattr(sys, "argv", ["tuneopt", *shlex.split(words)])
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    assert ended.value.code == 2 and out == ""
    assert said in err and err.count("\n") == 1, err
    assert sorted(path.relative_to(place) for path in place.rglob("*")) == before


def test_an_export_says_what_it_wrote(place: Path, monkeypatch, capsys) -> None:
    told = {"trial": "abcd", "path": "model", "format": "hf", "files": ["config.json"], "bytes": 1 << 20}
    losses = {"select_loss": 3.5, "retrained_select_loss": 3.5}
    monkeypatch.setattr("tuneopt.api.export_model", lambda *words, **options: ExportedModel(**told, **losses))
    for more in ([], ["--json"]):
        monkeypatch.setattr(sys, "argv", ["tuneopt", "export", "ab", "model", "--retrain", *more])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0
        out, err = capsys.readouterr()
        if more:
            assert json.loads(out) == {**told, **losses}
        else:
            assert "model of trial abcd is in model (1.0 MiB)" in err + out
            assert "select loss 3.500000, as recorded" in err + out

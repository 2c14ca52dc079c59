"""Files that are no files, hold garbage or cannot be read or written: one line, exit code 2, nothing written."""

import json
import re
import shlex
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
from permissions import obeyed
from test_bad_input import picture, run

TABLE = """
study: a folder                    | study plan folder                                        | folder
study: binary                      | study plan binary.yaml                                   | binary.yaml
study: control characters          | study plan zeros.yaml                                    | zeros.yaml
study: aliases that multiply       | study plan laughs.yaml                                   | aliases
study: nested                      | study plan nested.yaml                                   | nested
study: huge                        | study plan huge.yaml                                     | KiB
study: number beyond every number  | study plan infinite.yaml                                 | must be a number
study: number of 4000 digits       | study plan digits.yaml                                   | replicates
study: half a surrogate            | study plan surrogate.yaml                                | surrogate.yaml
study: a key of 50,000 letters     | study plan wide.yaml                                     | not YAML
study: a grid of 2000 values       | study plan grid.yaml                                     | up to 1000
study: not readable                | study plan closed.yaml                                   | closed.yaml
study: a date                      | study plan date.yaml                                     | quotes
study: stars that are no stars     | study run smoke.yaml --simulate --stars list.json        | list.json
study: stars that are binary       | study run smoke.yaml --simulate --stars binary.json      | binary.json
study: budget of nobody            | study run smoke.yaml --gpus-per-trial nan --ledger new   | --gpus-per-trial
report: a folder as results        | report --results folder.csv                              | folder.csv
report: binary CSV                 | report --results binary.csv                              | binary.csv
report: binary JSON                | report --results binary.json                             | binary.json
report: binary Parquet             | report --results binary.parquet                          | binary.parquet
report: Parquet cut short          | report --results cut.parquet                             | cut.parquet
report: nested JSON                | report --results nested.json                             | nested.json
report: NaN as a loss              | report --results nan.json                                | loss
report: number of 400 digits       | report --results digits.json                             | finite
report: a control character        | report --results escape.json                             | printable
report: half a surrogate           | report --results surrogate.json                          | printable
report: a rate of words            | report --results words.json                              | must be a number
report: a list of numbers          | report --results list.json                               | list of objects
report: not readable               | report --results closed.csv                              | closed.csv
report: output below a file        | report --published -o a-file/report.html                 | a-file
report: figures below a file       | report --published --figures a-file                      | no folder
report: output without rights      | report --published -o locked/report.html                 | locked
report: output with a NUL          | report --published -o "nul\\0.html"                       | --output
report: damaged sweep              | report --ledger oddsweep                                 | sweeps/
report: sweep of a million seeds   | report --ledger manyseeds                                | replicates
ledger: marker is a folder         | ledger ls --ledger markerfolder                          | markerfolder
ledger: marker is binary           | ledger ls --ledger binarymarker                          | damaged
ledger: marker of 400 digits       | ledger ls --ledger digitmarker                           | schema
ledger: not readable               | ledger ls --ledger lockedledger                          | lockedledger
ledger: binary record              | ledger ls --ledger binaryrecord                          | damaged
ledger: record of wrong kinds      | ledger ls --ledger wrongkinds                            | damaged
ledger: record with a huge number  | ledger ls --ledger hugenumber                            | damaged
ledger: record of half a surrogate | ledger export all.csv --ledger surrogate                 | damaged
ledger: record of another trial    | ledger show 00aa --ledger renamed                        | move it away
ledger: secret in the address      | ledger ls --ledger s3://key:secret@bucket/ledger         | key or password
ledger: address with a NUL         | ledger ls --ledger "nul\\0"                               | ledger
ledger: name of 5000 letters       | ledger ls --ledger {long}                                | ledger
ledger export: without rights      | ledger export locked/all.csv --ledger fine               | locked
ledger export: below a file        | ledger export a-file/all.csv --ledger fine               | make it first
predict: damaged sweep             | predict -O adamw --params 1e8 --ratio 1 --ledger rotten  | sweeps/
predict: parameters beyond all     | predict -O adamw --params 1e400 --ratio 1                | param
predict: ratio beyond all          | predict -O adamw --params 1e8 --ratio 1e400              | ratio
tune: ratio beyond all             | tune -O adamw --ratio 1e300 --ledger new                 | more tokens
tune: seed of 400 digits           | tune -O adamw --seed {digits} --ledger new               | seed
tune: replicates without end       | tune -O adamw --replicates 1000000000 --ledger new       | replicates
tune: page below a file            | tune -O adamw -o a-file/x.html --ledger new              | no folder
tune: page without rights          | tune -O adamw -o locked/x.html --ledger new              | permission denied
tune: events in a file             | tune -O adamw --tensorboard a-file --ledger new          | no folder
tune: grid of 2000 values          | tune -O adamw --grid learning_rate={grid} --ledger new   | up to 1000
tune: value of 5000 digits         | tune -O adamw --set beta1={digits}{digits} --ledger new  | beta1
tune: path in an optimizer's name  | tune -O ../../etc/passwd --ledger new                    | PATH.py:Class
tune: path of a class that is none | tune -O ../../etc/passwd:X --ledger new                  | passwd
tune: digest of nobody             | tune -O adamw@0123456789ab --ledger new                  | adamw
tune: corpus not readable          | tune -O adamw --corpus lockedtext --ledger new           | lockedtext
tune: corpus of binary text        | tune -O adamw --corpus binary.txt --ledger new           | UTF-8
tune: corpus of binary Parquet     | tune -O adamw --corpus binary.parquet --ledger new       | binary.parquet
tune: corpus of nested JSON lines  | tune -O adamw --corpus nested.jsonl --ledger new         | JSON
data inspect: a binary corpus      | data inspect --corpus binary.txt                         | UTF-8
train: ledger without rights       | train -O adamw --no-compile --ledger locked/ledger       | locked
"""

UNREADABLE = ("closed.", "locked")
"""Rows that need a user whom permissions bind."""

ROWS = {
    name.strip(): (arguments.strip(), expected.strip())
    for name, arguments, expected in (line.split("|") for line in TABLE.strip().splitlines())
}

FILLED = {
    "{long}": "x" * 5000,
    "{digits}": "9" * 4000,
    "{grid}": ",".join(f"{number}e-6" for number in range(1, 2001)),
}


@pytest.fixture(scope="module")
def rubbish(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files that are not what their names say. No test may change it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from tuneopt.ledger import Ledger
    from tuneopt.scale_files import find_scale
    from tuneopt.search.space import load_space
    from tuneopt.search.sweep import Sweep
    from tuneopt.spec import CorpusId, Regime

    root = tmp_path_factory.mktemp("rubbish")
    smoke = (Path(__file__).resolve().parents[2] / "studies" / "smoke.yaml").read_text()
    row = {"optimizer": "adamw", "scale": "nano-65k", "ratio": 1, "loss": 3.5, "hp_learning_rate": 0.1}
    binary = bytes(range(256)) * 40
    laughs = [f"{y}: &{y} [*{x}, *{x}]" for x, y in zip("abcdefgh", "bcdefghi", strict=True)]
    grid = ", ".join(f"{number}.0e-6" for number in range(1, 2001))
    texts = {
        "a-file": "not a folder",
        "smoke.yaml": smoke,
        "closed.yaml": smoke,
        "zeros.yaml": "\0" * 200,
        "laughs.yaml": "\n".join(['a: &a ["lol", "lol"]', *laughs]),
        "nested.yaml": "name: " + "[" * 5000,
        "huge.yaml": "#" * 300_000,
        "infinite.yaml": change(smoke, "ratios", "[1e400]"),
        "digits.yaml": change(smoke, "replicates", "9" * 4000),
        "surrogate.yaml": change(smoke, "name", '"\\ud800"'),
        "wide.yaml": smoke + "x" * 50_000 + ": 1\n",
        "date.yaml": change(smoke, "name", "2026-01-01"),
        "grid.yaml": change(smoke, "optimizers", f"{{adamw: {{grid: {{learning_rate: [{grid}]}}}}}}"),
        "list.json": "[1, 2]",
        "nested.json": "[" * 100_000,
        "nested.jsonl": '{"text": ' + "[" * 100_000,
        "closed.csv": "optimizer,scale,ratio,loss\nadamw,nano-65k,1,3.5\n",
    }
    rows = {
        "nan.json": {"loss": float("nan")},
        "digits.json": {"ratio": 10**400},
        "escape.json": {"optimizer": "\x1b[2Jx"},
        "surrogate.json": {"corpus": "\ud800"},
        "words.json": {"hp_learning_rate": "fast"},
    }
    texts |= {name: json.dumps([{**row, **change}]) for name, change in rows.items()}
    for name, text in texts.items():
        (root / name).write_text(text)
    for name in ("binary.yaml", "binary.csv", "binary.json", "binary.parquet", "binary.txt"):
        (root / name).write_bytes(binary)
    pq.write_table(pa.Table.from_pylist([row]), root / "whole.parquet")
    (root / "cut.parquet").write_bytes((root / "whole.parquet").read_bytes()[:-20])
    (root / "folder").mkdir()
    (root / "folder.csv").mkdir()
    sweep = Sweep(load_space("adamw").on("nano"), Regime(find_scale("nano-65k"), 0.2, CorpusId("none", "00ff", 1024)))
    spec, plain = sweep.spec(sweep.space.start), json.loads(json.dumps(sweep.to_dict()))
    record = json.dumps({"trial": spec.id, "spec": spec.to_dict()})
    records = {
        "binaryrecord": binary, "wrongkinds": record.replace('"seed": 0', '"seed": []').encode(),
        "hugenumber": record.replace('"seed": 0', f'"seed": {10**400}').encode(),
        "surrogate": record.replace("none", "\\ud800").encode(), "renamed": record.encode(),
    }  # fmt: skip
    for name in ("fine", "oddsweep", "manyseeds", "rotten", *records):
        Ledger(root / name).put_sweep(sweep.id, plain)
        if name in records:
            (root / name / "trials").mkdir()
            (root / name / "trials" / f"{'00aa' if name == 'renamed' else spec.id}.json").write_bytes(records[name])
    (root / "rotten" / "sweeps" / "00.json").write_bytes(b'{"policy": 1, "space": {"optimizer": "adamw"}}')
    (root / "oddsweep" / "sweeps" / f"{sweep.id}.json").write_text(json.dumps({**plain, "space": []}))
    (root / "manyseeds" / "sweeps" / f"{sweep.id}.json").write_text(json.dumps({**plain, "replicates": 10**12}))
    (root / "markerfolder" / "ledger.json").mkdir(parents=True)
    for name, data in (
        ("binarymarker", binary),
        ("digitmarker", b'{"kind": "tuneopt ledger", "schema": ' + b"9" * 400 + b"}"),
    ):
        (root / name).mkdir()
        (root / name / "ledger.json").write_bytes(data)
    for name in ("locked", "lockedledger", "lockedtext"):
        (root / name).mkdir()
        (root / name).chmod(0o000)
    for name in ("closed.yaml", "closed.csv"):
        (root / name).chmod(0o000)
    return root


def change(text: str, key: str, value: str) -> str:
    """A study with one key's value replaced, that of several lines included."""
    return re.sub(rf"^{key}:.*\n( .*\n)*", "", text, flags=re.MULTILINE) + f"{key}: {value}\n"


def words_of(arguments: str) -> list[str]:
    words = [word.replace("\\0", "\0").replace("\\n", "\n") for word in shlex.split(arguments)]
    for name, text in FILLED.items():
        words = [word.replace(name, text) for word in words]
    return words


@pytest.mark.parametrize("name", ROWS)
def test_rubbish(name: str, rubbish: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, expected = ROWS[name]
    monkeypatch.chdir(rubbish)
    before = picture(rubbish)
    with obeyed() if any(word in arguments for word in UNREADABLE) else nullcontext(True) as bound:
        if not bound:
            pytest.skip("this user may read and write everything")
        began = time.monotonic()
        code = run(words_of(arguments), monkeypatch)
        took = time.monotonic() - began
    out, err = capsys.readouterr()
    assert code == 2, (out, err)
    assert picture(rubbish) == before, "bad input wrote something"
    assert out == "" and "Traceback" not in err
    assert err.count("\n") == 1 and err.startswith("tuneopt: "), err[:500]
    assert err[:-1].isprintable() and len(err) < 3000
    assert expected in err, err
    assert took < 60, "rubbish is refused, not worked on"

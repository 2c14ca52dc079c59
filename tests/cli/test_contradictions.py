"""Options that contradict each other or that nothing would use, and outputs in the place of inputs: refused at once."""

import os
import shlex
from pathlib import Path

import pytest
from test_bad_input import picture, run

from tuneopt import cli
from tuneopt.commands.unused import RULES

TABLE = """
policy of a search that descends not | tune -O adamw --search tpe --policy joint                | --policy
resolution of nothing, sampled       | tune -O adamw --search tpe --resolution 0                | --resolution
measuring a run                      | tune -O adamw --measure                                  | --dry-run
one trial after another, by four     | tune -O adamw --backend inline --max-concurrent 4        | one trial after
sampled by four in this process      | tune -O adamw --search tpe --backend inline --max-concurrent 4 | one trial after
grid of what is held                 | tune -O adamw --quick --grid weight_decay=0,0.1          | held
scale and model                      | tune -O adamw --scale nano-65k --model own.py:build      | --model
scale and model of a trial           | train -O adamw --scale nano-65k --model own.py:build     | --model
two seeds                            | tune -O adamw --seed 1 --seed 2                          | --seed
two optimizers                       | train -O adamw --optimizer soap                          | --optimizer
two ledgers                          | report --ledger a --ledger b                             | --ledger
two outputs                          | report --results t.csv -o a.html --output b.html         | -o
compiled and not                     | train -O adamw --compile --no-compile                    | --no-compile
no space                             | tune -O adamw --space ''                                 | --space is empty
no address                           | tune -O adamw --address ''                               | --address is empty
no folder for figures                | report --results t.csv --figures ''                      | --figures is empty
speed given and measured             | compare soap --minutes 3 --measure --tokens-per-second 9 | --measure
dry and simulated                    | compare soap --minutes 3 --dry-run --simulate            | --simulate
report of a simulated comparison     | compare soap --minutes 3 --simulate -o x.html            | -o
tracker of a simulated comparison    | compare soap --minutes 3 --simulate --tensorboard x      | --tensorboard
comparison in this process, by four  | compare soap --minutes 3 --backend inline --slots 4      | one trial after
more slots than memory               | compare soap --minutes 3 --slots 9999999 --dry-run        | 1,000,000 slots
study: slots without simulation      | study run smoke.yaml --slots 64                          | --simulate
study: stars without simulation      | study run smoke.yaml --stars stars.json                  | --simulate
study: ledger of a simulation        | study run smoke.yaml --simulate --ledger x               | --ledger
study: backend of a simulation       | study run smoke.yaml --simulate --backend ray            | --backend
study: one after another, by four    | study run smoke.yaml --backend inline --max-concurrent 4 | one trial after
study: noise beyond numbers          | study run smoke.yaml --simulate --noise 1e300            | noise
study: no memory                     | study plan smoke.yaml --memory 0                         | --memory
study: memory without end            | study plan smoke.yaml --memory inf                       | --memory
study: speed given and measured      | study plan smoke.yaml --measure --tokens-per-second 9    | --measure
report: format of no figures         | report --results t.csv --format svg                      | --figures
export: text without training        | export 00 model --corpus text                            | --retrain
data prepare: workers and a cluster  | data prepare paper --workers 2 --address auto            | --address
data inspect: two corpora            | data inspect text --corpus embedded                      | --corpus
ledger ls: two ledgers               | ledger ls a --ledger ledger                              | --ledger
model show: arguments of a file      | model show own.yaml --model-set width=3                  | own.yaml
report over its table                | report --results t.csv -o t.csv                          | is read
report over it by another way        | report --results t.csv -o text/../t.csv                  | is read
report over it by another name       | report --results t.csv -o hard.csv                       | is read
report over what a link leads to     | report --results link.csv -o t.csv                       | is read
report over the tokenizer            | tune -O adamw --corpus text --tokenizer T.json -o T.json | is read
report over a text of the corpus     | tune -O adamw --corpus text -o text/a.txt                | inside of text
report as a text of the corpus       | tune -O adamw --corpus text -o text/more.txt             | inside of text
ledger in the corpus                 | tune -O adamw --corpus text --ledger text/ledger         | inside of text
ledger in the corpus of a trial      | train -O adamw --corpus text --ledger text/ledger        | inside of text
ledger in the corpus of a study      | study run texts.yaml --ledger text/ledger                | inside of text
report in the place of the ledger    | tune -O adamw --ledger new -o new                        | it is the ledger
report among the records             | tune -O adamw --ledger new -o new/trials/a.html          | files of its own
event files among the logs           | tune -O adamw --ledger new --tensorboard new/logs        | cannot write
event files over the table           | study run smoke.yaml --tensorboard smoke.yaml            | cannot write
event files and report               | tune -O adamw --tensorboard x -o ./x                     | two places
data base and report                 | tune -O adamw --mlflow sqlite:///x.db -o x.db            | two places
study file and report                | compare soap --minutes 3 --save x -o x                   | two places
study file and report by two ways    | compare soap --minutes 3 --save ./x -o text/../x         | two places
study file and report by two names   | compare soap --minutes 3 --save t.csv -o hard.csv        | two places
report and figures                   | report --results t.csv --figures figs -o figs            | two places
tokenizer without an end             | tune -O adamw --corpus text --tokenizer /dev/zero         | a device
event files into a device            | tune -O adamw --tensorboard /dev/null                    | give a folder
report among the figures             | report --results t.csv --figures figs -o figs/a.svg      | .html
report over the study                | study run smoke.yaml -o smoke.yaml                       | is read
report over a scale of the study     | study run scaled.yaml --simulate -o scale.yaml           | is read
report over a packed ledger          | report --ledger packed -o packed/ledger.parquet          | is read
table over a packed ledger           | ledger export packed/ledger.parquet --ledger packed      | is read
"""

ROWS = {
    name.strip(): (shlex.split(arguments), expected.strip())
    for name, arguments, expected in (line.split("|") for line in TABLE.strip().splitlines())
}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inputs of every kind, which no test may change."""
    root = tmp_path_factory.mktemp("here")
    top = Path(__file__).resolve().parents[2]
    smoke = (top / "studies" / "smoke.yaml").read_text()
    for folder in ("text", "packed"):
        (root / folder).mkdir()
    texts = {
        "t.csv": "optimizer,scale,ratio,loss\nadamw,nano-65k,1,3.5\n",
        "text/a.txt": "some text\n",
        "T.json": "{}",
        "smoke.yaml": smoke,
        "texts.yaml": smoke.replace("embedded", "text"),
        "scaled.yaml": smoke.replace("scales: [nano-65k", "scales: [scale.yaml").replace("nano-65k", "small"),
        "scale.yaml": "name: small\nlayers: 2\nd_model: 48\nheads: 4\nseq_len: 64\n",
        "own.yaml": "model: own.py:build\n",
    }
    for name, text in texts.items():
        (root / name).write_text(text)
    (root / "link.csv").symlink_to("t.csv")
    os.link(root / "t.csv", root / "hard.csv")
    packed = top / "reports" / "nano-study" / "ledger.parquet"
    (root / "packed" / "ledger.parquet").write_bytes(packed.read_bytes())
    return root


@pytest.mark.parametrize("name", ROWS)
def test_it_is_refused_with_one_sentence_and_nothing_is_written(
    name: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, expected = ROWS[name]
    monkeypatch.chdir(here)
    before = picture(here)
    code = run(arguments, monkeypatch)
    out, err = capsys.readouterr()
    assert (code, out) == (2, ""), (out, err)
    assert picture(here) == before
    assert len(err.splitlines()) == 1 and err.startswith("tuneopt: ") and expected in err, err


def test_what_holds_anyway_is_no_contradiction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in ("study run smoke.yaml --backend inline --max-concurrent 1", "ledger ls a --ledger a"):
        assert run(words.split(), monkeypatch) == 2  # there is no such file, and that is all that is said
        assert "smoke.yaml" in (err := capsys.readouterr().err) or "no ledger at" in err


def test_every_rule_names_a_command_and_options_that_it_has() -> None:
    from typer.main import get_command

    for words, rules in RULES.items():
        command = get_command(cli.app)
        for word in words.split():
            command = command.commands[word]  # type: ignore[attr-defined]
        known = {parameter.name for parameter in command.params}
        assert {name for rule in rules for name in rule.options} <= known, words

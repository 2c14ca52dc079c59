"""Bad input of every kind, one table: exit code 2, one line on stderr that says what and how, nothing written."""

import hashlib
import re
import shlex
import signal
import sys
from pathlib import Path

import pytest

from tuneopt.cli import main

TABLE = """
unknown command                  | tun                                                          | Did you mean 'tune'
unknown option                   | tune --optimiser soap                                        | --optimizer
option without its value         | tune --optimizer                                             | --optimizer
tune without an optimizer        | tune                                                         | --optimizer
a stray word                     | tune --optimizer soap fast                                   | fast
unknown optimizer                | tune -O sopa                                                 | did you mean 'soap'
empty optimizer                  | tune -O ''                                                   | known:
search space that is not there   | tune -O adamw --space none.py                                | none.py
search space that cannot be run  | tune -O adamw --space broken.py                              | cannot be run
search space without SPACE       | tune -O adamw --space empty.py                               | SPACE
unknown scale                    | tune -O soap --scale 999                                     | nano-65k
nearly a scale                   | tune -O soap --scale nano-56k                                | mean 'nano-65k'
negative ratio                   | tune -O soap --ratio -1                                      | positive number
zero ratio                       | tune -O soap --ratio 0                                       | positive number
ratio that is no number          | tune -O soap --ratio two                                     | --ratio
ratio NaN                        | tune -O soap --ratio nan                                     | positive number
infinite ratio                   | tune -O soap --ratio inf                                     | positive number
ratio below one batch            | tune -O soap --ratio 0.0001                                  | does not fit a budget
unknown corpus                   | tune -O soap --corpus embeded                                | embedded
corpus that is an empty folder   | tune -O soap --corpus hollow                                 | hollow
value that is no number          | tune -O soap --set learning_rate=fast                        | finite number
value NaN                        | tune -O soap --set learning_rate=nan                         | finite number
infinite value                   | tune -O soap --set learning_rate=inf                         | finite number
unknown coordinate               | tune -O soap --set lerning_rate=1                            | did you mean
assignment without a value       | tune -O soap --set learning_rate                             | name=value
assignment without a name        | tune -O soap --set =0.1                                      | name=value
assignment twice                 | tune -O soap --set beta1=0.9 --set beta1=0.8                 | twice
pinned and given a grid          | tune -O soap --set beta1=0.9 --grid beta1=0.8,0.9            | choose one
grid of words                    | tune -O soap --grid beta1=a,b                                | beta1
grid with a hole                 | tune -O soap --grid beta1=0.9,,0.95                          | beta1
beta beyond one                  | tune -O soap --set beta1=1.5                                 | must lie between
start of an unknown coordinate   | tune -O soap --start beta9=0.9                               | beta9
half a sequence per batch        | tune -O adamw --set train_batch_size=16.5                    | whole number
batch of a word                  | train -O adamw --set train_batch_size=many                   | train_batch_size
batch beyond the budget          | train -O adamw --set train_batch_size=100000                 | train_batch_size
warmup longer than the run       | train -O adamw --ratio 0.02 --set warmup=100000              | warmup
unknown policy                   | tune -O soap --policy join                                   | did you mean 'joint'
no replicates                    | tune -O soap --replicates 0                                  | --replicates
no slots                         | tune -O soap --max-concurrent 0                              | --max-concurrent
slots said twice                 | compare soap --minutes 8 --slots 8 --max-concurrent 1         | both say
pinned and started               | tune -O adamw --set beta1=0.9 --start beta1=0.95 --dry-run    | given a start
negative devices                 | tune -O soap --gpus-per-trial -1                             | --gpus-per-trial
seed that is no number           | tune -O soap --seed lucky                                    | --seed
data seed that is no number      | train -O soap --data-seed lucky                              | --data-seed
data seed beyond a column        | train -O soap --data-seed 9223372036854775808                | data_seed
unknown search                   | tune -O soap --search tpee                                   | did you mean 'tpe'
unknown scheduler                | tune -O soap --search tpe --scheduler ashaa                  | did you mean 'asha'
scheduler without a sampler      | tune -O soap --scheduler asha                                | takes no scheduler
trials without a sampler         | tune -O soap --trials 5                                      | takes no --trials
no trials                        | tune -O soap --search tpe --trials 0                         | --trials
ledger that is a file            | tune -O soap --ledger a-file                                 | a-file
ledger inside a file             | tune -O soap --ledger a-file/ledger                          | a-file
ledger at an unknown scheme      | tune -O soap --ledger ftp://host/ledger                      | ftp://
ledger of a newer release        | tune -O soap --ledger newer                                  | upgrade
ledger with no address           | tune -O soap --ledger ''                                     | ledger
address that is none             | tune -O soap --no-compile --address nonsense --ledger new    | no Ray cluster
address where nobody answers     | tune -O soap --no-compile --address 127.0.0.1:1 --ledger new | no Ray cluster
backend that is none             | tune -O soap --backend ry                                     | did you mean 'ray'
backend with no use for one      | tune -O soap --backend inline --address auto                 | leave out --address
train: unknown optimizer         | train -O adamv                                               | did you mean 'adamw'
train: unknown scale             | train -O adamw --scale huge                                  | nano-65k
train: ledger that is a file     | train -O adamw --ledger a-file                               | a-file
report: no ledger                | report --ledger nowhere                                      | nowhere
report: ledger without sweeps    | report --ledger good                                         | no sweep
report: a folder as the output   | report --ledger swept -o full                                | full
report: damaged record           | report --ledger rotten                                       | damaged
report: results not there        | report --results none.csv                                    | none.csv
report: results of another kind  | report --results table.xls                                   | table.xls
report: results without losses   | report --results lossless.csv                                | loss
report: results without a scale  | report --results scaleless.csv                               | scale
report: results that are no JSON | report --results broken.json                                 | broken.json
report: empty results            | report --results nothing.csv                                 | nothing.csv
report: sigma that is no number  | report --published --sigma loud                              | --sigma
report: negative sigma           | report --published --sigma -0.1                              | sigma
space: unknown optimizer         | space muno                                                   | did you mean 'muon'
space: no name                   | space                                                        | name
space: file that is not there    | space ./none.py                                              | none.py
ledger: no command               | ledger                                                       | ledger
ledger: unknown command          | ledger lis                                                   | Did you mean
ledger ls: foreign folder        | ledger ls --ledger full                                      | full
ledger ls: damaged marker        | ledger ls --ledger damaged                                   | damaged
ledger ls: another's marker      | ledger ls --ledger foreign                                   | another program
ledger ls: nowhere               | ledger ls --ledger nowhere                                   | nowhere
ledger show: unknown trial       | ledger show ffff --ledger swept                              | ffff
ledger show: no trial            | ledger show --ledger good                                    | trial
ledger show: a path as a trial   | ledger show ../../etc/passwd --ledger swept                  | no trial
ledger show: damaged record      | ledger show 0 --ledger rotten                                | damaged
ledger export: unknown suffix    | ledger export table.xlsx --ledger swept                      | .parquet
ledger export: no suffix         | ledger export table --ledger swept                           | .parquet
ledger export: no such folder    | ledger export no/such/table.csv --ledger swept               | make it first
ledger export: a folder          | ledger export folder.csv --ledger swept                      | folder
ledger export: no Optuna storage | ledger export text.db --ledger swept                         | no Optuna storage
ledger export: studies of none   | ledger export new.db --ledger good                           | no sweep
ledger verify: nowhere           | ledger verify --ledger nowhere                               | nowhere
data inspect: unknown corpus     | data inspect --corpus embeded                                | embedded
data inspect: empty folder       | data inspect --corpus hollow                                 | hollow
data inspect: unknown scale      | data inspect --scale big                                     | nano-65k
data inspect: negative ratio     | data inspect --ratio -2                                      | positive number
data inspect: not finished       | data inspect half                                            | not finished
data prepare: no recipe          | data prepare                                                 | recipe
data prepare: unknown recipe     | data prepare papper                                          | did you mean 'paper'
data prepare: recipe not there   | data prepare none.yaml                                       | none.yaml
data prepare: no YAML            | data prepare broken.yaml                                     | broken.yaml:
data prepare: unknown key        | data prepare recipe-key.yaml                                 | yaml:4: unknown
data prepare: no such files      | data prepare recipe-files.yaml                               | yaml:3: no file
data prepare: no weight          | data prepare recipe-weight.yaml                              | recipe-weight.yaml:3:
data prepare: no tokenizer file  | data prepare recipe.yaml --set 'tokenizer={file: a-file}'    | no tokenizer file
data prepare: a folder of others | data prepare recipe.yaml --out full                          | not empty
data prepare: change of nothing  | data prepare recipe.yaml --set token=5                       | did you mean 'tokens'
data prepare: change without =   | data prepare recipe.yaml --set tokens                        | KEY=VALUE
data prepare: negative workers   | data prepare recipe.yaml --workers -1                        | --workers
data prepare: nobody there       | data prepare recipe.yaml --address 127.0.0.1:1               | no Ray cluster
doctor: address that is none     | doctor --address                                             | --address
predict: unknown optimizer       | predict -O sopa --params 1e9 --ratio 1                       | 'soap'
predict: no scale                | predict -O soap --ratio 1                                    | --params
predict: no parameters           | predict -O soap --params 0 --ratio 1                         | param
predict: negative parameters     | predict -O soap --params -5 --ratio 1                        | param
predict: parameters of words     | predict -O soap --params many --ratio 1                      | --params
predict: NaN parameters          | predict -O soap --params nan --ratio 1                       | param
predict: zero ratio              | predict -O soap --params 1e9 --ratio 0                       | ratio
predict: infinite ratio          | predict -O soap --params 1e9 --ratio inf                     | ratio
predict: no ledger               | predict -O soap --params 1e9 --ratio 1 --ledger nowhere      | nowhere
predict: nothing to learn from   | predict -O soap --params 1e9 --ratio 1 --ledger good         | soap
study plan: no file              | study plan                                                   | file
study plan: file not there       | study plan none.yaml                                         | none.yaml
study plan: no YAML              | study plan broken.yaml                                       | broken.yaml:
study plan: unknown key          | study plan key.yaml                                          | key.yaml:
study plan: unknown optimizer    | study plan optimizer.yaml                                    | optimizer.yaml:
study plan: zero ratio           | study plan ratio.yaml                                        | ratio.yaml:
study plan: a list of words      | study plan words.yaml                                        | words.yaml
study plan: a program in it      | study plan program.yaml                                      | program.yaml
study status: file not there     | study status none.yaml                                       | none.yaml
study run: file not there        | study run none.yaml                                          | none.yaml
study run: stars not there       | study run smoke.yaml --simulate --stars none.json            | none.json
study run: nobody by that name   | study run smoke.yaml --simulate --baseline soap              | soap
study run: ledger is a file      | study run smoke.yaml --ledger a-file                         | a-file
study run: nobody at the address | study run smoke.yaml --address 127.0.0.1:1 --ledger new      | no Ray cluster
"""

ROWS = {
    name.strip(): (shlex.split(arguments), expected.strip())
    for name, arguments, expected in (line.split("|") for line in TABLE.strip().splitlines())
}

JSON = ("report", "space", "data", "predict", "study")
"""Commands whose refusals are checked with ``--json`` as well."""

PROMPTS = ("ledger: no command",)
"""Where a bare group prints its help, which is many lines: the exit code and the empty folder are what counts."""


@pytest.fixture(scope="module")
def mess(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bit of everything that users point at by mistake. No test may change it."""
    from tuneopt.ledger import Ledger
    from tuneopt.scale_files import find_scale
    from tuneopt.search.space import load_space
    from tuneopt.search.sweep import Sweep
    from tuneopt.spec import CorpusId, Regime

    root = tmp_path_factory.mktemp("mess")
    for folder in ("full", "hollow", "damaged", "foreign", "newer", "folder.csv", "half"):
        (root / folder).mkdir()
    smoke = (Path(__file__).resolve().parents[2] / "studies" / "smoke.yaml").read_text()
    texts = {
        "a-file": "not a folder",
        "text.db": "not a data base",
        "full/thesis.docx": "precious",
        "damaged/ledger.json": '{"schema": ',
        "foreign/ledger.json": '{"kind": "accounts", "schema": 1}',
        "newer/ledger.json": '{"kind": "tuneopt ledger", "schema": 99}',
        "broken.py": "SPACE = 1 / 0",
        "empty.py": "space = None",
        "broken.json": '[{"optimizer": "adamw", ',
        "nothing.csv": "optimizer,scale,ratio,loss\n",
        "lossless.csv": "optimizer,scale,ratio\nadamw,130m,1\n",
        "scaleless.csv": "optimizer,ratio,loss\nadamw,1,3.5\n",
        "table.xls": "optimizer",
        "smoke.yaml": smoke,
        "broken.yaml": "optimizers: [adamw\n",
        "key.yaml": smoke + "ratioss: [1]\n",
        "optimizer.yaml": smoke.replace("adamw", "adamv"),
        "ratio.yaml": re.sub(r"(ratios: *\[)[^]]*", r"\g<1>0", smoke),
        "words.yaml": "- adamw\n- muon\n",
        "program.yaml": "name: !!python/object/apply:os.system ['touch caught']\n",
    }
    recipe = "name: small\ntokenizer: {train: 300}\nsources: {web: {files: a.txt, weight: 1}}\n"
    texts |= {
        "a.txt": "some text",
        "recipe.yaml": recipe,
        "recipe-key.yaml": recipe + "tokns: 5\n",
        "recipe-files.yaml": recipe.replace("a.txt", "'*.parquet'"),
        "recipe-weight.yaml": recipe.replace(", weight: 1", ""),
    }
    for name, text in texts.items():
        (root / name).write_text(text)
    (root / "half" / ".preparing").mkdir()
    sweep = Sweep(load_space("adamw").on("nano"), Regime(find_scale("nano-65k"), 0.2, CorpusId("none", "00ff", 1024)))
    Ledger(root / "good").put_run({"nothing": 1})
    for name in ("swept", "rotten"):
        Ledger(root / name).put_sweep(sweep.id, sweep.to_dict())
    (root / "rotten" / "trials").mkdir()
    (root / "rotten" / "trials" / "0123456789abcdef.json").write_text('{"trial": "0123456789abcdef"')
    return root


def picture(root: Path) -> dict[str, str]:
    """Every path under a folder with the hash of what it holds."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(root.rglob("*"))
    }


def run(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code of the command line, as the installed command runs it."""
    monkeypatch.setattr(sys, "argv", ["tuneopt", *arguments])
    handlers = {name: signal.getsignal(name) for name in (signal.SIGTERM, signal.SIGINT)}
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        for name, handler in handlers.items():
            signal.signal(name, handler)
    return 0


def test_the_table_is_long_and_its_rows_differ() -> None:
    assert len(ROWS) >= 60
    assert len({tuple(arguments) for arguments, _ in ROWS.values()}) == len(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_bad_input(name: str, mess: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, expected = ROWS[name]
    monkeypatch.chdir(mess)
    before = picture(mess)
    code = run(arguments, monkeypatch)
    out, err = capsys.readouterr()
    assert code == 2, (out, err)
    assert picture(mess) == before, "bad input wrote something"
    assert "Traceback" not in err
    if name in PROMPTS:
        return
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("tuneopt: "), err
    assert expected in lines[0], err


@pytest.mark.parametrize("name", [name for name, (words, _) in ROWS.items() if words[0] in JSON])
def test_json_changes_nothing_about_a_refusal(
    name: str, mess: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, _ = ROWS[name]
    monkeypatch.chdir(mess)
    assert run([*arguments, "--json"], monkeypatch) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1

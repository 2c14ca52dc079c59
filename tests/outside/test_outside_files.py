"""Optimizers from files: what names them, how they travel, and what is refused."""

from __future__ import annotations

import hashlib
import py_compile
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy
import pytest
import torch
from outside_samples import PLAIN, SPACE, install, page_files

from tuneopt import api, outside
from tuneopt.optim import create, external
from tuneopt.optim.factory import implementation
from tuneopt.optim.testing import TinyModel
from tuneopt.search.sweep import Sweep
from tuneopt.spec import SCALES, CorpusId, InputError, Regime

NANO = Regime(SCALES["nano-65k"], 1.0, CorpusId("c", "f" * 64, 1024))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(outside, "SOURCES", {})
    (tmp_path / "mine.py").write_text(PLAIN)
    (tmp_path / "space.py").write_text(SPACE.format(name="Plain"))
    return tmp_path


def sweep_of(optimizer: str, space: str | None = None) -> Sweep:
    return Sweep(api.space_of(optimizer, space).on("nano"), NANO)


def test_a_trial_is_named_after_the_class_and_the_content_of_its_file(here):
    digest = hashlib.sha256((here / "mine.py").read_bytes()).hexdigest()[:12]
    sweep = sweep_of("./mine.py:Plain", "./space.py")
    assert sweep.space.optimizer == sweep.spec(sweep.space.start).optimizer == f"Plain@{digest}"


def test_an_edit_gives_other_trials_and_another_sweep_and_undoing_it_the_old_ones(here):
    first = sweep_of("./mine.py:Plain", "./space.py")
    (here / "mine.py").write_text(PLAIN + "# a comment\n")
    second = sweep_of("./mine.py:Plain", "./space.py")
    (here / "mine.py").write_text(PLAIN)
    third = sweep_of(str(here / "mine.py") + ":Plain", "space.py")
    assert first.id != second.id and first.trial_id(first.space.start) != second.trial_id(second.space.start)
    assert first.id == third.id and first.trial_id(first.space.start) == third.trial_id(third.space.start)


def test_both_versions_of_a_file_run_side_by_side(here):
    first = external.resolve("./mine.py:Plain")
    (here / "mine.py").write_text(PLAIN.replace("lr=0.1", "lr=0.7"))
    second = external.resolve("./mine.py:Plain")
    rates = [create(name, TinyModel()).param_groups[0]["lr"] for name in (first, second)]
    assert rates == [0.1, 0.7]


def test_built_in_names_stay_as_they_are():
    assert external.resolve("soap") == "soap" and outside.source_of("soap") == ""
    assert external.account("soap") == {}


def test_built_in_optimizers_may_be_tuned_in_a_space_of_ones_own(here):
    (here / "space.py").write_text(SPACE.format(name="adamw"))
    sweep = sweep_of("adamw", "./space.py")
    assert sweep.space.optimizer == "adamw" and sweep.space.start != api.space_of("adamw").on("nano").start


def test_a_worker_runs_the_text_that_came_with_the_trial(here, monkeypatch):
    name = external.resolve("./mine.py:Plain")
    text = outside.source_of(name)
    assert external.account(name) == {"optimizer_source": text} == {"optimizer_source": PLAIN}
    monkeypatch.setattr(outside, "SOURCES", {})  # as in a process on another machine
    (here / "mine.py").unlink()
    with pytest.raises(InputError, match="is not at hand; give the file"):
        implementation(name)
    outside.adopt(name, text)
    assert create(name, TinyModel()).routing[0].rule == "Plain"


def test_a_text_that_is_not_the_one_named_is_refused(here):
    name = external.resolve("./mine.py:Plain")
    with pytest.raises(InputError, match="is another one"):
        outside.adopt(name, PLAIN + "\n")
    outside.adopt("adamw", "")
    with pytest.raises(InputError, match="is another one"):
        outside.adopt("adamw", PLAIN)


@pytest.mark.slow
def test_a_fresh_process_needs_nothing_but_name_and_text(here):
    name = external.resolve("./mine.py:Plain")
    code = (
        "import sys; from tuneopt import outside; from tuneopt.optim.testing import TinyModel\n"
        "outside.adopt(sys.argv[1], sys.argv[2])\n"
        "from tuneopt.optim import create; print(create(sys.argv[1], TinyModel()).param_groups[0]['lr'])"
    )
    (here / "mine.py").unlink()
    done = subprocess.run([sys.executable, "-c", code, name, PLAIN], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0.1"


def test_naming_a_file_runs_nothing_yet_and_imports_no_torch(here):
    (here / "mine.py").write_text(f"open({str(here / 'ran')!r}, 'w')\n")
    code = (
        "import sys; from tuneopt import api; print(api.space_of('./mine.py:Plain', './space.py').optimizer)\n"
        "assert 'torch' not in sys.modules and 'ray' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=here)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Plain@") and not (here / "ran").exists()


@pytest.mark.parametrize("base", ["torch.optim.SGD", "tuneopt.optim.AdamW", "a function", "the file"])
def test_one_that_changes_the_default_dtype_is_refused_and_it_is_set_back(here, base):
    act = "torch.set_default_dtype(torch.float64)"
    text = f"""
class Wide({base}):
    def __init__(self, params, lr=0.1):
        {act}
        super().__init__(params, lr=lr)
"""
    if base == "a function":
        text = f"def Wide(params, lr=0.1):\n    {act}\n    return torch.optim.SGD([p for _, p in params], lr=lr)\n"
    elif base == "the file":
        text = f"{act}\nclass Wide(torch.optim.SGD):\n    pass\n"
    (here / "wide.py").write_text(f"import torch\nimport tuneopt.optim\n{text}")
    with pytest.raises(InputError, match=r"Wide@\w+ changes torch's default dtype to torch.float64"):
        create(external.resolve("./wide.py:Wide"), TinyModel())
    assert torch.get_default_dtype() == torch.float32


def test_a_traceback_shows_the_lines_of_the_file(here):
    (here / "mine.py").write_text(PLAIN + "\ndef fails():\n    raise ValueError('deep inside')  # this line\n")
    (here / "space.py").write_text(SPACE.format(name="Plain"))
    kind = external.load(external.resolve("./mine.py:Plain"))
    import inspect
    import traceback

    assert "setdefault" in inspect.getsource(kind.step)
    try:
        sys.modules[kind.__module__].fails()
    except ValueError:
        assert "# this line" in traceback.format_exc()


REFUSED = {
    "no class": ("./mine.py", "PATH.py:Class"),
    "no file": ("./nowhere.py:Plain", "no optimizer at nowhere.py"),
    "no python": ("./notes.txt:Plain", "ends in .py"),
    "no such class": ("./mine.py:Plan", "did you mean 'Plain'"),
    "no optimizer": ("./mine.py:NotOne", "is no torch optimizer"),
    "broken": ("./broken.py:Plain", "cannot be run: ZeroDivisionError"),
    "syntax": ("./syntax.py:Plain", "cannot be run: SyntaxError"),
    "exits": ("./exits.py:Plain", "cannot be run: SystemExit"),
    "ends": ("./ends.py:Plain", "cannot be run: GeneratorExit"),
    "odd": ("./odd.py:Plain", "cannot be run: Odd: odd"),
    "no text": ("./latin.py:Plain", "cannot be read: UnicodeDecodeError"),
    "built-in name": ("./taken.py:adamw", "has the name of a built-in optimizer"),
    "neighbour": ("./neighbour.py:Plain", "imports mine beside it"),
    "neighbour package": ("./deep.py:Plain", "imports helpers beside it"),
    "rules": ("./ruleless.py:Plain", "declares no update rules"),
    "unknown": ("plane", "unknown optimizer 'plane'"),
    "unknown version": ("Plain@000000000000", "is not at hand"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_run_is_refused_in_one_sentence(case, here):
    (here / "notes.txt").write_text(PLAIN)
    (here / "broken.py").write_text("1 / 0")
    (here / "syntax.py").write_text("class Plain(")
    (here / "exits.py").write_text("raise SystemExit(3)")
    (here / "ends.py").write_text("raise GeneratorExit")
    (here / "odd.py").write_text("raise type('Odd', (BaseException,), {})('odd')")
    (here / "latin.py").write_bytes("# caf\xe9".encode("latin-1"))
    (here / "taken.py").write_text(PLAIN.replace("Plain", "adamw"))
    (here / "neighbour.py").write_text("def f():\n    from mine import Plain\n")
    (here / "deep.py").write_text("import helpers.more")
    (here / "helpers").mkdir()
    (here / "helpers" / "__init__.py").write_text("")
    (here / "ruleless.py").write_text("from tuneopt.optim import Optimizer\nclass Plain(Optimizer): ...")
    word, expected = REFUSED[case]
    with pytest.raises(InputError) as refused:
        implementation(external.resolve(word))
    assert expected in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "words", ["import {}", "from {} import rate", "import importlib\nimportlib.import_module('{}.x')"]
)
@pytest.mark.parametrize("kind", ["module", "package", "folder without __init__.py", "beside"])
def test_a_helper_that_nobody_installed_is_refused_wherever_it_comes_from(here, tmp_path, monkeypatch, words, kind):
    """The digest of the file would not change with it, and the old loss would come back after an edit of the helper."""
    place = here if kind == "beside" else tmp_path / "elsewhere"
    place.mkdir(exist_ok=True)
    if kind == "module":
        (place / "sample_helper.py").write_text("rate = 1")
    else:
        (place / "sample_helper").mkdir()
        (place / "sample_helper" / ("x.py" if kind != "package" else "__init__.py")).write_text("rate = 1")
    (here / "uses.py").write_text(f"{words.format('sample_helper')}\nfrom torch.optim import SGD as Plain\n")
    if kind != "beside":
        monkeypatch.syspath_prepend(str(place))  # as PYTHONPATH does
    with pytest.raises(InputError, match=r"imports sample_helper .*which a trial's id would not cover"):
        external.resolve("./uses.py:Plain")


HIDDEN = {
    "name put together": "import importlib\nlib = importlib.import_module('sample_' + 'helper')",
    "another name of import_module": "from importlib import import_module as bring\nlib = bring('sample_helper')",
    "path": "import runpy\nlib = runpy.run_path('lib/sample_helper.py')",
    "exec": "exec(open('lib/sample_helper.py').read())",
    "own path": "import sys\nsys.path.insert(0, 'lib')\n__import__('sample' + '_helper')",
    "location": "from importlib.util import module_from_spec, spec_from_file_location\n"
    "spec = spec_from_file_location('x', 'lib/sample_helper.py')\nlib = module_from_spec(spec)\n"
    "spec.loader.exec_module(lib)",
    "JSON": "import json\nrate = json.load(open('lib/rates.json'))",
    "array": "import numpy\nrate = numpy.load('lib/rates.npy')",
    "text": "from pathlib import Path\nrate = Path('lib/rates.json').read_text()",
    "constructor": "from torch.optim import SGD\nclass Plain(SGD):\n"
    "    def __init__(self, params, lr: float = 0.1):\n"
    "        open('lib/rates.json').close()\n        super().__init__(params, lr=lr)",
}
"""Ways to what the digest of a file does not cover, none of which its import statements tell."""


@pytest.mark.parametrize("way", HIDDEN)
def test_what_a_file_brings_in_by_other_ways_is_refused_too(here, monkeypatch, way):
    (here / "lib").mkdir()
    (here / "lib" / "sample_helper.py").write_text("rate = 1")
    (here / "lib" / "rates.json").write_text("1")
    numpy.save(here / "lib" / "rates.npy", numpy.ones(1))
    monkeypatch.syspath_prepend(str(here / "lib"))
    monkeypatch.delitem(sys.modules, "sample_helper", raising=False)
    code = HIDDEN[way] if "class Plain" in HIDDEN[way] else f"{HIDDEN[way]}\nfrom torch.optim import SGD as Plain\n"
    (here / "uses.py").write_text(code)
    name = external.resolve("./uses.py:Plain")
    for _ in range(2):
        with pytest.raises(InputError, match=r"uses.py reads .*(sample_helper.py|rates).*a trial's id would not cover"):
            create(name, TinyModel())
    sys.modules.pop("sample_helper", None)


@pytest.mark.parametrize("kind", ["archive", "compiled", "compiled beside"])
def test_a_helper_that_is_no_text_is_refused_too(here, tmp_path, monkeypatch, kind):
    (here / "uses.py").write_text("import sample_helper\nfrom torch.optim import SGD as Plain\n")
    source = tmp_path / "made" / "sample_helper.py"
    source.parent.mkdir()
    source.write_text("rate = 1")
    if kind == "archive":
        with zipfile.ZipFile(tmp_path / "made" / "helpers.zip", "w") as archive:
            archive.write(source, source.name)
        monkeypatch.syspath_prepend(str(tmp_path / "made" / "helpers.zip"))
    else:
        folder = here if kind == "compiled beside" else tmp_path / "made" / "bare"
        folder.mkdir(exist_ok=True)
        py_compile.compile(str(source), str(folder / "sample_helper.pyc"))
        monkeypatch.syspath_prepend(str(folder))
    with pytest.raises(InputError, match=r"imports sample_helper .*which a trial's id would not cover"):
        external.resolve("./uses.py:Plain")


def test_what_is_installed_may_be_imported(here, site):
    install(site, "sample_lib", "")
    (here / "uses.py").write_text("import json, numpy, torch, sample_lib\nfrom torch.optim import SGD as Plain\n")
    assert external.resolve("./uses.py:Plain").startswith("Plain@")


def test_a_list_of_what_is_installed_may_be_read_in_the_working_folder_too(here, monkeypatch):
    """A project that was installed for editing leaves such a list there, and transformers reads all of them."""
    (here / "sample.egg-info").mkdir()
    (here / "sample.egg-info" / "PKG-INFO").write_text("Name: sample\nVersion: 1\n")
    (here / "sample.egg-info" / "entry_points.txt").write_text("[console_scripts]\nsample = sample:main\n")
    monkeypatch.syspath_prepend(str(here))
    listing = (
        "from importlib.metadata import entry_points\nassert 'sample' in entry_points(group='console_scripts').names"
    )
    (here / "uses.py").write_text(f"{listing}\nfrom torch.optim import SGD as Plain\n")
    assert create(external.resolve("./uses.py:Plain"), TinyModel())


def test_an_edit_of_a_package_that_is_installed_for_editing_gives_other_trials(here, tmp_path, monkeypatch):
    """As ``pip install -e`` leaves it: the version stays, and what it imports the same way counts too."""
    work = tmp_path / "work"
    for name, code in (("sample_lib", "import sample_base\n"), ("sample_base", "rate = 1\n")):
        (work / name).mkdir(parents=True)
        (work / name / "__init__.py").write_text(code)
        (work / f"{name}.egg-info").mkdir()
    monkeypatch.syspath_prepend(str(work))
    (here / "uses.py").write_text("import sample_lib\nfrom torch.optim import SGD as Plain\n")
    names = [external.resolve("./uses.py:Plain")]
    for file, text in (("sample_lib", "import sample_base  # edited\n"), ("sample_base", "rate = 2\n")):
        (work / file / "__init__.py").write_text(text)
        names.append(external.resolve("./uses.py:Plain"))
    assert len(set(names)) == 3
    outside.adopt(names[-1], (here / "uses.py").read_text())
    with pytest.raises(InputError, match="a package that it imports is another one here"):
        outside.adopt(names[0], (here / "uses.py").read_text())
    (work / "sample_base" / "__init__.py").write_text("rate = 1\n")
    (work / "sample_lib" / "__init__.py").write_text("import sample_base\n")
    assert external.resolve("./uses.py:Plain") == names[0]
    create(names[0], TinyModel())


def test_a_file_beside_tuneopt_itself_may_import_it(here):
    (here / "tuneopt").mkdir()
    (here / "tuneopt" / "__init__.py").write_text("")
    (here / "fine.py").write_text("import torch, tuneopt.optim\nfrom torch.optim import SGD as Mine\n")
    assert external.resolve("./fine.py:Mine").startswith("Mine@")


@pytest.mark.parametrize(
    ("optimizer", "space", "expected"),
    [
        ("./mine.py:Plain", None, "add --space PATH.py"),
        ("./mine.py:Plain", "./nowhere.py", "no search space at"),
        ("./mine.py:Plain", "./mine.py", "bind a SearchSpace to the name SPACE"),
        ("./mine.py:NotOne", "./space.py", "is one for 'Plain', not for 'NotOne'"),
        ("adamw", "./space.py", "is one for 'Plain', not for 'adamw'"),
        ("adamw", "lion", "is one for 'lion', not for 'adamw'"),
    ],
)
def test_a_space_that_does_not_fit_is_refused(here, optimizer, space, expected):
    with pytest.raises(InputError, match=expected):
        api.space_of(optimizer, space)


def test_a_plan_builds_the_class_once_before_anything_runs(here):
    from tuneopt.api.optimizers import check_outside

    check_outside(api.space_of("./mine.py:Plain", "./space.py").on("nano"))
    (here / "space.py").write_text(SPACE.format(name="Plain").replace('"beta1": 0.9', '"momentum": 0.9'))
    with pytest.raises(InputError, match="has no hyperparameter 'momentum'"):
        check_outside(api.space_of("./mine.py:Plain", "./space.py").on("nano"))
    (here / "mine.py").write_text(PLAIN.replace("        super()", "        raise OSError('no disk')\n        super()"))
    (here / "space.py").write_text(SPACE.format(name="Plain"))
    with pytest.raises(InputError, match="cannot be built from the start of its search space: OSError: no disk"):
        check_outside(api.space_of("./mine.py:Plain", "./space.py").on("nano"))


def test_the_page_says_how_many_digits(here):
    page_files(here)
    name = external.resolve("./my_optimizer.py:Mine")
    assert len(name.partition("@")[2]) == 12


STUDY = """\
name: mine
optimizers:
  adamw:
  ./mine.py:Plain: {{space: ./space.py{more}}}
scales: nano-65k
ratios: 1
corpus: embedded
"""


def test_a_study_compares_an_optimizer_from_a_file_with_built_in_ones(here):
    (here / "study.yaml").write_text(STUDY.format(more=""))
    digest = hashlib.sha256((here / "mine.py").read_bytes()).hexdigest()[:12]
    study = api.load_study("study.yaml")
    assert list(study.spaces) == ["adamw", f"Plain@{digest}"]


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("mine.py:Plain", "mine.py:Plane", 4, "Plane"),
        ("./space.py", "./nowhere.py", 4, "nowhere.py"),
        ("space: ./space.py", "spaces: ./space.py", 4, "did you mean 'space'"),
        ("  adamw:", "  adam:", 3, "did you mean 'adamw'"),
    ],
)
def test_a_study_with_a_wrong_file_names_the_line(here, old, new, line, said):
    (here / "study.yaml").write_text(STUDY.format(more="").replace(old, new))
    with pytest.raises(InputError) as caught:
        api.load_study("study.yaml")
    assert f"study.yaml:{line}: " in str(caught.value) and said in str(caught.value)

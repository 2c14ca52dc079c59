"""The source itself: what must never be called on data from outside, found by reading every file's syntax tree."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(
    path for folder in ("tuneopt", "search_spaces", "benchmarks") for path in (ROOT / folder).rglob("*.py")
)

LOADERS_OF_CODE = ("pickle", "cPickle", "cloudpickle", "dill", "marshal", "shelve", "joblib")
"""Modules whose files can hold programs."""

EXEC_ALLOWED = {"tuneopt/outside.py"}
"""The one place that runs text: files of optimizers and search spaces that the user names on the command line."""

FORBIDDEN = {
    "os.system",
    "os.popen",
    "subprocess.getoutput",
    "subprocess.getstatusoutput",
    "tempfile.mktemp",
    "builtins.eval",
}


def dotted(node: ast.expr) -> str:
    """``a.b.c`` of a call's function; empty for anything else."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join(reversed([*parts, node.id])) if isinstance(node, ast.Name) else ""


def faults(text: str, name: str) -> list[str]:
    """What a source file must not do, one sentence each."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [f"{name}:{node.lineno} imports {each}" for each in names if each.split(".")[0] in LOADERS_OF_CODE]
        if not isinstance(node, ast.Call):
            continue
        called, words = dotted(node.func), {word.arg: word.value for word in node.keywords}
        where = f"{name}:{node.lineno} calls {called}"
        if called in ("eval", "exec") and name not in EXEC_ALLOWED:
            found.append(where)
        if called in FORBIDDEN:
            found.append(where)
        if called.endswith("torch.load") and getattr(words.get("weights_only"), "value", None) is not True:
            found.append(f"{where} without weights_only=True")
        if called in ("numpy.load", "np.load") and getattr(words.get("allow_pickle"), "value", False) is not False:
            found.append(f"{where} with allow_pickle")
        if called.startswith("yaml.") and called.endswith(("load", "load_all")) and "safe" not in called:
            found.append(f"{where}, which is not the safe loader")
        if getattr(words.get("shell"), "value", False):
            found.append(f"{where} with a shell")
        if (
            called.endswith("Environment")
            and "autoescape" in words
            and getattr(words["autoescape"], "value", 0) is not True
        ):
            found.append(f"{where} without escaping")
    return found


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from cloudpickle import loads",
        "eval(x)",
        "exec(x)",
        "import os\nos.system('ls')",
        "import torch\ntorch.load(f)",
        "import torch\ntorch.load(f, weights_only=False)",
        "import numpy as np\nnp.load(f, allow_pickle=True)",
        "import yaml\nyaml.load(f, yaml.Loader)",
        "import yaml\nyaml.unsafe_load_all(f)".replace("unsafe_load_all", "full_load"),
        "import subprocess\nsubprocess.run('ls', shell=True)",
        "import tempfile\ntempfile.mktemp()",
        "Environment(autoescape=False)",
    ],
)
def test_the_guard_sees(text: str) -> None:
    assert faults(text, "example.py")


def test_the_guard_lets_ordinary_code_pass() -> None:
    lines = ("torch.load(f, weights_only=True)", "model.eval()", "subprocess.run(['ls'])", "yaml.safe_load(f)")
    text = "\n".join(("import torch, yaml, subprocess", *lines))
    assert faults(text, "example.py") == []


def test_no_source_file_runs_code_from_data() -> None:
    assert len(SOURCES) > 150, "the guard must see the sources"
    found = [fault for path in SOURCES for fault in faults(path.read_text(), str(path.relative_to(ROOT)))]
    assert found == []


def test_the_yaml_loader_is_a_safe_one() -> None:
    """The one class that reads YAML derives from the safe loader; nothing else constructs a loader."""
    bases = [
        dotted(base)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
        for base in node.bases
        if dotted(base).startswith("yaml.")
    ]
    assert bases == ["yaml.SafeLoader"]

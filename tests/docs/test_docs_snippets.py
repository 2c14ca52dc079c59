"""Python snippets of the pages: they compile, what they import is there, and what trains nothing runs."""

from __future__ import annotations

import ast
import importlib
from types import SimpleNamespace

import pytest
from pages import PAGES, blocks

import tuneopt

SNIPPETS = [(page.name, text) for page in PAGES for text in blocks(page, "python")]


@pytest.mark.parametrize(("page", "text"), SNIPPETS, ids=[f"{page} {n}" for n, (page, _) in enumerate(SNIPPETS)])
def test_what_a_snippet_names_is_there(page, text):
    modules = {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            for name in node.names:
                if name.name.partition(".")[0] == "tuneopt":
                    modules[name.asname or name.name] = importlib.import_module(name.name)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in ("tuneopt", "search_spaces"):
            home = importlib.import_module(node.module)
            for name in node.names:
                if not hasattr(home, name.name):  # a package of it, then; raises where it is none
                    importlib.import_module(f"{node.module}.{name.name}")
                modules[name.asname or name.name] = getattr(home, name.name)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            assert hasattr(modules[node.value.id], node.attr), f"{page}: {node.value.id}.{node.attr}"


def test_the_notebook_page_shows_a_result_as_it_is(monkeypatch, tmp_path):
    """Each method that the page calls on a result belongs to it; the run itself is a simulation's."""
    (text,) = blocks(next(page for page in PAGES if page.name == "notebooks.md"), "python")
    plan = tuneopt.comparison_plan(["muon"], hours=0.3, ledger=str(tmp_path), slots=2)
    result = tuneopt.simulate_comparison(plan)
    called = []
    answer = SimpleNamespace(
        to_pandas=result.to_pandas,
        **{name: lambda *given, name=name: called.append(name) for name in dir(result) if name.startswith("plot_")},
    )
    monkeypatch.setattr("tuneopt.api.compare", lambda *given, **more: answer)
    exec(compile(text, "notebooks.md", "exec"), {})
    assert called == ["plot_speedups", "plot_flips", "plot_curves", "plot_star"]


def test_the_example_page_runs(monkeypatch, tmp_path):
    (text,) = blocks(next(page for page in PAGES if page.name == "example.md"), "python")
    monkeypatch.chdir(tmp_path)
    exec(compile(text, "example.md", "exec"), {})
    assert (tmp_path / "reports" / "report.html").exists()

"""The wheel: small, whole, and at work in an environment of its own, far from the repository."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ("tuneopt", "search_spaces", "scales", "studies", "pyproject.toml", "README.md", "LICENSE")
LARGEST = 10 * 2**20
"""Bytes that the wheel may have."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in SOURCES:  # a copy: building leaves folders behind
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", str(source), "--no-deps", "--no-build-isolation", "--no-index",
         "-w", str(target)],
        check=True, capture_output=True,
    )  # fmt: skip
    (built,) = target.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def program(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``tuneopt`` of a new environment, which finds the packages that tuneopt depends on where the tests have them."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    packages = sysconfig.get_path("purelib", vars={"base": str(folder)})
    (Path(packages) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin" / "tuneopt"


def run(program: Path, *words: str, cwd: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([str(program), *words], capture_output=True, text=True, cwd=cwd, timeout=900, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_wheel_is_small_and_whole(wheel: Path) -> None:
    assert wheel.stat().st_size < LARGEST
    held = set(zipfile.ZipFile(wheel).namelist())
    files = {
        str(path.relative_to(ROOT))
        for name in SOURCES
        if (ROOT / name).is_dir()
        for path in (ROOT / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
    }
    assert files - held == set()


def test_the_environment_runs_the_wheel_and_not_the_checkout(program: Path, tmp_path: Path) -> None:
    python = program.with_name("python")
    code = "import tuneopt, search_spaces, scales, studies; print(tuneopt.__file__, search_spaces.__file__)"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [str(python), "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True, env=environment
    )
    assert all(place.startswith(str(program.parents[1])) for place in done.stdout.split())


def test_it_compares_and_trains_outside_the_repository(program: Path, tmp_path: Path) -> None:
    simulated = json.loads(run(program, "compare", "soap", "--minutes", "5", "--simulate", "--json", cwd=tmp_path))
    assert simulated["speedups"][0]["optimizer"] == "soap"
    trained = json.loads(
        run(program, "train", "--optimizer", "adamw", "--ratio", "0.01", "--no-compile", "--json", cwd=tmp_path)
    )
    assert trained["status"] == "completed" and trained["select_loss"] < trained["initial_loss"]
    assert trained["trial"] in run(program, "ledger", "ls", cwd=tmp_path)


def test_what_ships_is_found_by_its_name_outside_the_repository(program: Path, tmp_path: Path) -> None:
    assert json.loads(run(program, "study", "plan", "studies/nano.yaml", "--json", cwd=tmp_path))["fits"]
    assert "GPT2LMHeadModel" in run(program, "scale", "show", "scales/gpt2.yaml", cwd=tmp_path)
    assert "learning_rate" in run(program, "space", "soap", cwd=tmp_path)
    run(program, "report", "--published", cwd=tmp_path)
    assert (tmp_path / "reports" / "report.html").stat().st_size > 500_000

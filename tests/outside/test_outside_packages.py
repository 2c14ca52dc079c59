"""Optimizers and spaces of installed packages, through entry points."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from outside_samples import PLAIN, SPACE, install

from tuneopt import api, outside
from tuneopt.optim import describe, external, info
from tuneopt.optim.factory import create, implementation
from tuneopt.optim.testing import TinyModel
from tuneopt.search.space import load_space
from tuneopt.spec import InputError

OWN = """
from tuneopt.optim import Lion

class Own(Lion):
    source = "a paper of mine"
"""


def sample(site: Path, name: str = "sample_mine", **changed) -> None:
    parts = {
        "optimizers": f"mine = {name}.optimizer:Plain\nown = {name}.own:Own",
        "spaces": f"mine = {name}.space",
        "optimizer": PLAIN,
        "own": OWN,
        "space": SPACE.format(name="mine"),
    }
    install(site, name, **{**parts, **changed})


def test_an_installed_optimizer_is_found_by_its_name_with_its_space(site):
    sample(site)
    space = api.space_of("mine")
    name, _, digest = space.optimizer.partition("@")
    assert (name, len(digest)) == ("mine", 12)
    assert create(space.optimizer, TinyModel(), beta1=0.5).routing[0].rule == "Plain"
    assert create("mine", TinyModel()).param_groups[0]["lr"] == 0.1


def test_a_space_may_be_named_itself(site):
    sample(site, spaces="mine = sample_mine.space:SPACE")
    assert load_space("mine").optimizer == "mine"


def test_listing_imports_nothing_and_names_the_package(site):
    sample(site)
    code = (
        "import sys; from tuneopt.optim import info\n"
        "print([(e.name, e.origin, e.family) for e in info() if e.origin != 'built in'])\n"
        "assert not {'torch', 'ray', 'sample_mine'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": str(site)}, cwd=site
    )
    expected = [(name, "package sample_mine 1.0", None) for name in ("mine", "own")]
    assert done.stdout.strip() == str(expected), done.stderr


def test_the_table_is_completed_from_the_class(site):
    sample(site)
    rows = {row["name"]: row for row in api.optimizers()}
    assert rows["own"] == {
        "name": "own",
        "family": "scalar",
        "fallback": None,
        "source": "a paper of mine",
        "state_bytes_per_parameter": 4.0,
        "implementation": "sample_mine.own:Own",
        "origin": "package sample_mine 1.0",
        "preset": {},
        "switches": (),
        "anytime": False,
    }
    plain = rows["mine"]
    assert (plain["family"], plain["state_bytes_per_parameter"]) == (None, None), "a plain class declares nothing"
    assert plain["source"] == "package sample_mine 1.0"
    assert rows["soap"]["origin"] == "built in"


def test_built_in_rows_agree_with_what_their_classes_say():
    from tuneopt.optim.factory import state_bytes_per_parameter

    for entry in info():
        assert describe(entry) is entry
        if not entry.preset:  # a switch may add state, and the class alone does not know that it is on
            assert state_bytes_per_parameter(implementation(entry.name)) == entry.state_bytes_per_parameter


def test_every_file_of_the_package_and_its_version_are_part_of_the_name(site):
    sample(site, helper="x = 1")
    first = external.resolve("mine")
    assert external.resolve("mine") == first
    (site / "sample_mine" / "helper.py").write_text("x = 2")
    second = external.resolve("mine")
    (site / "sample_mine" / "helper.py").write_text("x = 1")
    (site / "sample_mine-1.0.dist-info" / "METADATA").write_text("Name: sample_mine\nVersion: 1.1\n")
    outside.installed.cache_clear()
    assert len({first, second, external.resolve("mine")}) == 3


def test_a_machine_with_another_version_refuses_the_trial(site):
    sample(site)
    name = external.resolve("mine")
    assert implementation(name) and external.resolve(name) == name
    (site / "sample_mine" / "own.py").write_text("")
    with pytest.raises(InputError, match="install one version everywhere"):
        implementation(name)
    outside.adopt(name, "")  # a package travels by itself
    assert outside.source_of(name) == ""


def test_one_module_is_a_package_too(site):
    install(site, "sample_info", "mine = sample_single:Plain")
    (site / "sample_single.py").write_text(PLAIN)
    assert implementation(external.resolve("mine"))


BROKEN = {
    "import": ({"optimizer": "import sample_nowhere"}, "mine", "cannot be imported: ModuleNotFoundError"),
    "exits": ({"optimizer": "raise SystemExit"}, "mine", "cannot be imported: SystemExit"),
    "ends": ({"optimizer": "raise GeneratorExit"}, "mine", "cannot be imported: GeneratorExit"),
    "attribute": ({"optimizer": "x = 1"}, "mine", "cannot be imported: AttributeError"),
    "no class": ({"optimizer": "Plain = 3"}, "mine", "is no torch optimizer"),
    "module": ({"optimizers": "mine = sample_absent.optimizer:Plain"}, "mine", "there is no module 'sample_absent'"),
    "built-in": ({"optimizers": "adamw = sample_mine.optimizer:Plain"}, "adamw", "tuneopt itself and by package"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_package_is_refused_in_one_sentence(case, site):
    changed, word, expected = BROKEN[case]
    sample(site, **changed)
    with pytest.raises(InputError) as refused:
        implementation(external.resolve(word))
    assert expected in str(refused.value) and "\n" not in str(refused.value)
    assert "sample_mine" in str(refused.value) or word in str(refused.value)


def test_a_name_that_two_packages_claim_is_refused(site):
    sample(site)
    sample(site, "sample_other")
    with pytest.raises(InputError, match=r"package sample_mine 1\.0 and by package sample_other 1\.0"):
        external.resolve("mine")
    with pytest.raises(InputError, match="claimed by"):
        info()
    with pytest.raises(InputError, match="claimed by"):
        load_space("mine")


def test_a_package_without_a_space_says_so(site):
    sample(site, spaces="")
    with pytest.raises(InputError, match="brings no search space; add --space"):
        api.space_of("mine")
    (site / "my_space.py").write_text(SPACE.format(name="mine"))
    assert api.space_of("mine", str(site / "my_space.py")).optimizer.startswith("mine@")


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"space": "import sample_nowhere"}, "search space 'mine' of package sample_mine 1.0 cannot be imported"),
        ({"space": "SPACE = 3"}, "sample_mine.space of package sample_mine 1.0 defines no search space"),
        ({"space": SPACE.format(name="yours")}, "is one for 'yours'; give both the same name"),
    ],
)
def test_a_broken_space_of_a_package_is_refused(changed, expected, site):
    sample(site, **changed)
    with pytest.raises(InputError, match=expected):
        load_space("mine")


def test_names_of_packages_are_among_the_hints(site):
    sample(site)
    with pytest.raises(InputError, match="did you mean 'mine'"):
        external.resolve("mime")
    with pytest.raises(InputError, match="did you mean 'mine'"):
        load_space("mime")


def test_a_package_s_digest_covers_what_it_imports_from_where_nothing_is_installed(site, tmp_path, monkeypatch):
    """One helper imports another; both are found through PYTHONPATH, the second in a folder without __init__.py."""
    sample(site, optimizer=PLAIN + "import sample_first\n")
    loose = tmp_path / "loose"
    (loose / "sample_second").mkdir(parents=True)
    (loose / "sample_first.py").write_text("from sample_second import rate\n")
    (loose / "sample_second" / "rate.py").write_text("rate = 1\n")
    alone = external.resolve("mine")
    monkeypatch.syspath_prepend(str(loose))
    names = [external.resolve("mine")]
    (loose / "sample_second" / "rate.py").write_text("rate = 2\n")
    names.append(external.resolve("mine"))
    (loose / "sample_first.py").write_text("from sample_second import rate  # edited\n")
    names.append(external.resolve("mine"))
    assert len({alone, *names}) == 4

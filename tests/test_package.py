"""What `import tuneopt` offers: names for notebooks, looked up when they are used."""

from __future__ import annotations

import subprocess
import sys

import tuneopt


def test_every_name_is_there_and_is_listed() -> None:
    for name in tuneopt.__all__:
        assert getattr(tuneopt, name) is not None
    assert set(tuneopt.__all__) == set(dir(tuneopt))


def test_no_name_is_that_of_a_package_which_would_hide_it() -> None:
    from pkgutil import iter_modules

    packages = {module.name for module in iter_modules(tuneopt.__path__)}
    assert packages & set(tuneopt.__all__) == {"api", "ledger"}


def test_functions_stay_functions_whatever_is_imported() -> None:
    code = (
        "import tuneopt as to, tuneopt.api.reports, tuneopt.training.run, tuneopt.reporting.write, tuneopt.cli\n"
        "names = ('compare', 'tune', 'study', 'train', 'report', 'predict', 'plot_star', 'open_ledger')\n"
        "print([name for name in names if not callable(getattr(to, name))], to.ledger.open_ledger is to.open_ledger)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] True"


def test_the_names_bring_neither_torch_nor_ray() -> None:
    look = "import sys, tuneopt; [getattr(tuneopt, name) for name in tuneopt.__all__]; "
    code = look + "print({'torch', 'ray'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"

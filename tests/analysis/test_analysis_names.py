"""Names for people: the built-in optimizers as their papers write them, everything else as its user wrote it."""

import pytest

from tuneopt.analysis.names import MATRIX, optimizer_name, place_name, scale_name
from tuneopt.optim.info import names
from tuneopt.spec import SCALES


def test_every_built_in_optimizer_has_a_name_of_its_own():
    shown = {optimizer_name(name) for name in names()}
    assert len(shown) == len(names())
    assert all(name[0].isupper() for name in shown)
    assert set(names()) >= MATRIX


def test_other_names_stay_as_they_are():
    assert optimizer_name("my_own@0123") == "my_own@0123"
    assert [scale_name(name) for name in ("130m", "1.2b", "nano-65k", "85.05m", "tomb")] == [
        "130M", "1.2B", "nano-65k", "85.05M", "tomb"
    ]  # fmt: skip


@pytest.mark.parametrize("name", SCALES)
def test_a_scale_keeps_its_letters(name):
    assert scale_name(name).lower() == name


def test_a_place_names_its_corpus_only_where_one_is_given():
    assert place_name("130m", 8.0) == "130M/8x"
    assert place_name("1.2b", 0.5, "c4") == "c4 1.2B/0.5x"

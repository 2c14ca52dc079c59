import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneopt.reporting import text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.016, "0.016"),
        (1e-15, "1e-15"),
        (128, "128"),
        (True, "true"),
        (False, "false"),
        ("cosine", "cosine"),
        (0, "0"),
    ],
)
def test_values_read_as_they_are_typed(value, shown):
    assert text.value_text(value) == shown


def test_losses_carry_the_digits_of_their_error_on_one_line():
    assert text.loss_text(3.44981) == "3.4498"
    assert text.loss_text(3.44981, 0.00049) == "3.4498\u00a0\u00b1\u00a00.0005"
    assert text.loss_text(4.47771, 0.0171) == "4.478\u00a0\u00b1\u00a00.017"
    assert text.loss_text(4.47771, 0.0) == "4.4777\u00a0\u00b1\u00a00.0000"
    assert text.change_text(0.31832, 0.024) == "+0.318"
    assert text.loss_text(None) == text.NONE


@pytest.mark.parametrize(
    ("difference", "shown"),
    [(0.01234, "+0.0123"), (-0.5, "\u22120.5000"), (0.0, "0.0000"), (-0.00001, "0.0000"), (None, "\u2013")],
)
def test_differences_carry_a_sign_unless_they_round_to_zero(difference, shown):
    assert text.change_text(difference) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0"),
        (46, "46"),
        (9999, "9,999"),
        (1_310_720, "1.31 M"),
        (4.15e13, "41.5 T"),
        (2.07e20, "207 E"),
        (123456, "123 k"),
        (None, "\u2013"),
    ],
)
def test_counts_keep_three_digits(count, shown):
    assert text.count_text(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(19.4, "19.4 s"), (119, "119 s"), (918, "15.3 min"), (9000, "2.5 h"), (259_200, "3 days")]
)
def test_spans_come_in_the_unit_that_suits(seconds, shown):
    assert text.duration_text(seconds) == shown


def test_bytes_percentages_and_plurals():
    assert text.bytes_text(512) == "512 B"
    assert text.bytes_text(410 * 2**20) == "410 MiB"
    assert text.percent_text(0.874) == "87%"
    assert text.plural(1, "trial") == "1 trial"
    assert text.plural(1200, "trial") == "1,200 trials"
    assert text.plural(2, "entry", "entries") == "2 entries"


def test_lists_end_in_a_word():
    assert [text.listed("abc"[:n]) for n in range(4)] == ["", "a", "a and b", "a, b and c"]


def test_moves_name_what_changed():
    assert text.changes_text([("beta1", 0.9, 0.95), ("warmup", 0, 100)]) == "beta1 0.9 \u2192 0.95, warmup 0 \u2192 100"


@given(st.text())
def test_plotly_labels_never_hold_a_tag(raw):
    assert "<" not in text.plain(raw)
    assert ">" not in text.plain(raw)


@pytest.mark.parametrize("column", ["optimizer", "led first", "leads after", "order among", "tuned for"])
def test_tables_name_optimizers_as_their_papers_do(column):
    assert text.shown("adamw", column) == "AdamW"
    assert text.shown("optimizers", column) == "optimizers", "what is no optimizer stays"

"""The glossary on hover: its words are the glossary's, each is marked once, and no text becomes markup."""

import html
import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tuneopt.reporting.terms import TERMS, terms

GLOSSARY = (Path(__file__).parents[2] / "docs" / "glossary.md").read_text().lower()
ELSEWHERE = {"1x", "extrapolated"}  # a way of writing and a flag, which the glossary has under other words


def test_every_word_is_one_of_the_glossary():
    assert all(f"| {word.lower()} |" in GLOSSARY for word in TERMS if word not in ELSEWHERE)


def test_a_word_is_marked_at_its_first_place_only():
    text = str(terms("A speedup of 8x is no speedup at 1x in nats; Speedups differ."))
    assert text.count("<dfn") == 3
    assert re.sub(r"<[^>]+>", "", text) == "A speedup of 8x is no speedup at 1x in nats; Speedups differ."


@given(st.text(max_size=80).filter(lambda text: "^" not in text and "`" not in text))
def test_any_text_stays_that_text(text):
    marked = str(terms(text))
    assert html.unescape(re.sub(r"</?dfn[^>]*>", "", marked)) == text
    assert "<" not in re.sub(r"</?dfn[^>]*>", "", marked)


def test_powers_and_commands_are_set_as_in_print():
    law = str(terms("goes as 4.16e-05 D^0.65 [0.56, 0.75] and N^-0.86 <b>"))
    assert "4.16 \u00d7 10<sup>\u22125</sup> D<sup>0.65</sup>" in law and "N<sup>\u22120.86</sup>" in law
    assert "<b>" not in law
    assert str(terms("`tuneopt study run` gives")) == "<code>tuneopt study run</code> gives"

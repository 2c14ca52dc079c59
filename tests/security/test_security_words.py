"""Messages and listings: one line, bounded, and nothing that a terminal would obey."""

import io
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneopt.cli import main
from tuneopt.console import PlainConsole, table
from tuneopt.errors import LONGEST_SENTENCE, InputError, nearest, visible

STEADY = settings(derandomize=True, deadline=None, database=None)
UNSEEN = ["\x1b[31mred", "\x1b]0;title\x07", "a\rb", "\x9b2J", "\x00", "\u202egnp.exe", "\ud800", "\u2028", "\x7f"]


@STEADY
@given(st.text(st.characters(), max_size=300))
def test_every_message_is_one_line_without_control_characters(text: str) -> None:
    said = str(InputError(f"{text} is wrong"))
    assert said == visible(said) and "\n" not in said and len(said) <= LONGEST_SENTENCE
    said.encode()  # half surrogates are spelt out, so that every stream can write it


@pytest.mark.parametrize("text", UNSEEN)
def test_what_steers_a_terminal_is_spelt_out(text: str) -> None:
    assert visible(text).isprintable() and "\\" in visible(text)


@pytest.mark.parametrize("text", ["soap", "η = 0.1", "模型", "10\u00a0± 2", "naïve", "🙂", ""])
def test_what_people_write_stays(text: str) -> None:
    assert visible(text) == text
    assert visible(text + "\n", keep="\n") == text + "\n"


def test_a_huge_message_is_cut() -> None:
    said = str(InputError("x" * 10**6))
    assert len(said) == LONGEST_SENTENCE and said.endswith("\u2026")


def test_a_huge_word_is_answered_at_once() -> None:
    began = time.perf_counter()
    assert nearest("x" * 10**6, ["soap", "muon"]) == "known: soap, muon"
    assert time.perf_counter() - began < 1, "the comparison takes the product of both lengths"


@pytest.mark.parametrize("text", UNSEEN[:-3])
def test_no_cell_of_a_listing_reaches_the_terminal_raw(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = io.StringIO()
    console = PlainConsole(file=drawn, highlight=False, width=200, no_color=True)
    monkeypatch.setattr("tuneopt.console._wide", console)
    table([f"head {text}"], [[f"[bold]{text}[/nonsense]"]])
    console.print(f"line {text}", markup=False)
    assert not {"\x1b", "\r", "\x07", "\x9b", "\x00", "\u202e"} & set(drawn.getvalue())
    assert "[bold]" in drawn.getvalue(), "markup in a name is text"


@pytest.mark.parametrize("word", ["\x1b[2J", "a\nb", "\x9b31m", "\u202eabc"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["tune", "-O", "{}"],
        ["tune", "-O", "soap", "--set", "{}=1"],
        ["tune", "-O", "soap", "--corpus", "{}"],
        ["tune", "-O", "soap", "--scale", "{}"],
        ["ledger", "ls", "--ledger", "{}"],
        ["study", "plan", "{}"],
        ["report", "--results", "{}.csv"],
        ["{}"],
        ["tune", "--{}"],
    ],
)
def test_the_command_answers_in_one_clean_line(
    word: str, arguments: list[str], tmp_path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["tuneopt", *(each.replace("{}", word) for each in arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    out, err = capsys.readouterr()
    assert end.value.code == 2 and out == ""
    assert err.startswith("tuneopt: ") and err.count("\n") == 1
    assert visible(err.rstrip("\n")) == err.rstrip("\n")
    assert list(tmp_path.iterdir()) == []

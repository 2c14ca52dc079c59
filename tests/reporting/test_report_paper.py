"""Figures and tables for papers: every format, the widths, what stands inside, and LaTeX that no name can break."""

import csv
import xml.etree.ElementTree as ET
from importlib.util import find_spec

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneopt import api
from tuneopt.reporting import paper
from tuneopt.reporting.blocks import Table
from tuneopt.reporting.paper import COLUMN, TEXT, Export, escaped, latex, wrapped
from tuneopt.reporting.scene import text_width
from tuneopt.spec import InputError


def words_of(path):
    return " ".join("".join(element.itertext()) for element in ET.parse(path).iter() if element.tag.endswith("text"))


def test_svg_and_tables_need_nothing(tmp_path):
    api.report(None, tmp_path / "r.html", published=True, figures=tmp_path / "f", latex=True)
    wide, narrow = (tmp_path / "f" / f"speedup-by-ratio{end}.svg" for end in ("", "-column"))
    assert (ET.parse(wide).getroot().get("width"), ET.parse(narrow).getroot().get("width")) == (str(TEXT), str(COLUMN))
    for path in (wide, narrow):
        words = words_of(path)
        assert "speedups over AdamW are above 1 beyond noise" in words.replace("  ", " ")
        assert "Source: tuneopt report --published" in words
    rows = list(csv.reader((tmp_path / "f" / "tables" / "speedups.csv").open()))
    assert len(rows) == 1 + 132
    tex = (tmp_path / "f" / "tables" / "speedups.tex").read_text()
    assert tex.count("\\\\\n") == 1 + 132 and "& AdamW &" not in tex and "& Muon &" in tex


@pytest.mark.skipif(find_spec("matplotlib") is None, reason="matplotlib is not installed; pip install '.[figures]'")
def test_pdf_and_png_are_the_same_each_time(tmp_path):
    for name in ("a", "b"):
        api.report(None, tmp_path / "r.html", published=True, figures=tmp_path / name, formats=("pdf", "png"))
    for path in sorted((tmp_path / "a").glob("*.p*")):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name
    assert (tmp_path / "a" / "flips-by-ratio.pdf").read_bytes().startswith(b"%PDF")
    assert b"tuneopt report --published" in (tmp_path / "a" / "flips-by-ratio.pdf").read_bytes()


def test_without_matplotlib_pdf_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(paper, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"need matplotlib; pip install matplotlib"):
        api.report(None, tmp_path / "r.html", published=True, figures=tmp_path / "f", formats=("svg", "pdf"))
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_is_said_in_one_sentence(tmp_path):
    with pytest.raises(InputError, match="svg, pdf, png, not as gif"):
        Export(tmp_path, ("gif",))
    with pytest.raises(InputError, match="name a folder with --figures"):
        api.report(None, tmp_path / "r.html", published=True, latex=True)


@given(st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=30))
def test_no_name_is_a_command_of_latex(name):
    text = escaped(name)
    for known in (r"\&", r"\%", r"\$", r"\#", r"\_", r"\{", r"\}", r"\textasciitilde{}", r"\textasciicircum{}",
                  r"\textbackslash{}", "$-$", r"$\pm$", r"$\times$", r"$\rightarrow$", r"$\surd$", r"$\sigma$",
                  r"$\geq$", r"$\cdot$"):  # fmt: skip
        text = text.replace(known, "")
    assert not set(text) & set("&%$#_{}^\\")


def test_a_table_for_latex_has_its_alignment_its_caption_and_display_names():
    text = latex(Table("Losses_1", ("optimizer", "loss"), (("adamw", "3.2 \u00b1 0.1"),), frozenset({1}), "One note."))
    assert r"\caption{Losses\_1. One note.}" in text
    assert r"\begin{tabular}{lr}" in text
    assert r"AdamW & 3.2 $\pm$ 0.1 \\" in text


@given(st.text("ab ", max_size=80), st.floats(30, 300))
def test_wrapped_lines_fit_and_lose_no_word(text, width):
    lines = wrapped(text, width, 12)
    assert " ".join(lines).split() == text.split()
    assert all(text_width(line, 12) <= width or " " not in line for line in lines)


def test_no_table_for_a_paper_is_written_over_the_results(tmp_path):
    table = tmp_path / "f" / "tables" / "results.csv"
    table.parent.mkdir(parents=True)
    table.write_text("optimizer,scale,ratio,loss\nadamw,130m,1,3.53\nmuon,130m,1,3.49\n")
    before = table.read_bytes()
    with pytest.raises(InputError, match="is where --figures writes its tables"):
        api.report(None, tmp_path / "r.html", results=table, figures=tmp_path / "f")
    assert table.read_bytes() == before and not (tmp_path / "r.html").exists()


def test_options_that_would_do_nothing_are_refused(tmp_path):
    with pytest.raises(InputError, match="--columns maps the columns of a table"):
        api.report(None, tmp_path / "r.html", published=True, columns={"loss": "val"})
    with pytest.raises(InputError, match="--format is of the figures"):
        api.report(None, tmp_path / "r.html", published=True, formats=("pdf",))
    assert list(tmp_path.iterdir()) == []

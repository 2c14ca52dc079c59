"""Figures and tables of a report for a paper: SVG, PDF and PNG at the widths of a text and of a column, CSV and LaTeX.

A figure is laid out anew for each width, so that its letters have the size of a caption and not that of a screen.
Title, caption and source stand inside the picture: it still says what it shows once it has left its folder. SVG is
written here; PDF and PNG are drawn by matplotlib, which the extra ``figures`` installs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from tuneopt.paths import check_output, replacing
from tuneopt.reporting.blocks import Block, Columns, Figure, Fold, Table, csv_text, figures_of
from tuneopt.reporting.page import Page
from tuneopt.reporting.picture import picture
from tuneopt.reporting.scene import Scene, Words, text_width
from tuneopt.reporting.svg import svg
from tuneopt.reporting.text import shown
from tuneopt.spec import InputError

FORMATS = ("svg", "pdf", "png")

POINT = 2 / 3
"""Points of a pixel of a picture: its letters of 12 pixels become 8 points, those of a caption."""

TEXT, COLUMN = round(486 / POINT), round(234 / POINT)
"""Pixels of the text and of a column of a page of two columns: 6.75 and 3.25 inches."""

_MARGIN = 8.0


@dataclass(frozen=True)
class Export:
    """What is written beside a report: figures in each of ``formats`` and tables as CSV, with ``latex`` as LaTeX too.

    Raises `InputError` for a format that nobody writes and for one that needs matplotlib where that is not installed.
    """

    folder: Path
    formats: tuple[str, ...] = ("svg",)
    latex: bool = False

    def __post_init__(self) -> None:
        unknown = [name for name in self.formats if name not in FORMATS]
        if unknown or not self.formats:
            raise InputError(f"a figure is written as {', '.join(FORMATS)}, not as {', '.join(unknown) or 'nothing'}")
        if set(self.formats) - {"svg"} and find_spec("matplotlib") is None:
            raise InputError("figures as pdf and png need matplotlib; pip install matplotlib, or use svg")

    def check(self, sources: Sequence[Path]) -> None:
        """Raise `InputError` where a table would be written over one of ``sources``, or into folders of a ledger."""
        check_output(self.folder / "figure", "the figures", sources)
        tables = (self.folder / "tables").resolve()
        for source in sources:
            if source.is_file() and source.resolve().parent == tables:
                raise InputError(f"{source} is where --figures writes its tables; name another folder")

    def write(self, page: Page, source: str) -> list[Path]:
        """Write the figures and tables of a page; ``source`` is the command that made it.

        Of a page with several sweeps those of the comparison are written, of one with a single sweep its own. Raises
        `InputError` for a folder that cannot be written.
        """
        parts: list[Sequence[Block]] = [chapter.blocks for chapter in page.chapters]
        parts += [section.blocks for section in page.sections] if not page.chapters else []
        first = () if page.guide is None else (page.guide,)
        figures = [*first, *(figure for blocks in parts for figure in figures_of(blocks))]
        written = [path for figure in figures for path in self._figure(figure, source)]
        used: set[str] = set()
        for table in (table for blocks in parts for table in tables_of(blocks)):
            written += self._table(table, used)
        return written

    def _figure(self, figure: Figure, source: str) -> Iterator[Path]:
        for ending, width in (("", TEXT), ("-column", COLUMN)):
            if ending == "" and figure.width <= COLUMN * 1.2:
                continue  # drawn for a column alone
            scene = captioned(figure, width, source)
            for name in self.formats:
                path = self.folder / f"{figure.key}{ending}.{name}"
                with replacing(path, "the figure", [], make_folder=True) as temporary:
                    if name == "svg":
                        label = f"{figure.title}. {figure.reading} {source}"
                        temporary.write_text(svg(scene, "", label, alone=True), encoding="utf-8")
                    else:
                        from tuneopt.reporting.canvas import save  # matplotlib is heavy, and not everybody's

                        about = {"Title": figure.title, "Subject": figure.reading, "Keywords": source}
                        save(scene, temporary, name, POINT, about)
                yield path

    def _table(self, table: Table, used: set[str]) -> list[Path]:
        """A table under a name of its own; titles may come twice, of several sweeps for example."""
        name = re.sub(r"[^a-z0-9]+", "-", table.title.lower()).strip("-") or "table"
        number = next(count for count in range(1, len(used) + 2) if f"{name}-{count}" not in used)
        used.add(f"{name}-{number}")
        path = self.folder / "tables" / (f"{name}.csv" if number == 1 else f"{name}-{number}.csv")
        texts = {path: csv_text(table.columns, table.rows)}
        if self.latex:
            texts[path.with_suffix(".tex")] = latex(table)
        for own, text in texts.items():
            with replacing(own, "the table", [], make_folder=True) as temporary:
                temporary.write_text(text, encoding="utf-8")
        return list(texts)


def tables_of(blocks: Sequence[Block]) -> Iterator[Table]:
    """Every table among blocks, those in folds too, in reading order."""
    for block in blocks:
        if isinstance(block, Table):
            yield block
        elif isinstance(block, Fold | Columns):
            yield from tables_of(block.blocks)


def captioned(figure: Figure, width: int, source: str) -> Scene:
    """A figure's picture with its title above it, and under it how to read it and where it comes from."""
    drawn = picture(figure.at(width), width)
    room = width - 2 * _MARGIN
    head = [(line, 13.0, True, "") for line in wrapped(figure.title, room, 13.0, bold=True)]
    foot = [(line, 10.5, False, "") for line in wrapped(figure.reading, room, 10.5)]
    foot += [(line, 9.0, False, "#5c6570") for line in wrapped(f"Source: {source}", room, 9.0)]
    top = sum(1.35 * size for _, size, _, _ in head) + _MARGIN
    scene = Scene(width, 0.0)
    y = _MARGIN / 2
    for line, size, bold, colour in head:
        scene.parts.append(Words(_MARGIN, y + 0.7 * size, ((line, bold),), size, colour=colour))
        y += 1.35 * size
    scene.parts += [part.moved(top) for part in drawn.parts]
    y = top + drawn.height + _MARGIN / 2
    for line, size, bold, colour in foot:
        scene.parts.append(Words(_MARGIN, y + 0.7 * size, ((line, bold),), size, colour=colour))
        y += 1.35 * size
    return replace(scene, height=y + _MARGIN / 2)


def wrapped(text: str, width: float, size: float, bold: bool = False) -> list[str]:
    """The lines of a text that fit a width in pixels; a word that is wider than a line has a line of its own."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and text_width(longer, size, bold) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


_SPECIAL = {"&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
            "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "\u2212": "$-$",
            "\u2013": "--", "\u00b1": r"$\pm$", "\u00d7": r"$\times$", "\u2192": r"$\rightarrow$", "\u00a0": "~",
            "\u221a": r"$\surd$", "\u03c3": r"$\sigma$", "\u2265": r"$\geq$", "\u00b7": r"$\cdot$"}  # fmt: skip


def escaped(text: str) -> str:
    """A text as LaTeX sets it: none of its letters is a command."""
    return "".join(_SPECIAL.get(letter, letter) for letter in text)


def latex(table: Table) -> str:
    """A table for LaTeX with booktabs; optimizers are written as their papers write them."""
    align = "".join("r" if column in table.numeric else "l" for column in range(len(table.columns)))
    rows = [
        " & ".join(escaped(shown(cell, column)) for cell, column in zip(row, table.columns, strict=True))
        for row in table.rows
    ]
    caption = escaped(table.title + (f". {table.note}" if table.note else ""))
    return "\n".join([
        r"\begin{table}", r"\centering", rf"\caption{{{caption}}}", rf"\begin{{tabular}}{{{align}}}", r"\toprule",
        " & ".join(map(escaped, table.columns)) + r" \\", r"\midrule", *(f"{row} \\\\" for row in rows),
        r"\bottomrule", r"\end{tabular}", r"\end{table}", "",
    ])  # fmt: skip

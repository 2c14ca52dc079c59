"""The page as one HTML text: styles, script and pictures are inlined, and nothing is fetched.

Every figure is a picture in the page (SVG), which a browser shows with the text around it, without a script, in a mail
and on paper. The script adds what a picture has not: names under the pointer, one line brought to the front, tables
that sort, and downloads.

Text reaches the page through Jinja2's autoescape or is escaped where a picture is written, and the figures' data
compressed in base64, whose letters cannot end a script. Besides, a content security policy allows this page's own
script by its hash, no other script and no connection: markup that slipped through would still not run.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from tuneopt.analysis.names import in_words
from tuneopt.parallel import in_parallel
from tuneopt.reporting.blocks import Figure, Table
from tuneopt.reporting.page import Page
from tuneopt.reporting.palette import look
from tuneopt.reporting.panels import NARROW
from tuneopt.reporting.picture import picture
from tuneopt.reporting.svg import svg
from tuneopt.reporting.terms import terms
from tuneopt.reporting.text import shown

INLINE = 20
"""Sweeps whose pictures stand in the page as they are. Those of more are packed, a sixth of the size, and unpacked by
the script when their fold is opened: a study of hundreds of sweeps would be a file that browsers open slowly."""

PHONE = 844
"""Pixels of a phone's screen from top to bottom."""


def render(page: Page) -> str:
    """The HTML of a page."""
    template = _environment().get_template("report.html.j2")
    later = [figure for part in page.sections for figure in part.figures] if len(page.sections) > INLINE else []

    def part(figure: Figure | None) -> str:
        return bundle(page.all_figures) if figure is None else pictures(figure)

    data, *drawn = in_parallel(part, [None, *later])
    by_key = dict(zip((figure.key for figure in later), drawn, strict=True))
    with ThreadPoolExecutor(1) as pool:  # the page is written while its pictures are packed, which holds no lock
        return template.render(
            page=page,
            policy=content_policy(),
            bundle=data,
            packed=by_key.keys(),
            later=_Coming(pool.submit(pack, json.dumps(by_key))) if later else "",
            baseline=page.baseline,
            level=page.level,
        )


class _Coming:
    """A text that another thread makes: whoever writes it waits for it."""

    def __init__(self, text: Future[str]) -> None:
        self._text = text

    def __html__(self) -> str:
        return self._text.result()


def pictures(figure: Figure) -> Markup:
    """A figure as SVG: for a screen, and where that is wider than a phone for a phone as well.

    Panels that would fill a phone's whole screen stay side by side there, and are drawn once: the plot scrolls.
    """
    label = f"{figure.title}. {figure.reading}"
    drawn = picture(figure.plot, figure.width)
    if figure.width <= NARROW:
        return Markup(svg(drawn, "both", label))
    narrow = picture(figure.at(NARROW), NARROW)
    if narrow.height > PHONE and 2 * drawn.height < narrow.height:
        return Markup(svg(drawn, "wide across", label))
    return Markup(svg(drawn, "wide", label) + svg(narrow, "narrow", label))


def rows(table: Table) -> Markup:
    """The rows of a table's body: a large report has a hundred thousand cells, and the template is slow at them."""
    heads = ['<td class="n">' if number in table.numeric else "<td>" for number in range(len(table.columns))]
    columns = list(zip(heads, table.columns, strict=True))
    lines = (
        "".join(
            [f"{head}{breakable(shown(cell, column))}</td>" for cell, (head, column) in zip(row, columns, strict=False)]
        )
        for row in table.rows
    )
    return Markup("".join(f"<tr>{line}</tr>\n" for line in lines))


def bundle(figures: Iterable[Figure]) -> str:
    """The data of all figures, CSV by key: JSON, gzipped, in base64; the same data gives the same text."""
    return pack(json.dumps({figure.key: figure.csv for figure in figures}, separators=(",", ":")))


def pack(text: str) -> str:
    """Text gzipped, in base64: letters that can end no script; the same text gives the same letters."""
    return base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode()


@cache
def _environment() -> Environment:
    # An undefined name must fail loudly (StrictUndefined): an empty place on a page of results would be read as a zero.
    # Styles and scripts are this package's own files, the only texts that reach the page without being escaped.
    environment = Environment(
        autoescape=True,
        loader=PackageLoader("tuneopt.reporting", "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        styles=Markup(_template("report.css")),
        script=Markup(page_script()),
        look=look,
        pictures=pictures,
        rows=rows,
        terms=lambda sentence: terms(in_words(sentence)),
        shown=shown,
        breakable=breakable,
    )
    return environment


@cache
def page_script() -> str:
    """The page's own script."""
    return _template("report.js")


def breakable(name: str, after: str = "_") -> Markup:
    """A name as HTML that may go on in a second line ``after`` one of these: names of tables have no spaces."""
    text = str(escape(name))
    for sign in after:
        text = text.replace(sign, f"{sign}<wbr>")
    return Markup(text)


def content_policy() -> str:
    """The content security policy: the page's script by its hash and inline styles; no source from a network."""
    return f"default-src 'none'; script-src {_hash(page_script())}; style-src 'unsafe-inline'; base-uri 'none'"


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _template(name: str) -> str:
    return (files("tuneopt.reporting") / "templates" / name).read_text(encoding="utf-8")

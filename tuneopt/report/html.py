"""The page as one HTML text: styles, scripts and plotly.js are inlined, and nothing is fetched.

Text reaches the page through Jinja2's autoescape, and the figures' data and plotly.js compressed in base64, whose
letters cannot end a script; a study of 10,000 trials would be three times as large without. Besides, a content
security policy allows this page's own script and plotly.js by their hashes, no other script and no connection: markup
that slipped through would still not run.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Iterable
from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from tuneopt.report.blocks import Figure
from tuneopt.report.page import Page
from tuneopt.report.palette import look


def render(page: Page) -> str:
    """The HTML of a page."""
    template = _environment().get_template("report.html.j2")
    bundled = bundle(page.all_figures)
    return template.render(page=page, policy=content_policy(), bundle=bundled, baseline=page.baseline, level=page.level)


def bundle(figures: Iterable[Figure]) -> str:
    """Drawings and CSV texts of all figures by key: JSON, gzipped, in base64; the same data gives the same text."""
    plain = {figure.key: {"plot": figure.plot, "csv": figure.csv} for figure in figures}
    text = json.dumps(plain, separators=(",", ":"), allow_nan=False)
    return pack(text)


def pack(text: str) -> str:
    """Text gzipped, in base64: letters that can end no script; the same text gives the same letters."""
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()


@cache
def _environment() -> Environment:
    # An undefined name must fail loudly (StrictUndefined): an empty place on a page of results would be read as a zero.
    # Styles and scripts are this package's own files, the only texts that reach the page without being escaped.
    environment = Environment(
        autoescape=True,
        loader=PackageLoader("tuneopt.report", "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        styles=Markup(_template("report.css")),
        script=Markup(page_script()),
        library=Markup(library()),
        look=look,
    )
    return environment


@cache
def plotly_script() -> str:
    """The whole of plotly.js, as the installed plotly brings it."""
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


@cache
def library() -> str:
    """plotly.js packed, a third of its size: the page's script unpacks it and runs it under its hash.

    It lies behind the text of the page, so that a reader has the text before the figures are drawn.
    """
    return pack(plotly_script())


@cache
def page_script() -> str:
    """The page's own script."""
    return _template("report.js")


def content_policy() -> str:
    """The content security policy: the two scripts by hash, inline styles, images made by the page itself.

    Images are needed for the download of a figure. There is no source of anything from a network.
    """
    scripts = " ".join(_hash(text) for text in (plotly_script(), page_script()))
    return f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'"


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _template(name: str) -> str:
    return (files("tuneopt.report") / "templates" / name).read_text(encoding="utf-8")

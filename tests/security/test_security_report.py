"""Names with markup in a report, formulas in exported tables, and the page's content policy."""

import base64
import csv
import gzip
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import seeds as samples

from tuneopt.ledger import Ledger
from tuneopt.ledger.table import export
from tuneopt.reporting import write_report

MARKUP = [
    "<script>caught()</script>",
    "</script><script>caught()</script>",
    "<img src=x onerror=caught()>",
    '"><svg onload=caught()>',
    "javascript:caught()",
    "{{ 7*7 }}",
    "</title><b>",
    "<!--",
]
FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(1)"]


class Elements(HTMLParser):
    """Every element of a page with its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def page(folder: Path, names: list[str]) -> str:
    """A report of a table from elsewhere with these names in it."""
    rows = [
        {"optimizer": name, "scale": "nano-65k", "ratio": ratio, "loss": 3.5 + 0.01 * place, "corpus": names[0],
         "trial": f"{name} {ratio}", "hp_schedule": name}
        for place, name in enumerate(["adamw", *names])
        for ratio in (1, 2, 4)
    ]  # fmt: skip
    (folder / f"{names[0][:0]}table.json").write_text(json.dumps(rows))
    write_report(None, folder / "report.html", results=folder / "table.json")
    return (folder / "report.html").read_text()


def test_markup_in_names_is_text_and_runs_nothing(tmp_path: Path) -> None:
    text = page(tmp_path, MARKUP)
    elements = Elements()
    elements.feed(text)
    scripts = [attributes for tag, attributes in elements.found if tag == "script"]
    assert [script.get("type", "program") for script in scripts] == ["text/plain", "program"]
    assert {tag for tag, _ in elements.found} & {
        "img",
        "iframe",
        "object",
        "embed",
        "link",
        "form",
        "base",
    } == set()
    assert not [(tag, name) for tag, attributes in elements.found for name in attributes if name.startswith("on")]
    links = [attributes.get("href") or "" for tag, attributes in elements.found if tag == "a"]
    assert links and all(link.startswith("#") for link in links)
    assert "&lt;script&gt;caught()" in text, "the names are there, as text"
    assert "{{ 7*7 }}" in text, "and no template is filled in"


def test_drawings_cannot_end_their_script_element(tmp_path: Path) -> None:
    text = page(tmp_path, MARKUP)
    found = re.findall(r'<script type="text/plain" id="figures">(.*?)</script>', text, flags=re.DOTALL)
    assert len(found) == 1 and re.fullmatch(r"[A-Za-z0-9+/=]+", found[0])
    figures = json.loads(gzip.decompress(base64.b64decode(found[0])))
    assert any("script" in data for data in figures.values())
    pictures = re.findall(r"<svg .*?</svg>", text, flags=re.DOTALL)
    assert any("script" in picture for picture in pictures)
    assert not [picture for picture in pictures if "<script" in picture or "<img" in picture]


def test_the_content_policy_allows_one_script_and_no_connection(tmp_path: Path) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page(tmp_path, ["plain"]))
    assert policy is not None
    rules = dict(rule.strip().partition(" ")[::2] for rule in policy[1].replace("&#39;", "'").split(";"))
    assert rules["default-src"] == "'none'" and rules["base-uri"] == "'none'"
    assert re.fullmatch(r"'sha256-[^ ]+'", rules["script-src"])
    assert "connect-src" not in rules and "unsafe-eval" not in policy[1]


@pytest.mark.parametrize("formula", FORMULAS)
def test_a_formula_in_an_exported_table_is_text(formula: str, tmp_path: Path) -> None:
    """Parquet holds what the ledger holds; a spreadsheet shows the apostrophe's text and runs nothing."""
    ledger = Ledger(tmp_path / "ledger")
    ledger.put(samples.record())
    table = ledger.table()
    place = table.schema.get_field_index("corpus")
    table = table.set_column(place, "corpus", [[formula]])
    export(table, tmp_path / "table.csv")
    export(table, tmp_path / "table.parquet")
    with (tmp_path / "table.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    assert row["corpus"] == f"'{formula}" and row["optimizer"] == "adamw"
    import pyarrow.parquet as pq

    assert pq.read_table(tmp_path / "table.parquet")["corpus"].to_pylist() == [formula]
    assert table["corpus"].to_pylist() == [formula], "the table itself is not changed"

"""The page in a real browser: no error, no network, every figure drawn and printed, no overlaps, names stay text."""

import csv
import io
import json
import re
import shutil
from pathlib import Path

import pytest
from report_rows import table_rows

from tuneopt.analysis.inputs import published as published_study
from tuneopt.analysis.names import optimizer_name, place_name
from tuneopt.reporting import html, write_report

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; pip install '.[test]'")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed; apt-get install chromium"),
]

PAGES = Path(__file__).parents[2] / "reports"
HOSTILE = "<img src=x onerror=alert(1)>"
READY = "html[data-ready=true]"

OVERLAPS = """
() => {
  const overlaps = (nodes, depth) => {
    const boxes = nodes.map((node) => [node.textContent.trim().slice(0, 40), node.getBoundingClientRect()])
      .filter(([words, box]) => words && box.width > 1);
    const found = [];
    for (let i = 0; i < boxes.length; i++) for (let j = i + 1; j < boxes.length; j++) {
      const [a, b] = [boxes[i][1], boxes[j][1]];
      const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (wide > depth && high > depth) found.push([boxes[i][0], boxes[j][0], Math.round(wide), Math.round(high)]);
    }
    return found;
  };
  const plots = Array.from(document.querySelectorAll(".plot"));
  const shown = (node) => node.getBoundingClientRect().width > 0;
  const words = (plot) => Array.from(plot.querySelectorAll("svg text")).filter(shown);
  return {
    undrawn: plots.filter((plot) => Array.from(plot.querySelectorAll("svg")).filter(shown).length !== 1)
      .map((plot) => plot.dataset.figure),
    headings: overlaps(Array.from(document.querySelectorAll("h1, h2, h3, .reading, .tools, .above")), 1),
    labels: plots.flatMap((plot) => overlaps(words(plot), 2).map((pair) => [plot.dataset.figure, ...pair])),
    cut: plots.flatMap((plot) => {
      const frame = (plot.querySelector("svg.across") ?? plot).getBoundingClientRect();
      return words(plot).filter((text) => {
        const box = text.getBoundingClientRect();
        return box.width && (box.left < frame.left - 1 || box.right > frame.right + 1);
      }).map((text) => [plot.dataset.figure, text.textContent]);
    }),
    tooWide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  };
}
"""


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def reports(single, several, table, tmp_path_factory):
    """Reports by name: the file, and what ``--json`` prints of it."""
    folder = tmp_path_factory.mktemp("browser")
    rows = folder / "rows.json"
    rows.write_text(json.dumps(table_rows({"muon": HOSTILE, "soap": "</script><b>soap</b>"})))
    sources = {
        "one": (single, {}),
        "many": (several, {}),
        "full": (None, {"results": table}),
        "hostile": (None, {"results": rows}),
        "published": (None, {"published": True}),
    }
    return {
        name: (folder / f"{name}.html", write_report(ledger, folder / f"{name}.html", **options))
        for name, (ledger, options) in sources.items()
    }


@pytest.fixture
def visit(chromium, reports):
    """Open a report; whatever the page says, asks the network for or pops up fails the test at its end."""
    faults, pages = [], []

    def open_(name, width=1280, scheme="light", folds=False):
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page = context.new_page()
        page.on("console", lambda message: faults.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: faults.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (faults.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: faults.append(f"request: {request.url}")
                if not request.url.startswith(("file:", "data:", "blob:")) else None)  # fmt: skip
        pages.append(page)
        page.goto(reports[name][0].as_uri())
        if folds:
            page.evaluate("document.querySelectorAll('details').forEach((fold) => { fold.open = true; })")
        page.wait_for_selector(READY, state="attached", timeout=120_000)
        return page

    yield open_
    for page in pages:
        page.context.close()
    assert faults == []


@pytest.mark.parametrize("name", ["one", "many", "full", "published"])
@pytest.mark.parametrize("width", [1280, 390])
def test_everything_is_drawn_and_nothing_overlaps(visit, name, width):
    page = visit(name, width, folds=True)
    seen = page.evaluate(OVERLAPS)
    assert seen == {"undrawn": [], "headings": [], "labels": [], "cut": [], "tooWide": 0}


@pytest.mark.parametrize(
    ("scheme", "paper", "ink"),
    [("dark", "rgb(20, 23, 28)", "rgb(230, 233, 237)"), ("light", "rgb(255, 255, 255)", "rgb(27, 31, 36)")],
)
def test_figures_follow_the_colour_scheme(visit, scheme, paper, ink):
    page = visit("one", scheme=scheme)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == paper
    assert page.evaluate("getComputedStyle(document.querySelector('.plot svg text')).fill") == ink


@pytest.mark.parametrize("name", ["one", "many", "full", "published"])
def test_the_first_screen_says_what_the_json_says(visit, reports, name):
    page, document = visit(name), reports[name][1]
    assert page.inner_text("#headline").replace("\u00a0", " ") == document["answer"]["headline"].replace("\u00a0", " ")
    shown = page.locator("#statements p").all_text_contents()  # single scales stand in a fold
    assert sorted(shown) == sorted(document["answer"]["sentences"])
    cells = [" ".join(text.split()) for text in page.locator(".answer td:not(.none)").all_inner_texts()]
    names = [", ".join(map(optimizer_name, place["leaders"])) for place in document["answer"]["places"]]
    # What is extrapolated has an asterisk on the page and is not `sure` in the JSON.
    expected = [" ".join([who, place["speedup"] + "*" * bool(place["speedup"] and not place["sure"]),
                          place["interval"]]).strip()
                for who, place in zip(names, document["answer"]["places"], strict=True)]  # fmt: skip
    assert sorted(cells) == sorted(" ".join(text.split()) for text in expected)


DIM = """
(name) => Array.from(document.querySelectorAll("#speedup-by-ratio svg.wide g[data-s]"))
  .filter((group) => (group.dataset.s === name) === group.classList.contains("dim")).map((group) => group.dataset.s)
"""


def test_a_click_on_a_name_brings_its_line_to_the_front_and_a_second_one_lets_go(visit):
    page = visit("published")
    label = page.locator("#speedup-by-ratio svg.wide text", has_text="MARS").first
    label.click()
    page.mouse.move(5, 5)
    assert page.evaluate(DIM, "mars") == []
    label.click()
    page.mouse.move(5, 5)
    assert page.locator("#speedup-by-ratio .dim").count() == 0


def test_a_mark_says_its_name_and_numbers_to_the_pointer(visit, reports):
    page, document = visit("published"), reports["published"][1]
    mark = page.locator("#speedup-by-ratio svg.wide g[data-s=muon] circle").first
    mark.hover()
    words = page.inner_text(".tip")
    row = next(row for row in document["speedups"] if (row["optimizer"], row["scale"], row["ratio"])
               == ("muon", "130m", 1.0))  # fmt: skip
    assert words.startswith(f"Muon at 130M/1x: {row['speedup']:.2f} [{row['low']:.2f}, {row['high']:.2f}]")
    page.mouse.move(5, 5)
    assert page.locator(".tip").is_hidden()


def test_both_figures_that_people_come_for_begin_within_two_screens(visit):
    page = visit("published", 1440)
    for key in ("speedup-by-ratio", "flips-by-ratio"):
        assert page.locator(f"#{key} svg.wide").bounding_box()["y"] < 2 * 900 - 60
    assert page.evaluate("document.documentElement.scrollHeight") < 6 * 900


@pytest.mark.parametrize("name", ["published", "muon-study", "nano-study"])
def test_on_a_phone_both_main_figures_begin_on_the_second_screen(name, chromium):
    """The committed pages of real studies. Panels that would fill a screen stay side by side and scroll."""
    page = chromium.new_page(viewport={"width": 390, "height": 844})
    page.goto((PAGES / f"{name}.html").as_uri())
    page.wait_for_selector(READY, state="attached", timeout=120_000)
    assert page.locator("#speedup-by-ratio svg:visible").bounding_box()["y"] < 2 * 844 - 200
    assert page.locator("#flips-by-ratio").bounding_box()["y"] < 2 * 844
    plot = page.locator("#speedup-by-ratio .plot")
    assert plot.evaluate("(one) => one.scrollWidth > 800") == (name == "published")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.context.close()


def test_on_a_phone_the_answer_is_a_table_and_what_can_wait_is_folded(visit):
    page = visit("published", 390)
    cells = page.locator(".answer.compact tbody tr").first.locator("td")
    boxes = [cells.nth(number).bounding_box() for number in range(cells.count())]
    assert len(boxes) == 5 and len({box["y"] for box in boxes}) == 1 and boxes[-1]["x"] + boxes[-1]["width"] <= 390
    folds = page.locator("details.spare")
    assert folds.count() == 3 and not page.locator("#guide .plot").is_visible()
    page.locator(".warnings summary").click()
    assert page.locator(".warnings li").first.is_visible()
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert folds.evaluate_all("(all) => all.every((one) => one.open)")


def test_tables_sort_by_their_heads_and_are_filtered_by_words(visit):
    page = visit("published")
    page.evaluate("document.querySelectorAll('details').forEach((fold) => { fold.open = true; })")
    table = page.locator("table.data[data-name=Speedups]")
    table.locator("th", has_text="speedup").click()
    table.locator("th", has_text="speedup").click()
    values = [float(text) for text in table.locator("tbody tr td:nth-child(4)").all_inner_texts()]
    assert values == sorted(values, reverse=True) and len(values) == 132
    page.locator("input[aria-label='Filter: Speedups']").fill("muon 130m")
    rows = [row for row in table.locator("tbody tr").all() if row.is_visible()]
    assert len(rows) == 5
    with page.expect_download() as started:
        page.locator("button[data-table=speedups]").click()
    lines = started.value.path().read_text().splitlines()
    assert len(lines) == 6 and lines[1].split(",")[1] == "Muon"


def test_the_pictures_of_many_sweeps_are_drawn_when_their_fold_is_opened(chromium, several, tmp_path, monkeypatch):
    monkeypatch.setattr(html, "INLINE", 3)
    write_report(several, tmp_path / "r.html")
    page = chromium.new_page()
    page.goto((tmp_path / "r.html").as_uri())
    first = page.locator("details.whole").first
    assert page.locator("details.whole svg").count() == 0
    first.locator("> summary").click()
    page.wait_for_selector("details.whole[open] svg.wide", state="visible")
    assert first.locator(".plot[data-packed]").count() == 0
    assert first.locator(".plot").count() == first.locator("svg.wide").count() > 3
    page.close()


def test_without_javascript_every_figure_is_there(chromium, reports):
    context = chromium.new_context(java_script_enabled=False, viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.goto(reports["published"][0].as_uri())
    assert page.locator("#speedup-by-ratio svg.wide").is_visible()
    assert page.locator("#flips-by-ratio svg.wide").is_visible()
    titles = page.locator("#speedup-by-ratio svg.wide title").all_text_contents()
    assert any("Muon at 130M/1x" in title for title in titles)
    context.close()


def test_a_hostile_name_stays_text_everywhere(visit, reports):
    page = visit("hostile", 390, folds=True)
    seen = page.evaluate(OVERLAPS)
    assert (seen["undrawn"], seen["tooWide"]) == ([], 0)
    assert page.locator("body img").count() == 0
    assert page.locator("b", has_text="soap").count() == 0
    assert HOSTILE in page.inner_text(".answer")
    names = page.locator("#speedup-by-ratio svg.narrow text").all_text_contents()
    assert any(HOSTILE.startswith(name.rstrip("\u2026")) and len(name) > 5 for name in names)
    assert any("</script><b>soap</b>".startswith(name.rstrip("\u2026")) and len(name) > 5 for name in names)
    assert HOSTILE in json.dumps(reports["hostile"][1])


def test_the_data_of_a_figure_comes_as_csv(visit, reports):
    page, document = visit("full", folds=True), reports["full"][1]
    with page.expect_download() as started:
        page.click("#speedups button[data-csv]")
    assert started.value.suggested_filename == "speedups.csv"
    rows = list(csv.DictReader(io.StringIO(started.value.path().read_text())))
    found = {(row["regime"], row["optimizer"]): float(row["speedup"]) for row in rows}
    expected = {(place_name(row["scale"], row["ratio"]), row["optimizer"]): row["speedup"]
                for row in document["speedups"] if row["optimizer"] != "adamw"}  # fmt: skip
    assert found == pytest.approx(expected, rel=1e-6)


def test_the_keyboard_reaches_the_content_the_folds_and_the_figures(visit):
    page = visit("full")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.url.endswith("#content")
    page.focus("details.fold > summary")
    assert page.locator("details.fold").first.get_attribute("open") is None
    page.keyboard.press("Enter")
    assert page.locator("details.fold").first.get_attribute("open") is not None
    assert page.evaluate("Array.from(document.querySelectorAll('.plot, .scroll, pre')).every((e) => e.tabIndex === 0)")


def test_paper_gets_every_figure_of_an_open_chapter_in_dark_ink(visit, tmp_path):
    page = visit("published", scheme="dark")
    page.emulate_media(media="print")
    assert page.locator("#speedup-by-ratio svg.wide").is_visible()
    assert not page.locator("nav").is_visible()
    assert page.evaluate("getComputedStyle(document.querySelector('.plot svg')).fill") == "rgb(0, 0, 0)"
    target = tmp_path / "published.pdf"
    page.pdf(path=target)
    assert 3 <= len(re.findall(rb"/Type\s*/Page\b", target.read_bytes())) <= 12


def test_an_image_of_a_figure_comes_as_svg_that_stands_alone(visit):
    page = visit("published", scheme="dark")
    with page.expect_download() as started:
        page.click("#speedup-by-ratio button[data-image]")
    text = started.value.path().read_text()
    assert text.startswith("<svg") and 'xmlns="http://www.w3.org/2000/svg"' in text and "#1b1f24" in text


def test_a_table_of_long_names_fits_a_wide_screen_and_scrolls_within_a_phone_s(chromium, tmp_path):
    names = {"muon": "contra_muon_with_a_split_cooldown_and_more", "soap": "aurora_projected_pruned_extended"}
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps(table_rows(names)))
    write_report(None, tmp_path / "report.html", results=rows, targets=[3.3])
    wider = "[...document.querySelectorAll('.scroll')].filter((one) => one.scrollWidth > one.clientWidth + 1).length"
    for width in (1440, 390):
        page = chromium.new_page(viewport={"width": width, "height": 900})
        page.goto((tmp_path / "report.html").as_uri())
        page.wait_for_selector(READY, state="attached", timeout=120_000)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert width < 1000 or page.evaluate(wider) == 0
        page.close()


@pytest.mark.parametrize("further", [False, True])
def test_the_two_main_figures_of_the_published_study_stand_on_the_second_screen(chromium, tmp_path, further):
    """Of twelve regimes they end there; with a fourth scale, whose answers are longer, they begin there."""
    study = [{"optimizer": run.optimizer, "scale": run.regime.scale, "ratio": run.regime.ratio, "loss": run.losses[1]}
             for run in published_study(further).runs]  # fmt: skip
    (tmp_path / "study.json").write_text(json.dumps(study))
    write_report(None, tmp_path / "study.html", results=tmp_path / "study.json")
    page = chromium.new_page(viewport={"width": 1440, "height": 900})
    page.goto((tmp_path / "study.html").as_uri())
    page.wait_for_selector(READY, state="attached", timeout=120_000)
    boxes = [page.locator(f"#{key} .plot").bounding_box() for key in ("speedup-by-ratio", "flips-by-ratio")]
    assert all(box["y"] + (0 if further else box["height"]) < 1800 for box in boxes)
    page.close()

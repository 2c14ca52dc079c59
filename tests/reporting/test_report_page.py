"""The whole file: what it holds, that it fetches nothing, and that text from a ledger stays text."""

import base64
import gzip
import hashlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_samples import make_sweep, run_sweep

from tuneopt.analysis.names import in_words
from tuneopt.ledger import Ledger
from tuneopt.reporting import write_report
from tuneopt.reporting.blocks import Figure
from tuneopt.reporting.compare import compare
from tuneopt.reporting.drawing import Drawing, Mark
from tuneopt.reporting.html import _environment, bundle, page_script
from tuneopt.reporting.page import build_page
from tuneopt.reporting.sources import gather
from tuneopt.reporting.study import read_study
from tuneopt.reporting.text import plain
from tuneopt.spec import CorpusId, InputError


class Reader(HTMLParser):
    """Tags with their attributes, and the text of each script by its id."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts, self.words, self.inside, self.joined = [], [], [], None, False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append([dict(attrs), ""])
        self.inside, self.joined = tag, tag == "dfn"

    def handle_endtag(self, tag):
        self.inside, self.joined = None, tag == "dfn"

    def handle_data(self, data):
        if self.inside == "script":
            self.scripts[-1][1] += data
        elif self.inside != "style" and self.joined:  # a word of the glossary stands inside its sentence
            self.words[-1] += data
        elif self.inside != "style":
            self.words.append(data)


def unpack(page):
    """The figures' data, as the page's own script reads it."""
    packed = next(text for attributes, text in page.scripts if attributes.get("id") == "figures")
    return json.loads(gzip.decompress(base64.b64decode(packed)))


@pytest.fixture(scope="module")
def written(several, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "new" / "report.html"
    summary = write_report(several, path)
    text = path.read_text(encoding="utf-8")
    return summary, text, Reader(text)


def test_the_document_has_the_shape_that_others_build_on(written, several):
    summary, _, _ = written
    assert {"speedups", "rankings", "flips", "warnings", "sweeps", "path"} <= set(summary)
    assert {"optimizer", "scale", "ratio", "speedup", "low", "high", "tie_group"} <= set(summary["speedups"][0])
    assert {"scale", "ratio", "order"} <= set(summary["rankings"][0])
    assert {sweep["id"] for sweep in summary["sweeps"]} == set(several.sweeps())
    first = summary["sweeps"][0]
    assert first["regime"] == {"scale": "nano-65k", "ratio": 1, "corpus": "embedded"}
    assert first["certificate"]["complete"] is True
    assert first["best"]["config"]["train_batch_size"] == 8
    json.dumps(summary, allow_nan=False)


def test_the_same_ledger_gives_the_same_file(single, tmp_path):
    write_report(single, tmp_path / "a.html")
    write_report(single, tmp_path / "b.html")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "b.html"]


def test_nothing_is_fetched(written):
    _, text, page = written
    for tag, attributes in page.tags:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base")
        assert "src" not in attributes
        if tag == "a":
            assert attributes["href"].startswith("#")
    own = text.replace(page_script(), "")  # whose one address is the name space of SVG, which nobody fetches
    assert page_script().count("http") == page_script().count("http://www.w3.org/2000/svg") == 1
    assert "http://" not in own
    assert "https://" not in own
    assert "@import" not in text
    assert "url(" not in text


def test_the_policy_allows_the_page_s_script_and_no_connection(written):
    _, _, page = written
    policy = next(tag[1]["content"] for tag in page.tags if tag[1].get("http-equiv"))
    running = [text for attributes, text in page.scripts if "type" not in attributes]
    assert running == [page_script()]
    digest = base64.b64encode(hashlib.sha256(page_script().encode()).digest()).decode()
    assert re.findall(r"'sha256-[^']+'", policy) == [f"'sha256-{digest}'"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe-eval" not in policy
    assert "connect-src" not in policy
    assert "\r" not in page_script()


def test_every_figure_has_its_texts_its_pictures_and_its_data(written):
    _, _, page = written
    figures = [attributes for tag, attributes in page.tags if tag == "figure"]
    data = unpack(page)
    assert len(figures) == len(data) > 5 * 6
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert set(data) == {figure["id"] for figure in figures}
    for figure in figures:
        assert figure["aria-labelledby"] in ids
        assert figure["aria-describedby"] in ids
        assert data[figure["id"]].count("\n") > 1
    labelled = [attributes["aria-label"] for tag, attributes in page.tags if attributes.get("role") == "img"]
    assert len(labelled) == 2 * len(figures)  # one for a screen, one for a phone
    assert all(len(label) > 40 for label in labelled)


def test_the_first_screen_says_what_the_document_says(written):
    summary, _, page = written
    words = " ".join(" ".join(page.words).split())
    first = words[: words.index("Contents")]
    answer = summary["answer"]
    assert answer["headline"] in first
    stated = [one["sentence"] for one in summary["statements"] if one["compared"] > 1]
    told = [*stated, *(one["sentence"] for one in summary["findings"])]
    *before, circumstances = answer["sentences"]
    assert before == list(map(in_words, told)) and stated
    assert circumstances.startswith("The update rules are not all that differs: warmup (") and summary["circumstances"]
    for sentence in answer["sentences"]:
        assert sentence in first
    for place in answer["places"]:
        mark = "" if place["sure"] else "*"
        assert f"{place['speedup']}{mark} {place['interval']}" in first
        soap = next(row for row in summary["speedups"]
                    if row["optimizer"] == place["leaders"][0] and row["ratio"] == place["ratio"])  # fmt: skip
        assert place["interval"] == f"[{soap['low']:.2f}, {soap['high']:.2f}]"
    for warning in summary["warnings"]:
        assert warning in first


def test_a_single_sweep_is_the_page(single, tmp_path):
    summary = write_report(single, tmp_path / "one.html")
    page = Reader((tmp_path / "one.html").read_text())
    words = " ".join(" ".join(page.words).split())
    best = summary["sweeps"][0]["best"]
    assert f"SOAP at nano-65k/1x: {best['report_loss']:.4f}" in words.replace("\u00a0", " ")
    assert "The certificate is complete" in words
    assert "tuneopt tune --optimizer soap" in words
    for heading in ("Best configuration", "Certificate", "Budget", "Regime and corpus", "How to repeat this sweep"):
        assert heading in words
    assert sum(tag == "h1" for tag, _ in page.tags) == 1


def test_repeated_warnings_are_told_once(several, tmp_path):
    summary = write_report(several, tmp_path / "x.html")
    memory = [warning for warning in summary["warnings"] if "training text" in warning]
    assert len(memory) == 1
    assert "SOAP at nano-65k/4x" in memory[0]


HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{7*7}}"


@pytest.fixture(scope="module")
def hostile_ledger(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    ledger = Ledger(folder / "ledger")
    for optimizer, ratio in ((HOSTILE, 1), ("adamw", 1)):
        sweep = make_sweep("adamw", ratio=ratio, corpus=CorpusId(HOSTILE, "0" * 16, 1024))
        sweep = replace(sweep, space=replace(sweep.space, optimizer=optimizer))
        run_sweep(ledger, sweep, environment={"cpu": HOSTILE}, notes=(HOSTILE,),
                  proof={"passed": True, "checks": [{"name": HOSTILE, "passed": True, "detail": HOSTILE}]},
                  routing=({"parameter": HOSTILE, "rule": HOSTILE, "reason": HOSTILE},))  # fmt: skip
    return ledger


@pytest.fixture(scope="module")
def hostile(hostile_ledger, tmp_path_factory):
    path = tmp_path_factory.mktemp("hostile-page") / "report.html"
    write_report(hostile_ledger, path)
    return path.read_text()


@pytest.fixture(scope="module")
def hostile_plots(hostile_ledger):
    material = gather(hostile_ledger)
    return [figure.plot for figure in build_page(material, compare(material)).all_figures]


def test_hostile_text_stays_text(hostile):
    page = Reader(hostile)
    assert not any(tag == "img" for tag, _ in page.tags)
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    running = [text for attributes, text in page.scripts if "type" not in attributes]
    assert running == [page_script()]
    assert "49" not in re.sub(r"[\d.,]{3,}", "", " ".join(page.words).split("optimizer")[0])
    assert any(HOSTILE in word for word in page.words)
    assert len(page.scripts) == 2  # the packed data and the page's own


def test_hostile_names_reach_drawings_without_tags(hostile_plots):
    def strings(tree):
        if isinstance(tree, str):
            yield tree
        elif isinstance(tree, dict | list):
            for value in tree.values() if isinstance(tree, dict) else tree:
                yield from strings(value)

    # What a trace or a series is called is a key and no text; everything else may be read for tags.
    keys = {"legendgroup", "name"}
    tags = set()
    for plot in hostile_plots:
        plain = json.loads(json.dumps(plot), object_hook=lambda tree: {k: v for k, v in tree.items() if k not in keys})
        tags |= {tag for word in strings(plain) for tag in re.findall(r"<(/?\w+)", word)}
    assert tags <= {"b", "/b", "br", "extra", "/extra"}


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60))
def test_any_text_survives_a_figure_unchanged(words):
    drawing = Drawing(100, "x", "y")
    drawing.marks([Mark(0, 0, words)], "#123456", name=plain(words))
    figure = Figure("key", words, words, drawing, words)
    template = _environment().from_string(
        '{% import "macros.html.j2" as m with context %}{{ m.figure(f) }}<script id="figures">{{ bundle }}</script>'
    )
    page = Reader(template.render(f=figure, bundle=bundle([figure]), packed=set()))
    assert unpack(page) == {"key": words}
    known = {"figure", "figcaption", "h3", "p", "div", "dfn", "svg", "g", "path", "circle", "text", "tspan", "title",
             "button", "script"}  # fmt: skip
    assert {tag for tag, _ in page.tags} <= known
    shown = next(attributes for tag, attributes in page.tags if tag == "div")
    assert shown["aria-label"] == f"{words}. {words}"


@pytest.mark.parametrize("waves", [0, 1, 2])
def test_a_sweep_at_any_moment_makes_a_page(tmp_path, waves):
    ledger = Ledger(tmp_path / "ledger")
    run_sweep(ledger, make_sweep("soap"), waves=waves)
    summary = write_report(ledger, tmp_path / "r.html")
    assert summary["sweeps"][0]["state"] == "running"
    assert summary["sweeps"][0]["trials"]["pending"] > 0
    assert "not finished" in (tmp_path / "r.html").read_text()


def test_a_sweep_in_which_everything_diverged_makes_a_page(tmp_path):
    ledger = Ledger(tmp_path / "ledger")
    run_sweep(ledger, make_sweep("adamw"), lambda spec: None)
    run_sweep(ledger, make_sweep("soap"))
    summary = write_report(ledger, tmp_path / "r.html")
    assert {sweep["state"] for sweep in summary["sweeps"]} == {"certified", "incomplete"}
    assert [ranking["order"] for ranking in summary["rankings"]] == [["soap"]]


def test_only_the_named_sweeps_are_reported(several, tmp_path):
    wanted = read_study(several).views[1].id
    summary = write_report(several, tmp_path / "r.html", [wanted])
    assert [sweep["id"] for sweep in summary["sweeps"]] == [wanted]
    assert "further trials outside this sweep" in (tmp_path / "r.html").read_text()


def test_a_path_that_cannot_be_written_is_bad_input(single, tmp_path):
    with pytest.raises(InputError, match="it is a folder"):
        write_report(single, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="name another place"):
        write_report(single, tmp_path / "file" / "r.html")


def test_importing_the_report_is_light():
    code = (
        "import sys, tuneopt.reporting as report; assert callable(getattr(report, '__getattr__')); "
        "heavy = {'plotly', 'jinja2', 'torch', 'ray', 'scipy', 'pyarrow'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_an_unknown_name_of_the_package_is_an_error():
    import tuneopt.reporting as report

    with pytest.raises(AttributeError):
        _ = report.nothing

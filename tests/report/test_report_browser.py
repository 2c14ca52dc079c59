"""The page in a real browser: no error, no network, every figure drawn, no text over another, nothing too wide."""

import json
import re
import shutil
import subprocess

import pytest

from tuneopt.report import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed; apt-get install chromium"),
]

PROBE = """
<script>
const faults = [];
addEventListener("error", (event) => faults.push(String(event.message)));
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
addEventListener("load", () => {
  document.querySelectorAll("details").forEach((fold) => { fold.open = true; });
  const plots = Array.from(document.querySelectorAll(".plot"));
  const ready = () => plots.every((plot) => plot.querySelector("svg.main-svg"));
  const report = () => {
    const result = {
      faults,
      requests: performance.getEntriesByType("resource").map((entry) => entry.name),
      drawn: plots.filter((plot) => plot.querySelector("svg.main-svg")).length,
      plots: plots.length,
      headings: overlaps(Array.from(document.querySelectorAll("h1, h2, h3, .reading, .tools")), 1),
      labels: plots.flatMap((plot) => overlaps(Array.from(plot.querySelectorAll("svg text")), 2)),
      cut: plots.flatMap((plot) => {
        const frame = plot.getBoundingClientRect();
        return Array.from(plot.querySelectorAll("svg text")).filter((text) => {
          const box = text.getBoundingClientRect();
          return box.width && (box.left < frame.left - 1 || box.right > frame.right + 1);
        }).map((text) => text.textContent);
      }),
      tooWide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
      ink: getComputedStyle(document.querySelector(".plot svg text")).fill,
      page: getComputedStyle(document.body).backgroundColor,
    };
    parent.postMessage(JSON.stringify(result), "*");
  };
  let patience = 80;
  const wait = () => (ready() || !patience-- ? setTimeout(report, 1500) : setTimeout(wait, 250));
  wait();
});
</script>
"""

FRAME = """<!doctype html><body style="margin:0">
<iframe style="border:0;width:{width}px;height:2400px" src="{name}"></iframe>
<script>addEventListener("message", (event) => {{
  const out = document.createElement("pre"); out.id = "probe"; out.textContent = event.data; document.body.append(out);
}});</script>"""


def browse(*arguments):
    command = [
        CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr",
        "--host-resolver-rules=MAP * 0.0.0.0", *arguments,
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)


def console(run):
    """What the page itself put on the console, apart from the browser's own messages."""
    return [line for line in run.stderr.splitlines() if "CONSOLE" in line]


@pytest.fixture(scope="module")
def pages(single, several, tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    for name, ledger in (("one", single), ("many", several)):
        write_report(ledger, folder / f"{name}.html")
        # The probe is a third script, so the copy that carries it has no policy; the original keeps it.
        text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", (folder / f"{name}.html").read_text())
        (folder / f"{name}-probed.html").write_text(text.replace("<body>", "<body>" + PROBE, 1))
    return folder


def probe(pages, name, width, *arguments):
    frame = pages / f"{name}-{width}.html"
    frame.write_text(FRAME.format(width=width, name=f"{name}-probed.html"))
    run = browse(f"--window-size={max(width, 600)},2400", "--virtual-time-budget=40000", *arguments, "--dump-dom",
                 frame.as_uri())  # fmt: skip
    found = re.search(r'<pre id="probe">(.*?)</pre>', run.stdout, re.S)
    assert found, run.stderr[-2000:]
    plain = found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    return json.loads(plain), console(run)


@pytest.mark.parametrize("name", ["one", "many"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_draws_everything_and_nothing_overlaps(pages, name, width):
    seen, said = probe(pages, name, width)
    assert said == []
    assert seen["faults"] == []
    assert seen["requests"] == []
    assert seen["drawn"] == seen["plots"] > 0
    assert seen["headings"] == []
    assert seen["labels"] == []
    assert seen["cut"] == []
    assert seen["tooWide"] <= 0


@pytest.mark.parametrize(("dark", "page"), [(0, "rgb(20, 23, 28)"), (1, "rgb(255, 255, 255)")])
def test_figures_follow_the_colour_scheme(pages, dark, page):
    seen, _ = probe(pages, "one", 1280, f"--blink-settings=preferredColorScheme={dark}")
    assert seen["page"] == page
    assert seen["ink"] == ("rgb(230, 233, 237)" if dark == 0 else "rgb(27, 31, 36)")


def test_the_page_as_written_runs_under_its_own_policy(pages):
    run = browse("--window-size=1280,1000", "--virtual-time-budget=15000", "--dump-dom", (pages / "one.html").as_uri())
    assert console(run) == []
    assert run.stdout.count("main-svg") >= 5


def test_the_page_prints(pages):
    target = pages / "one.pdf"
    browse("--virtual-time-budget=15000", f"--print-to-pdf={target}", (pages / "one.html").as_uri())
    data = target.read_bytes()
    assert data.startswith(b"%PDF")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", data)) <= 12

(() => {
  "use strict";
  const config = { displayModeBar: false };
  const coarse = matchMedia("(pointer: coarse)").matches;
  const plots = Array.from(document.querySelectorAll(".plot"));
  // Drawings and CSV texts by figure: gzipped JSON in base64.
  const unpack = async () => {
    const bytes = Uint8Array.from(atob(document.getElementById("figures").textContent), (each) => each.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
  };
  const figures = unpack();
  figures.catch(() => plots.forEach((div) => {
    div.textContent = "This figure needs a browser of 2023 or later.";
    div.style.height = "auto";
  }));
  const tone = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  const colours = () => ({
    "font.color": tone("--ink"),
    "hoverlabel.bgcolor": tone("--card"),
    "hoverlabel.bordercolor": tone("--rule"),
    "hoverlabel.font.color": tone("--ink"),
  });

  // The width of a figure changes with more than the window: folding, print, a scroll bar that comes.
  const widths = new Map();
  const resizes = window.ResizeObserver && new ResizeObserver((entries) => {
    for (const { target } of entries) {
      if (target.offsetWidth && target.offsetWidth !== widths.get(target)) {
        widths.set(target, target.offsetWidth);
        Plotly.Plots.resize(target);
      }
    }
  });

  const drawn = new Map();
  const draw = (div) => {
    if (!drawn.has(div)) drawn.set(div, make(div));
    return drawn.get(div);
  };
  const make = async (div) => {
    const { plot } = (await figures)[div.dataset.figure];
    // A finger must scroll the page, not zoom the figure that it happens to start on.
    if (coarse) plot.layout.dragmode = false;
    for (const [path, colour] of Object.entries(colours())) {
      const last = path.lastIndexOf(".");
      path.slice(0, last).split(".").reduce((at, key) => (at[key] ??= {}), plot.layout)[path.slice(last + 1)] = colour;
    }
    widths.set(div, div.offsetWidth);
    await Plotly.newPlot(div, plot.data, plot.layout, config);
    resizes?.observe(div);
  };

  const repaint = () => {
    drawn.forEach((done, div) => done.then(() => Plotly.relayout(div, colours())));
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);

  if ("IntersectionObserver" in window) {
    const observer = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (entry.isIntersecting) {
          observer.unobserve(entry.target);
          draw(entry.target);
        }
      }
    }, { rootMargin: "800px 0px" });
    plots.forEach((div) => observer.observe(div));
  } else {
    plots.forEach(draw);
  }

  // What is out of sight is drawn while nothing else happens, so that printing finds it there.
  const waiting = plots.slice(0, 60);
  const idle = window.requestIdleCallback ?? ((work) => setTimeout(work, 200));
  const visible = (div) => (div.checkVisibility ? div.checkVisibility() : div.offsetParent !== null);
  const drawNext = () => {
    const div = waiting.find((each) => !drawn.has(each) && visible(each));
    if (div) draw(div).then(() => idle(drawNext));
  };
  addEventListener("load", () => idle(drawNext));

  // On paper: every visible figure, dark ink, the width of the page.
  const paper = { "font.color": "#1b1f24", width: 680 };
  addEventListener("beforeprint", () => {
    for (const div of plots) {
      if (!visible(div)) continue;
      draw(div).then(() => Plotly.relayout(div, paper));
    }
  });
  addEventListener("afterprint", () => {
    drawn.forEach((done, div) => done.then(() => Plotly.relayout(div, { width: null, autosize: true, ...colours() })));
  });

  const save = (url, name) => {
    const link = document.createElement("a");
    link.href = url;
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  };
  document.addEventListener("click", (event) => {
    const { csv, image } = event.target.closest("button")?.dataset ?? {};
    if (csv) {
      figures.then((all) => {
        const data = new Blob([all[csv].csv], { type: "text/csv;charset=utf-8" });
        save(URL.createObjectURL(data), csv + ".csv");
      });
    }
    if (image) {
      const div = plots.find((plot) => plot.dataset.figure === image);
      draw(div).then(() => {
        const font = { ...div.layout.font, color: "#1b1f24" };
        const figure = { data: div.data, layout: { ...div.layout, font, paper_bgcolor: "#ffffff" } };
        return Plotly.downloadImage(figure, { format: "svg", filename: image, width: 900, height: div.layout.height });
      });
    }
  });
})();

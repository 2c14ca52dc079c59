(() => {
  "use strict";
  const config = { displayModeBar: false, responsive: false };
  const coarse = matchMedia("(pointer: coarse)").matches;
  const plots = Array.from(document.querySelectorAll(".plot"));
  const tone = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const ink = "#1b1f24";
  const paper = "#ffffff";

  // plotly.js, and drawings with CSV texts by figure: gzipped, in base64.
  const unpack = (id) => {
    const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), (each) => each.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip")));
  };
  const library = async () => {
    const script = document.createElement("script");
    script.textContent = await unpack("library").text();
    document.head.append(script);
    script.remove();
  };
  const figures = (async () => {
    const [all] = await Promise.all([unpack("figures").json(), plots.length ? library() : null]);
    return all;
  })();
  figures.catch(() => plots.forEach((div) => {
    div.textContent = "This figure needs a browser of 2023 or later.";
    div.style.height = "auto";
  }));

  const colours = () => ({
    "font.color": tone("--ink"),
    "hoverlabel.bgcolor": tone("--card"),
    "hoverlabel.bordercolor": tone("--rule"),
    "hoverlabel.font.color": tone("--ink"),
  });

  // The width of a figure changes with more than the window: folding, a scroll bar that comes.
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

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    drawn.forEach((done, div) => done.then(() => Plotly.relayout(div, colours())));
  });

  // A figure as it belongs on paper: dark ink on white, whatever the page looks like.
  const onPaper = (div, width) => {
    const font = { ...div.layout.font, color: ink };
    const layout = { ...div.layout, font, paper_bgcolor: paper, width, autosize: false };
    return { figure: { data: div.data, layout }, size: { format: "svg", width, height: div.layout.height } };
  };

  // The static image that is printed in place of the figure.
  const pictures = new Map();
  const picture = async (div) => {
    await draw(div);
    if (pictures.has(div)) return;
    const { figure, size } = onPaper(div, 680);
    const image = new Image();
    image.className = "still";
    image.alt = div.getAttribute("aria-label");
    image.src = await Plotly.toImage(figure, size);
    pictures.set(div, image);
    div.after(image);
    div.classList.add("pictured");
  };

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

  // What is out of sight is drawn, and pictured, while nothing else happens, so that printing finds it there.
  const waiting = plots.slice(0, 60);
  const idle = window.requestIdleCallback ?? ((work) => setTimeout(work, 200));
  const visible = (div) => (div.checkVisibility ? div.checkVisibility() : div.offsetParent !== null);
  const next = () => {
    const div = waiting.find((each) => !pictures.has(each) && visible(each));
    if (div) picture(div).then(() => idle(next));
    else document.documentElement.dataset.ready = "true";
  };
  addEventListener("load", () => idle(next));

  // On paper: every visible figure, as its picture where that is there, else redrawn with dark ink.
  addEventListener("beforeprint", () => {
    for (const div of plots) {
      if (visible(div) && !pictures.has(div)) {
        draw(div).then(() => Plotly.relayout(div, { "font.color": ink, width: 680 }));
      }
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
        const { figure, size } = onPaper(div, 900);
        return Plotly.downloadImage(figure, { ...size, filename: image });
      });
    }
  });
})();

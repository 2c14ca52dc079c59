(() => {
  "use strict";
  const all = (selector, root = document) => Array.from(root.querySelectorAll(selector));

  // The data of the figures, CSV by key, and pictures that wait for their fold to be opened: gzipped JSON in base64.
  const unpack = async (id) => {
    const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), (letter) => letter.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
  };
  const data = () => unpack("figures");
  let pictures = null;
  const draw = async (fold) => {
    const waiting = all(".plot[data-packed]", fold);
    if (!waiting.length) return;
    pictures ??= unpack("pictures");
    const known = await pictures;
    for (const plot of waiting) {
      plot.innerHTML = known[plot.dataset.figure];
      delete plot.dataset.packed;
    }
  };
  document.addEventListener("toggle", (event) => { if (event.target.open) draw(event.target); }, true);
  const save = (text, type, name) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };

  // Names under the pointer: the nearest mark that has one. Browsers show titles by themselves, later and smaller, so
  // they become data once the pointer is there.
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  document.body.append(tip);
  const known = new WeakMap();
  const marks = (svg) => {
    if (!known.has(svg)) {
      known.set(svg, all("title", svg).map((title) => {
        const mark = title.parentElement;
        const words = title.textContent;
        title.remove();
        return { mark, words, area: mark.tagName === "rect", line: mark.getAttribute("fill") === "none" };
      }));
    }
    return known.get(svg);
  };
  const REACH = 20;
  const nearest = (svg, x, y) => {
    let best = null;
    let least = REACH;
    for (const one of marks(svg)) {
      const box = one.mark.getBoundingClientRect();
      if (one.line) {
        if (document.elementFromPoint(x, y) !== one.mark) continue;
        return best ?? one;
      }
      const away = one.area
        ? (x >= box.left && x <= box.right && y >= box.top && y <= box.bottom ? 0 : REACH)
        : Math.hypot(x - (box.left + box.right) / 2, y - (box.top + box.bottom) / 2);
      if (away < least) [best, least] = [one, away];
    }
    return best;
  };

  // One line in front: the others step back while the pointer is on it, or until it is clicked again.
  let pinned = null;
  const front = (svg, series) => {
    for (const group of all("g[data-s]", svg)) group.classList.toggle("dim", series !== null && group.dataset.s !== series);
  };
  const seriesAt = (target) => target.closest?.("g[data-s]")?.dataset.s ?? null;

  const hide = () => { tip.hidden = true; };
  document.addEventListener("pointermove", (event) => {
    const svg = event.target.closest?.(".plot svg");
    if (!svg) {
      hide();
      return;
    }
    const near = nearest(svg, event.clientX, event.clientY);
    const series = (near && seriesAt(near.mark)) ?? seriesAt(event.target);
    front(svg, series ?? (pinned?.svg === svg ? pinned.series : null));
    if (!near) {
      hide();
      return;
    }
    tip.textContent = near.words;
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - box.width - 8))}px`;
    tip.style.top = `${event.clientY + 18 + box.height > innerHeight ? event.clientY - box.height - 12 : event.clientY + 18}px`;
  });
  document.addEventListener("pointerout", (event) => {
    const svg = event.target.closest?.(".plot svg");
    if (svg && !svg.contains(event.relatedTarget)) {
      hide();
      front(svg, pinned?.svg === svg ? pinned.series : null);
    }
  });
  addEventListener("scroll", hide, { passive: true });

  // A figure as it belongs on paper: dark ink on white, whatever the page looks like.
  const image = (key) => {
    const svg = all(`[data-figure="${CSS.escape(key)}"] svg`).find((one) => one.getBoundingClientRect().width > 0);
    const copy = svg.cloneNode(true);
    all(".dim", copy).forEach((group) => group.classList.remove("dim"));
    copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    copy.setAttribute("style", "background:#fff;fill:#1b1f24;--page:#fff");
    copy.setAttribute("font-family", getComputedStyle(document.body).fontFamily);
    return new XMLSerializer().serializeToString(copy);
  };

  const quoted = (text) => {
    const safe = /^[=+@\t\r]/.test(text) || /^-(?![\d.])/.test(text) ? `'${text}` : text;
    return /[",\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  const csv = (table) => all("tr", table).filter((row) => !row.hidden)
    .map((row) => Array.from(row.cells, (cell) => quoted(cell.textContent.replaceAll("\u2212", "-"))).join(",")).join("\n");

  document.addEventListener("click", async (event) => {
    const series = seriesAt(event.target);
    const svg = event.target.closest(".plot svg");
    if (svg) {
      const again = pinned?.svg === svg && pinned.series === series;
      if (pinned) front(pinned.svg, null);
      pinned = series === null || again ? null : { svg, series };
      front(svg, pinned?.series ?? null);
    }
    const button = event.target.closest("button");
    if (button?.dataset.csv) save((await data())[button.dataset.csv], "text/csv;charset=utf-8", `${button.dataset.csv}.csv`);
    if (button?.dataset.image) save(image(button.dataset.image), "image/svg+xml", `${button.dataset.image}.svg`);
    if (button?.dataset.table) {
      const table = button.closest(".head").nextElementSibling.querySelector("table");
      save(csv(table), "text/csv;charset=utf-8", `${button.dataset.table}.csv`);
    }
  });

  // Tables: sorted by a click on a head, long ones filtered by words.
  const LONG = 8;
  const value = (row, column) => {
    const text = row.cells[column].textContent.trim().replaceAll("\u2212", "-").replaceAll(",", "");
    const number = parseFloat(text);
    return Number.isNaN(number) ? text.toLowerCase() : number;
  };
  const compare = (one, other) => {
    if (typeof one === typeof other) return one < other ? -1 : one > other ? 1 : 0;
    return typeof one === "number" ? -1 : 1;
  };
  for (const table of all("table.data")) {
    const rows = Array.from(table.tBodies[0].rows);
    const tools = document.createElement("p");
    tools.className = "above";
    if (rows.length > LONG) {
      const field = document.createElement("input");
      field.type = "search";
      field.placeholder = "filter";
      field.setAttribute("aria-label", `Filter: ${table.dataset.name}`);
      field.addEventListener("input", () => {
        const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
        for (const row of rows) row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
      });
      tools.append(field);
    }
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Table (CSV)";
    button.dataset.table = table.dataset.name.toLowerCase().replaceAll(/[^a-z0-9]+/g, "-").slice(0, 60);
    button.setAttribute("aria-label", `Download as CSV: ${table.dataset.name}`);
    tools.append(button);
    table.parentElement.previousElementSibling.append(tools);
    Array.from(table.tHead.rows[0].cells).forEach((head, column, heads) => {
      const sort = () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((one) => one.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        rows.sort((one, other) => (down ? -1 : 1) * compare(value(one, column), value(other, column)));
        table.tBodies[0].append(...rows);
      };
      head.className += " sorts";
      head.tabIndex = 0;
      head.addEventListener("click", sort);
      head.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(); });
    });
  }

  // On a phone the main figures come early: what can wait is folded there, and opened again for paper.
  const spare = all("details.spare");
  if (matchMedia("(max-width: 720px)").matches) spare.forEach((one) => { one.open = false; });
  addEventListener("beforeprint", () => spare.forEach((one) => { one.open = true; }));

  // An address of something inside a fold opens it.
  const reveal = () => {
    const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
    if (target) target.scrollIntoView();
  };
  addEventListener("hashchange", reveal);
  if (location.hash) reveal();

  // Where the reader is, in the contents.
  const links = new Map(all("nav a").map((link) => [link.getAttribute("href").slice(1), link.parentElement]));
  if ("IntersectionObserver" in window && links.size) {
    const seen = new Set();
    const watch = new IntersectionObserver((entries) => {
      for (const entry of entries) seen[entry.isIntersecting ? "add" : "delete"](entry.target.id);
      const first = [...links.keys()].find((id) => seen.has(id));
      links.forEach((item, id) => item.classList.toggle("here", id === first));
    }, { rootMargin: "-10% 0px -60% 0px" });
    all("section[id]").filter((section) => links.has(section.id)).forEach((section) => watch.observe(section));
  }
  document.documentElement.dataset.ready = "true";
})();

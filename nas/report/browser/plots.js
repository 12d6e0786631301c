// The plotly charts: every pair of objectives, linked to the rest of the page, and the history.
(() => {
  const root = document.documentElement;
  const coarse = matchMedia("(pointer: coarse)").matches;
  const drawn = [];
  let across = "time";

  const color = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  // A figure with its colours, which it names after variables of the style sheet.
  const painted = (figure) => JSON.parse(JSON.stringify(figure), (_, value) =>
    (typeof value === "string" && value.startsWith("--") ? color(value) : value));

  const axis = (own) => ({
    gridcolor: color("--grid"), zeroline: false, linecolor: color("--edge"), ticks: "outside",
    ticklen: 3, tickcolor: color("--edge"), automargin: true, ...own,
    title: { standoff: 8, font: { size: 12.5 }, ...own.title },
  });
  function layoutOf(figure) {
    const font = { family: getComputedStyle(document.body).fontFamily };
    return {
      showlegend: false, hovermode: "closest", legend: { orientation: "h", y: 1.16, x: 0 },
      ...figure.layout,
      xaxis: axis(figure.layout.xaxis), yaxis: axis(figure.layout.yaxis),
      margin: { l: 52, r: 16, t: 26, b: 44 }, dragmode: coarse ? false : "zoom",
      font: { ...font, size: 12, color: color("--soft") },
      paper_bgcolor: color("--paper"), plot_bgcolor: color("--paper"),
      newselection: { line: { color: color("--ink"), dash: "dot" } },
      hoverlabel: { align: "left", bgcolor: color("--paper"), bordercolor: color("--edge"),
        font: { ...font, color: color("--ink") } },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: color("--soft"),
        activecolor: color("--accent") },
    };
  }
  function settings(kind) {
    const off = ["autoScale2d", "zoomIn2d", "zoomOut2d"];
    return {
      responsive: true, displaylogo: false, scrollZoom: false, doubleClick: "reset",
      modeBarButtonsToRemove: kind === "front" ? off : [...off, "select2d", "lasso2d"],
    };
  }

  function traces(figure) {
    const data = painted(figure).data;
    if (figure.kind === "front") placeRing(data);
    else data.forEach((trace, i) => { trace.x = figure.across[across][i]; });
    return data;
  }
  function placeRing(data) {
    const [, front, ring] = data;
    const at = report.selected;
    ring.x = at < 0 ? [] : [front.x[at]];
    ring.y = at < 0 ? [] : [front.y[at]];
  }
  function draw({ place, figure, size }) {
    const layout = { ...layoutOf(painted(figure)), ...size };
    if (figure.kind === "history") layout.xaxis.title.text = figure.titles[across];
    Plotly.react(place, traces(figure), layout, settings(figure.kind));
  }

  // Points are marked by classes on what plotly drew: far faster than having it draw them again.
  function mark({ place, figure }) {
    if (figure.kind !== "front") return;
    for (const kind of [".points > path", ".errorbars > .errorbar"]) {
      const marks = place.querySelectorAll(`.tracefront ${kind}`);
      if (marks.length !== report.candidates.length) continue;
      marks.forEach((element, index) => report.mark(element, index));
    }
  }
  const markAll = () => drawn.forEach(mark);

  function link(entry) {
    const { place } = entry;
    const indexOf = (event) => event.points.find((p) => p.curveNumber === 1)?.pointNumber;
    place.on("plotly_click", (event) => {
      const index = indexOf(event);
      if (index === undefined) return;
      report.select(index);
      report.show();
    });
    place.on("plotly_hover", (event) => report.point(indexOf(event) ?? -1));
    place.on("plotly_unhover", () => report.point(-1));
    place.on("plotly_selected", (event) => {
      if (!event?.range && !event?.lassoPoints) return; // the selection was taken away
      const chosen = event.points.filter((p) => p.curveNumber === 1);
      entry.boxed = true;
      const indexes = new Set(chosen.map((p) => p.pointNumber));
      report.keep("box", (_, index) => indexes.has(index));
    });
    place.on("plotly_deselect", () => report.keep("box", null));
    place.on("plotly_afterplot", () => mark(entry));
    place.tabIndex = 0;
    place.setAttribute("role", "application");
    const { xaxis, yaxis } = entry.figure.layout;
    place.setAttribute("aria-label", `${yaxis.title.text} against ${xaxis.title.text}; arrow keys `
      + "go through the candidates, enter shows one");
    report.keys(place, () => report.show());
  }

  for (const kind of ["front", "history"]) {
    document.querySelectorAll(`.plot[data-kind="${kind}"]`).forEach((place, i) => {
      const entry = { place, figure: report.data[kind][i] };
      drawn.push(entry);
      draw(entry);
      if (kind === "front") link(entry);
      else place.setAttribute("role", "img");
    });
  }

  report.on("select", () => drawn.forEach((entry) => {
    if (entry.figure.kind !== "front") return;
    const data = entry.place.data;
    placeRing(data);
    Plotly.restyle(entry.place, { x: [data[2].x], y: [data[2].y] }, [2]);
  }));
  report.on("select", markAll);
  report.on("keep", markAll);
  report.on("point", markAll);

  report.clearBox = () => {
    report.keep("box", null);
    drawn.filter((entry) => entry.boxed).forEach((entry) => {
      entry.boxed = false;
      Plotly.update(entry.place, { selectedpoints: [null] }, { selections: [] });
    });
  };

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-across]");
    if (!button) return;
    across = button.dataset.across;
    for (const other of document.querySelectorAll("[data-across]")) {
      other.setAttribute("aria-pressed", String(other === button));
    }
    drawn.filter((entry) => entry.figure.kind === "history").forEach(draw);
  });

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawn.forEach(draw));
  // Paper is light and narrower than most windows: draw again for it, and back.
  addEventListener("beforeprint", () => {
    root.classList.add("paper");
    for (const entry of drawn) {
      entry.size = { width: 330, height: 270 };
      draw(entry);
    }
    report.redrawParallel?.();
  });
  addEventListener("afterprint", () => {
    root.classList.remove("paper");
    for (const entry of drawn) {
      delete entry.size;
      draw(entry);
      Plotly.Plots.resize(entry.place);
    }
    report.redrawParallel?.();
  });
})();

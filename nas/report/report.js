"use strict";
(() => {
  const plots = JSON.parse(document.getElementById("plots").textContent);
  const root = document.documentElement;
  const coarse = matchMedia("(pointer: coarse)").matches;
  const table = document.getElementById("table");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const font = getComputedStyle(document.body).fontFamily;
  root.classList.add("js");

  const axis = (own) => ({
    gridcolor: "#edf1f4", zeroline: false, linecolor: "#c9d1d8", ticks: "outside", ticklen: 3,
    tickcolor: "#c9d1d8", automargin: true, ...own,
    title: { standoff: 8, font: { size: 12.5 }, ...own.title },
  });
  const layoutOf = (figure) => ({
    ...figure.layout, showlegend: false, hovermode: "closest",
    xaxis: axis(figure.layout.xaxis), yaxis: axis(figure.layout.yaxis),
    margin: { l: 52, r: 16, t: 26, b: 44 }, dragmode: coarse ? false : "zoom",
    font: { family: font, size: 12, color: "#3b4650" },
    paper_bgcolor: "#fff", plot_bgcolor: "#fff",
    hoverlabel: { align: "left", bgcolor: "#fff", bordercolor: "#8d99a4",
      font: { family: font, color: "#1d252c" } },
  });
  const settings = {
    responsive: true, displaylogo: false, scrollZoom: false,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
  };

  const drawn = [];
  for (const kind of ["front", "history"]) {
    const places = document.querySelectorAll(`.plot[data-kind="${kind}"]`);
    places.forEach((place, i) => {
      const figure = plots[kind][i];
      Plotly.newPlot(place, figure.data, layoutOf(figure), settings);
      drawn.push({ place, figure });
      if (kind === "front") {
        place.on("plotly_click", (event) => {
          const point = event.points.find((p) => p.curveNumber === 1);
          if (point) select(point.pointNumber, true);
        });
      }
    });
  }

  function select(index, show) {
    const panel = document.getElementById(`candidate-${index}`);
    if (!panel) return;
    for (const other of document.querySelectorAll(".detail")) {
      other.classList.toggle("selected", other === panel);
    }
    for (const row of rows) row.classList.toggle("selected", row.dataset.index === String(index));
    for (const { place, figure } of drawn) {
      if (figure.kind !== "front") continue;
      const front = figure.data[1];
      Plotly.restyle(place, { x: [[front.x[index]]], y: [[front.y[index]]] }, [2]);
    }
    if (show) {
      history.replaceState(null, "", `#${encodeURIComponent(plots.candidates[index].id)}`);
      panel.scrollIntoView({ block: "start" });
    }
  }

  body.addEventListener("click", (event) => {
    const row = event.target.closest("tr");
    if (row && !getSelection().toString()) select(Number(row.dataset.index), true);
  });
  document.addEventListener("click", (event) => {
    const link = event.target.closest("[data-select]");
    if (!link) return;
    event.preventDefault();
    select(Number(link.dataset.select), true);
  });

  const keyOf = (row, column) => row.cells[column].dataset.key;
  function sort(column, head) {
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const numeric = head.classList.contains("n");
    const compare = (a, b) => {
      const [left, right] = [keyOf(a, column), keyOf(b, column)];
      if (!left || !right) return (left ? 0 : 1) - (right ? 0 : 1); // unknown values come last
      const order = numeric ? left - right : left.localeCompare(right);
      return down ? -order : order;
    };
    body.append(...rows.sort(compare));
  }
  for (const button of table.querySelectorAll("th button")) {
    button.addEventListener("click", () => {
      sort(Number(button.dataset.column), button.closest("th"));
    });
  }

  const filters = [...document.querySelectorAll("[data-filter]")];
  const units = { val_score: 0.01, ram_bytes: 1024, flash_bytes: 1024, latency_ms: 1 };
  function passes(row) {
    const candidate = plots.candidates[row.dataset.index];
    return filters.every((input) => {
      const key = input.dataset.filter;
      if (input.value.trim() === "") return true;
      if (key === "text") {
        const words = input.value.toLowerCase().split(/\s+/);
        const text = row.textContent.toLowerCase();
        return words.every((word) => text.includes(word));
      }
      const limit = Number(input.value) * units[key];
      return key === "val_score" ? candidate[key] >= limit : candidate[key] <= limit;
    });
  }
  function filter() {
    for (const row of rows) row.hidden = !passes(row);
    const shown = rows.filter((row) => !row.hidden).length;
    document.getElementById("shown").textContent = `${shown} of ${rows.length}`;
  }
  for (const input of filters) input.addEventListener("input", filter);

  // Paper is narrower than most windows: redraw for it, and back.
  addEventListener("beforeprint", () => {
    for (const { place } of drawn) Plotly.relayout(place, { width: 330, height: 270 });
  });
  addEventListener("afterprint", () => {
    for (const { place } of drawn) {
      Plotly.relayout(place, { width: null, height: null, autosize: true });
    }
  });

  filter();
  const scores = plots.candidates.map((candidate) => candidate.val_score);
  const asked = decodeURIComponent(location.hash.slice(1));
  const found = plots.candidates.findIndex((candidate) => candidate.id === asked);
  if (scores.length) select(found >= 0 ? found : scores.indexOf(Math.max(...scores)), found >= 0);
})();

// Two candidates side by side; what differs is marked, and by a sign which one is better.
(() => {
  const place = document.getElementById("compared");
  if (!place) return;
  const { rows, cells, apart } = report.data.compare;
  const pickers = [...document.querySelectorAll("[data-side]")];
  const ticks = [...document.querySelectorAll("[data-compare]")];
  let chosen = []; // the older first

  const make = (name, words = "", kind = "") => {
    const element = document.createElement(name);
    element.textContent = words;
    if (kind) element.className = kind;
    return element;
  };

  function difference(kind, a, b) {
    if (!kind || a === null || b === null || a === b) return "";
    const sign = b > a ? "+" : "\u2212";
    if (kind === "score") return `${sign}${(100 * Math.abs(b - a)).toFixed(1)} points`;
    return a ? `${sign}${Math.abs(100 * (b / a - 1)).toFixed(0)}\u00a0%` : "";
  }
  // 1 where the second is better, -1 where the first is, 0 where neither or nothing says so: of the
  // scores only validation's may choose, and only beyond its noise.
  function better(i, [a, b], x, y) {
    const { kind } = rows[i];
    if (!kind || x === null || y === null) return 0;
    if (kind === "cost") return Math.sign(x - y);
    return i === 0 && apart[a]?.[b] === "1" ? Math.sign(y - x) : 0;
  }

  function drawTable([a, b]) {
    const table = make("table", "", "versus");
    const head = table.createTHead().insertRow();
    for (const words of ["", `A: ${report.candidates[a].id}`, `B: ${report.candidates[b].id}`,
      "B against A"]) {
      const cell = make("th", words);
      cell.scope = "col";
      head.append(cell);
    }
    const body = table.createTBody();
    rows.forEach(({ label, kind }, i) => {
      const [[left, x], [right, y]] = [cells[a][i], cells[b][i]];
      if (left === "\u2013" && right === "\u2013") return; // not recorded
      const row = body.insertRow();
      row.className = left === right ? "same" : "differs";
      const winner = better(i, [a, b], x, y);
      const name = make("th", label);
      name.scope = "row";
      row.append(name);
      row.append(make("td", left + (winner < 0 ? " \u25c2 better" : ""), winner < 0 ? "wins" : ""));
      row.append(make("td", right + (winner > 0 ? " \u25c2 better" : ""), winner > 0 ? "wins" : ""));
      row.append(make("td", difference(kind, x, y)));
    });
    const scroll = make("div", "", "scroll");
    scroll.tabIndex = 0;
    scroll.append(table);
    return scroll;
  }

  function verdict([a, b]) {
    if (!apart.length) {
      return "The run records no intervals, so nothing says whether the scores really differ.";
    }
    return apart[a][b] === "1"
      ? "Their validation scores can be told apart: the difference is larger than its 90 % noise, "
        + "taken from both intervals."
      : "Their validation scores cannot be told apart: the difference is within its 90 % noise, "
        + "taken from both intervals. Choose by cost.";
  }

  function drawNetworks(pair) {
    const both = make("div", "", "networks");
    pair.forEach((index, side) => {
      const figure = make("figure");
      figure.append(make("figcaption", `${"AB"[side]}: ${report.candidates[index].id}`));
      const scroll = make("div", "", "scroll");
      scroll.tabIndex = 0;
      scroll.append(document.querySelector(`#candidate-${index} svg.flow`).cloneNode(true));
      figure.append(scroll);
      both.append(figure);
    });
    return both;
  }

  function draw() {
    const pair = chosen.length === 2 ? chosen : [];
    for (const tick of ticks) tick.checked = chosen.includes(Number(tick.dataset.compare));
    pickers.forEach((picker, side) => { if (pair.length) picker.value = String(pair[side]); });
    place.replaceChildren();
    if (!pair.length) return;
    place.append(make("p", verdict(pair), "verdict"), drawTable(pair), drawNetworks(pair));
  }

  for (const tick of ticks) {
    tick.addEventListener("change", () => {
      const index = Number(tick.dataset.compare);
      chosen = chosen.filter((other) => other !== index);
      if (tick.checked) chosen = [...chosen.slice(-1), index];
      draw();
    });
  }
  pickers.forEach((picker) => picker.addEventListener("change", () => {
    chosen = pickers.map((other) => Number(other.value));
    draw();
  }));

  const scores = report.candidates.map((candidate) => candidate.val_score);
  const best = scores.indexOf(Math.max(...scores));
  const knee = report.data.knee ?? -1;
  chosen = [best, knee >= 0 && knee !== best ? knee : (best + 1) % scores.length];
  draw();
})();

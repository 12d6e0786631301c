// The table of candidates and the filters, which count for every view.
(() => {
  const table = document.getElementById("table");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const indexOf = (row) => Number(row.dataset.index);

  function paint() {
    for (const row of rows) {
      report.mark(row, indexOf(row));
      row.hidden = !report.isKept(indexOf(row));
    }
    const all = report.candidates.length;
    document.getElementById("shown").textContent =
      report.kept.length ? `${report.kept.length} of ${all}` : `none of ${all}: loosen a limit`;
  }
  for (const event of ["select", "keep", "point"]) report.on(event, paint);
  for (const row of rows) {
    row.addEventListener("pointerenter", () => report.point(indexOf(row)));
    row.addEventListener("pointerleave", () => report.point(-1));
  }
  body.addEventListener("click", (event) => {
    if (event.target.closest(".side") || getSelection().toString()) return;
    const row = event.target.closest("tr");
    if (!row) return;
    report.select(indexOf(row));
    report.show();
  });

  function sort(column, head) {
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const compare = (a, b) => {
      const [left, right] = [a, b].map((row) => row.cells[column].dataset.key);
      if (!left || !right) return (left ? 0 : 1) - (right ? 0 : 1); // unknown values come last
      const order = isNaN(left) || isNaN(right) ? left.localeCompare(right) : left - right;
      return down ? -order : order;
    };
    body.append(...rows.sort(compare));
  }
  for (const button of table.querySelectorAll("th button")) {
    button.addEventListener("click", () => {
      sort(Number(button.dataset.column), button.closest("th"));
    });
  }

  const form = document.getElementById("filters");
  const filters = [...form.querySelectorAll("[data-filter]")];
  const sensors = [...form.querySelectorAll("[data-sensor]")];
  const units = { val_score: 0.01, ram_bytes: 1024, flash_bytes: 1024, latency_ms: 1, most_bits: 1 };
  function meets(candidate, index) {
    const uses = sensors.every(({ value, dataset }) =>
      !value || candidate.sensors.includes(dataset.sensor) === (value === "yes"));
    return uses && filters.every(({ value, dataset: { filter: key } }) => {
      if (value.trim() === "") return true;
      if (key === "text") {
        const text = rows.find((row) => indexOf(row) === index).textContent.toLowerCase();
        return value.toLowerCase().trim().split(/\s+/).every((word) => text.includes(word));
      }
      const limit = Number(value) * units[key];
      const slack = 1e-9 * limit; // a limit typed as it is shown must not lose to rounding
      return key === "val_score" ? candidate[key] >= limit - slack : candidate[key] <= limit + slack;
    });
  }
  form.addEventListener("input", () => report.keep("filters", meets));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => {
    report.keep("filters", null);
    report.clearParallel?.();
    report.clearBox?.();
  });
  paint();
})();

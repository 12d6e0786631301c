// How long a cell lasts under the selected candidate: the formula of nas/choosing/battery.py.
(() => {
  const form = document.getElementById("battery");
  const place = document.getElementById("lasts");
  if (!form) return;
  const { active_a: active, sleep_a: sleep, usable_share: usable, cells } = report.data.battery;
  const HOURS_PER_YEAR = 24 * 365.25;

  const number = (value, digits = 3) => value.toLocaleString("en-GB",
    { maximumSignificantDigits: digits });
  const current = (ampere) => (ampere < 1e-3 ? `${number(ampere * 1e6)} µA`
    : `${number(ampere * 1e3)} mA`);
  function duration(hours) {
    if (hours >= 2 * HOURS_PER_YEAR) return `${number(hours / HOURS_PER_YEAR, 2)} years`;
    return hours >= 48 ? `${number(hours / 24, 3)} days` : `${number(hours, 2)} hours`;
  }

  function draw() {
    if (report.selected < 0) return;
    const { id, latency_ms: latency } = report.candidates[report.selected];
    const cell = cells[form.elements.cell.value];
    const own = cell.name === "";
    document.getElementById("own").hidden = !own;
    const capacity = own ? Number(form.elements.capacity.value) : cell.capacity_mah;
    const period = Number(form.elements.period.value);
    const busy = latency / 1e3;
    if (!(period > busy) || !(capacity > 0)) {
      place.textContent = `Give a period longer than the latency, ${number(busy)} s, and a `
        + "capacity above 0.";
      return;
    }
    const [computing, resting] = [busy * active, (period - busy) * sleep];
    const mean = (computing + resting) / period;
    const leak = capacity / 1e3 * cell.leak_percent / 100 / HOURS_PER_YEAR;
    const hours = capacity / 1e3 * usable / (mean + leak);
    const beyond = hours > cell.shelf_years * HOURS_PER_YEAR
      ? ` That is beyond its shelf life of ${cell.shelf_years} years, which ends it first.` : "";
    const line = (words, kind = "") => Object.assign(document.createElement("p"),
      { textContent: words, className: kind });
    place.replaceChildren(
      line(`${duration(hours)} with ${id}`, "lasts"),
      line(`Mean current (${number(latency)} ms × ${current(active)} + ${number(period - busy)} s × `
        + `${current(sleep)}) / ${number(period)} s = ${current(mean)}, of which inference takes `
        + `${number(100 * computing / (computing + resting), 2)} %. ${number(capacity)} mAh × `
        + `${100 * usable} % / (${current(mean)} + ${current(leak)} of self-discharge at `
        + `${cell.leak_percent} % a year) = ${number(hours)} h.${beyond}`),
    );
  }

  report.on("select", draw);
  form.addEventListener("input", draw);
  form.addEventListener("submit", (event) => event.preventDefault());
})();

// Parallel axes: a line a candidate. Upright axes on a wide screen, lying ones on a narrow one.
(() => {
  const place = document.getElementById("parallel");
  const axes = report.data.parallel;
  if (!place || !report.candidates.length) return;
  const ranges = axes.map(() => null); // brushed share [from, to] of each axis, 0 is the worse end
  const HALF_GRIP = 16; // px on both sides of an axis that take hold of it
  let marks = [];
  let drawn = { lying: null, width: 0 };

  const make = (name, attributes, parent) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (parent) parent.append(element);
    return element;
  };
  const text = (words, attributes, parent) => {
    const element = make("text", attributes, parent);
    element.textContent = words;
    return element;
  };

  const shown = (axis, candidate) => candidate[axis.column] / axis.unit;
  const format = (value) => String(Number(value.toPrecision(3)));
  function shareOf(axis, value) {
    const scale = axis.log ? Math.log : (v) => v;
    const along = (scale(value) - scale(axis.low)) / (scale(axis.high) - scale(axis.low));
    return axis.moreIsBetter ? along : 1 - along;
  }
  const meets = (candidate) => axes.every((axis, i) => {
    if (!ranges[i]) return true;
    const share = shareOf(axis, shown(axis, candidate));
    return ranges[i][0] - 1e-6 <= share && share <= ranges[i][1] + 1e-6;
  });

  // Where a share of an axis lies on the page.
  function geometry() {
    const width = document.documentElement.classList.contains("paper") ? 680 : place.clientWidth;
    const lying = width < 640;
    const [top, bottom] = [52, 34];
    const height = lying ? 66 * axes.length - 8 : 330;
    const [start, end] = lying ? [14, width - 20] : [height - bottom, top];
    const step = lying ? 66 : (width - 110) / Math.max(1, axes.length - 1);
    const at = (i) => (lying ? 34 + i * step : 55 + i * step);
    const along = (share) => start + share * (end - start);
    const point = (i, share) => (lying ? [along(share), at(i)] : [at(i), along(share)]);
    return { width, height, lying, point, at, start, end };
  }

  function draw() {
    const shape = geometry();
    drawn = shape;
    place.replaceChildren();
    const svg = make("svg", {
      viewBox: `0 0 ${shape.width} ${shape.height}`, height: shape.height, class: "parallel",
    }, place);
    const lines = make("g", {}, svg);
    marks = report.candidates.map((candidate, index) => {
      const points = axes.map((axis, i) => shape.point(i, shareOf(axis, shown(axis, candidate))));
      const path = `M${points.map((p) => p.map((v) => v.toFixed(1)).join(" ")).join("L")}`;
      const group = make("g", { class: "line", "data-index": index }, lines);
      make("path", { d: path, class: "hit" }, group);
      make("path", { d: path }, group);
      make("title", {}, group).textContent = candidate.id;
      points.forEach(([x, y], i) => {
        const dot = make("g", { class: "value" }, group);
        make("circle", { cx: x, cy: y, r: 3.5 }, dot);
        const edge = x < 40 ? "start" : x > shape.width - 40 ? "end" : "middle";
        const side = shape.lying ? { x, y: y - 7, "text-anchor": edge } : { x: x + 7, y: y + 4 };
        text(format(shown(axes[i], candidate)), side, dot);
      });
      group.addEventListener("pointerenter", () => report.point(index));
      group.addEventListener("pointerleave", () => report.point(-1));
      group.addEventListener("click", () => { report.select(index); report.show(); });
      return group;
    });
    axes.forEach((axis, i) => drawAxis(svg, axis, i, shape));
    paint();
  }

  function drawAxis(svg, axis, i, shape) {
    const group = make("g", { class: "axis", "data-column": axis.column }, svg);
    const [x1, y1] = shape.point(i, 0);
    const [x2, y2] = shape.point(i, 1);
    make("line", { x1, y1, x2, y2 }, group);
    let last = -Infinity;
    for (const tick of axis.ticks) {
      const [x, y] = shape.point(i, shareOf(axis, tick));
      const along = shape.lying ? x : y;
      if (Math.abs(along - last) < (shape.lying ? 30 : 16)) continue;
      last = along;
      make("line", shape.lying ? { x1: x, x2: x, y1: y, y2: y + 4 }
        : { x1: x - 4, x2: x, y1: y, y2: y }, group);
      text(format(tick), shape.lying ? { x, y: y + 16, "text-anchor": "middle", class: "tick" }
        : { x: x - 7, y: y + 4, "text-anchor": "end", class: "tick" }, group);
    }
    text(axis.label, shape.lying ? { x: x1, y: y1 - 20, class: "name" }
      : { x: x2, y: y2 - 30, "text-anchor": "middle", class: "name" }, group);
    const range = make("rect", { class: "range", rx: 3 }, group);
    const grip = make("rect", {
      class: "grip", x: Math.min(x1, x2) - HALF_GRIP / (shape.lying ? 2 : 1),
      y: Math.min(y1, y2) - HALF_GRIP / (shape.lying ? 1 : 2),
      width: Math.abs(x2 - x1) + HALF_GRIP * (shape.lying ? 1 : 2),
      height: Math.abs(y2 - y1) + HALF_GRIP * (shape.lying ? 2 : 1),
      style: `touch-action: ${shape.lying ? "pan-y" : "pan-x"}`,
    }, group);
    showRange(range, i, shape);
    brush(grip, range, i, shape);
  }

  function showRange(range, i, shape) {
    range.style.display = ranges[i] ? "" : "none";
    if (!ranges[i]) return;
    const [xa, ya] = shape.point(i, ranges[i][0]);
    const [xb, yb] = shape.point(i, ranges[i][1]);
    const [dx, dy] = shape.lying ? [0, 6] : [6, 0];
    const box = {
      x: Math.min(xa, xb) - dx, y: Math.min(ya, yb) - dy,
      width: Math.abs(xb - xa) + 2 * dx, height: Math.abs(yb - ya) + 2 * dy,
    };
    for (const [key, value] of Object.entries(box)) range.setAttribute(key, value);
  }

  function brush(grip, range, i, shape) {
    let from = null;
    const shareAt = (event) => {
      const box = place.firstChild.getBoundingClientRect();
      const along = shape.lying ? event.clientX - box.left : event.clientY - box.top;
      const scale = shape.width / box.width;
      return Math.min(1, Math.max(0, (along * scale - shape.start) / (shape.end - shape.start)));
    };
    grip.addEventListener("pointerdown", (event) => {
      from = shareAt(event);
      grip.setPointerCapture(event.pointerId);
    });
    grip.addEventListener("pointermove", (event) => {
      if (from === null) return;
      const to = shareAt(event);
      if (Math.abs(to - from) < 0.015) return;
      ranges[i] = [Math.min(from, to), Math.max(from, to)];
      showRange(range, i, shape);
      report.keep("parallel", meets);
    });
    const finish = (event) => {
      if (from !== null && Math.abs(shareAt(event) - from) < 0.015) {
        ranges[i] = null;
        showRange(range, i, shape);
        report.keep("parallel", ranges.some(Boolean) ? meets : null);
      }
      from = null;
    };
    grip.addEventListener("pointerup", finish);
    grip.addEventListener("pointercancel", () => { from = null; });
  }

  function paint() {
    marks.forEach((mark, index) => report.mark(mark, index));
    for (const index of [report.selected, report.pointed]) { // the last in the document is on top
      if (marks[index]) marks[index].parentNode.append(marks[index]);
    }
  }

  report.redrawParallel = draw;
  report.clearParallel = () => {
    ranges.fill(null);
    report.keep("parallel", null);
    draw();
  };
  for (const event of ["select", "keep", "point"]) report.on(event, paint);
  report.keys(place, () => report.show());
  draw();
  new ResizeObserver(() => {
    if (Math.abs(place.clientWidth - drawn.width) > 1 &&
      !document.documentElement.classList.contains("paper")) draw();
  }).observe(place);
})();

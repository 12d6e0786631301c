"use strict";
// What all views of the page share: the candidates, which of them the reader kept, which one is
// selected, which one is pointed at. Views change it through the functions here and listen to it.
const report = (() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const listeners = { select: [], keep: [], point: [] };
  const tests = new Map(); // of the reader's wishes: name -> does this candidate meet it?
  let kept = data.candidates.map((_, index) => index);
  let selected = -1;
  let pointed = -1;
  document.documentElement.classList.add("js");

  const tell = (event) => listeners[event].forEach((listener) => listener());

  return {
    data,
    candidates: data.candidates,
    on: (event, listener) => listeners[event].push(listener),
    get kept() { return kept; },
    get selected() { return selected; },
    get pointed() { return pointed; },
    isKept: (index) => kept.includes(index),

    select(index) {
      if (!data.candidates[index]) return;
      selected = index;
      tell("select");
    },
    point(index) {
      if (index === pointed) return;
      pointed = index;
      tell("point");
    },
    // Keeps only candidates that meet all tests; a test of null is withdrawn.
    keep(name, test) {
      if (test) tests.set(name, test);
      else tests.delete(name);
      kept = data.candidates.map((_, index) => index).filter((index) =>
        [...tests.values()].every((meets) => meets(data.candidates[index], index)));
      tell("keep");
    },
    // The classes that mark a candidate's line, point or row.
    mark(element, index) {
      element.classList.toggle("dim", !kept.includes(index));
      element.classList.toggle("selected", index === selected);
      element.classList.toggle("pointed", index === pointed);
    },
    // Arrow keys on a view go through the kept candidates, enter shows the selected one.
    keys(view, show) {
      view.addEventListener("keydown", (event) => {
        const step = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
        if (step && kept.length) {
          const at = kept.indexOf(selected);
          report.select(kept[(at + step + kept.length) % kept.length]);
        } else if (event.key === "Enter") {
          show();
        } else {
          return;
        }
        event.preventDefault();
      });
    },
  };
})();

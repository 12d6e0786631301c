// The details of the selected candidate: which panel shows, and its command.
(() => {
  const panels = [...document.querySelectorAll(".detail")];
  let cameFrom = null;

  report.on("select", () => {
    panels.forEach((panel, index) => panel.classList.toggle("chosen", index === report.selected));
    const { id, val_score: score } = report.candidates[report.selected];
    document.getElementById("said").textContent =
      `Candidate ${id}, score ${(100 * score).toFixed(1)} %`;
  });
  // Moves the reader to the selected candidate's panel and remembers where she came from.
  report.show = () => {
    const panel = panels[report.selected];
    if (!panel) return;
    cameFrom = scrollY;
    history.replaceState(null, "", `#${encodeURIComponent(report.candidates[report.selected].id)}`);
    panel.scrollIntoView({ block: "start" });
    panel.querySelector("h3").focus({ preventScroll: true });
  };

  document.addEventListener("click", (event) => {
    const link = event.target.closest("[data-select]");
    const step = event.target.closest("[data-step]");
    if (link) {
      event.preventDefault();
      report.select(Number(link.dataset.select));
      report.show();
    } else if (step && report.kept.length) {
      const [kept, at] = [report.kept, report.kept.indexOf(report.selected)];
      report.select(kept[(at + Number(step.dataset.step) + kept.length) % kept.length]);
      const before = cameFrom;
      report.show();
      cameFrom = before;
    } else if (event.target.closest("[data-back]")) {
      if (cameFrom === null) document.getElementById("front").scrollIntoView();
      else scrollTo({ top: cameFrom });
    } else if (event.target.closest("[data-copy]")) {
      copy(event.target.closest("[data-copy]"));
    }
  });

  // The folder as it is now: the run may have been moved since the page was written.
  function folder() {
    if (location.protocol !== "file:") return report.data.folder;
    const path = decodeURIComponent(location.pathname).replace(/\/[^/]*$/, "") || "/";
    return path.replace(/^\/([A-Za-z]:)/, "$1"); // /C:/runs on Windows
  }
  const quoted = (word) => (/^[\w@%+=:,./-]+$/.test(word) ? word
    : `'${word.replaceAll("'", "'\"'\"'")}'`);
  for (const code of document.querySelectorAll("[data-command]")) {
    const id = code.dataset.command;
    code.textContent = `nas pick ${quoted(folder())} ${id} --out ${id}`;
  }
  async function copy(button) {
    const code = button.parentNode.querySelector("code");
    let done = false;
    try {
      await navigator.clipboard.writeText(code.textContent);
      done = true;
    } catch { // not allowed for this page: the older way
      getSelection().selectAllChildren(code);
      done = document.execCommand("copy");
    }
    button.textContent = done ? "Copied" : "Press Ctrl+C";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  }

  // On paper, what is folded up shows, in the selected panel alone.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll(".detail.chosen details:not([open])")];
    for (const folded of opened) folded.open = true;
  });
  addEventListener("afterprint", () => { for (const folded of opened) folded.open = false; });
})();

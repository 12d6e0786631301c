// What is selected when the page opens: the candidate that the address names, else the best.
(() => {
  const scores = report.candidates.map((candidate) => candidate.val_score);
  if (!scores.length) return;
  const asked = decodeURIComponent(location.hash.slice(1));
  const found = report.candidates.findIndex((candidate) => candidate.id === asked);
  report.select(found >= 0 ? found : scores.indexOf(Math.max(...scores)));
  if (found >= 0) report.show();
})();

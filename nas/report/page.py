"""report.html of a run: one file that opens offline and shows the front, its members, the search.

The page is made of the files of the run folder alone, so it can be written again at any time. The
style and the behaviour of the page are in browser/ beside this module.
"""

from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

from nas.report.candidate import panel
from nas.report.charts import front_figures, parallel_axes
from nas.report.choice import choice_section, comparison, comparison_section
from nas.report.data import Run, read_run
from nas.report.energy import battery_data, battery_section
from nas.report.format import dig, esc, script_json
from nas.report.headline import device_name, headline
from nas.report.history import history_figures, history_section
from nas.report.meaning import meaning, origin
from nas.report.overview import overview_section
from nas.run_folder import write_atomic

# Nothing may be loaded from anywhere: a reader can trust the page offline and with private data.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; base-uri 'none'; form-action 'none'"
)
STYLES = ("report.css", "print.css")
SCRIPTS = (  # in this order; state.js comes first, start.js last
    "state.js",
    "parallel.js",
    "plots.js",
    "table.js",
    "compare.js",
    "panel.js",
    "battery.js",
    "start.js",
)


def write_report(run: Path) -> Path:
    """Writes report.html into the run folder and returns its path.

    Raises:
        RunError: a file of the run is missing or torn, or the page cannot be written.
    """
    path = run / "report.html"
    write_atomic(path, _page(read_run(run)).encode())
    return path


def _page(run: Run) -> str:
    figures = {"front": front_figures(run), "history": history_figures(run)}
    main = [
        headline(run),
        choice_section(run),
        overview_section(run, figures["front"]),
        _details(run),
        battery_section(run),
        comparison_section(run),
        history_section(run, figures["history"]),
        meaning(run),
        origin(run),
    ]
    title = f"Report: {esc(dig(run.manifest, 'data', 'name'))} on {device_name(run)}"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{title}</title><style>{_read(STYLES)}</style></head>"
        f'<body><main>{"".join(main)}</main><p id="said" role="status"></p>\n'
        f"<script>{get_plotlyjs()}</script>\n"
        f'<script type="application/json" id="data">{script_json(_data(run, figures))}</script>\n'
        f"<script>{_read(SCRIPTS)}</script></body></html>\n"
    )


def _read(names: tuple[str, ...]) -> str:
    home = Path(__file__).parent / "browser"
    return "\n".join((home / name).read_text() for name in names)


def _data(run: Run, figures: dict[str, Any]) -> dict[str, Any]:
    """What the scripts of the page work with."""
    return {
        **figures,
        "parallel": parallel_axes(run),
        "candidates": [
            {
                "id": c.id,
                **c.values,
                "most_bits": max(
                    (int(b) for b in c.weight_bits.split("/") if b.isdigit()), default=0
                ),
                "sensors": c.modalities.split("+"),
            }
            for c in run.candidates
        ],
        "compare": comparison(run),
        "knee": next((c.index for c in run.candidates if c.id == run.knee), None),
        "battery": battery_data(run),
        "folder": str(run.folder),
    }


def _details(run: Run) -> str:
    panels = "".join(panel(candidate, run) for candidate in run.candidates)
    return f'<section id="details">{panels}</section>' if panels else ""

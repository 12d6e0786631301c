"""The report in a real browser: opened from a file, offline, and used as a reader uses it.

Needs the package playwright and a Chromium of the system. Without them these tests are skipped;
with NAS_REQUIRE_BROWSER=1 their absence is a failure.
"""

import csv
import importlib.util
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from made_up_run import PROFILE, front_row, manifest, write_run

from nas.choosing.battery import Power, cells, duty_of, life_of
from nas.choosing.choose import can_tell_apart, parse_rows
from nas.report.page import write_report
from nas.run_folder import read_front, write_front, write_json

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
MISSING = [
    what
    for what, found in (
        (
            "the package playwright (pip install '.[browser]')",
            importlib.util.find_spec("playwright"),
        ),
        ("Chromium (apt-get install chromium)", CHROMIUM),
    )
    if not found
]
REQUIRED = os.environ.get("NAS_REQUIRE_BROWSER") == "1"
pytestmark = pytest.mark.skipif(bool(MISSING) and not REQUIRED, reason=f"needs {MISSING}")

SWITCHES = "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update"
DESKTOP, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}
MOST_BYTES = 15_000_000


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    assert not MISSING, f"NAS_REQUIRE_BROWSER=1, but {' and '.join(MISSING)} is missing"
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=SWITCHES.split())
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run in a folder whose name a shell would take apart."""
    return write_report(write_run(tmp_path_factory.mktemp("results") / "my run", candidates=6))


@pytest.fixture(scope="module")
def rows(report: Path) -> list[dict[str, str]]:
    with (report.parent / "front.csv").open(newline="") as file:
        return list(csv.DictReader(file))


class Visit:
    """The report, open in a page of its own; `complaints` collects what must not happen."""

    def __init__(self, browser: "Browser", report: Path, **options: Any) -> None:
        self.context = browser.new_context(
            **{"viewport": DESKTOP, "reduced_motion": "reduce", **options}
        )
        self.complaints: list[str] = []
        self.context.route(lambda url: not url.startswith("file:"), lambda route: route.abort())
        page = self.page = self.context.new_page()
        page.set_default_timeout(15_000)
        page.set_default_navigation_timeout(120_000)
        page.on("request", self._see_request)
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on("console", self._see_message)
        page.goto(report.as_uri())

    def _see_request(self, request: Any) -> None:
        if not request.url.startswith(("file:", "data:", "blob:")):
            self.complaints.append(f"request: {request.url}")

    def _see_message(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"console: {message.text}")

    def close(self) -> None:
        self.context.close()
        assert self.complaints == []

    def centre(self, mark: "Locator") -> tuple[float, float]:
        """Where the middle of a mark is in the window, after it was brought there."""
        mark.evaluate("element => element.scrollIntoView({block: 'center'})")
        box = mark.bounding_box()
        assert box is not None
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def point(self, plot: int, candidate: int) -> "Locator":
        """The point of a candidate in one of the charts of pairs."""
        place = self.page.locator('.plot[data-kind="front"]').nth(plot)
        return place.locator(".tracefront .points path").nth(candidate)

    def line(self, candidate: int) -> "Locator":
        """The line of a candidate across the parallel axes."""
        return self.page.locator(f'#parallel .line[data-index="{candidate}"]')

    def row(self, candidate: int) -> "Locator":
        return self.page.locator(f'#table tbody tr[data-index="{candidate}"]')

    def shown(self) -> list[int]:
        """Candidates that the table shows, from the top."""
        found: list[int] = self.page.locator("#table tbody tr:not([hidden])").evaluate_all(
            "rows => rows.map(row => Number(row.dataset.index))"
        )
        return found

    def bright(self) -> tuple[set[int], set[int]]:
        """Candidates that do not step back: among the lines, and among the points of a chart."""
        lines, points = self.page.evaluate(
            """() => [
              [...document.querySelectorAll('#parallel .line:not(.dim)')].map(
                line => Number(line.dataset.index)),
              [...document.querySelectorAll('.plot')[1].querySelectorAll('.tracefront path.point')]
                .flatMap((point, index) => point.classList.contains('dim') ? [] : [index]),
            ]"""
        )
        return set(lines), set(points)

    def selected(self) -> int:
        """The candidate that every view shows as selected."""
        panel = self.page.locator(".detail.chosen")
        assert panel.count() == 1
        index = int(panel.get_attribute("data-index") or -1)
        assert "selected" in (self.row(index).get_attribute("class") or "")
        assert "selected" in (self.line(index).get_attribute("class") or "")
        for plot in range(self.page.locator('.plot[data-kind="front"]').count()):
            assert "selected" in (self.point(plot, index).get_attribute("class") or "")
        assert self.page.locator("#parallel .selected, #table .selected").count() == 2
        return index


@pytest.fixture(scope="module")
def desk(browser: "Browser", report: Path) -> Iterator[Visit]:
    """One window for all tests that look at it as it is on a desk: drawing it takes seconds."""
    opened = Visit(browser, report)
    yield opened
    opened.close()


@pytest.fixture
def visit(desk: Visit) -> Iterator[Visit]:
    """The window as it is when the page opens, but for the order of the table and the pair."""
    desk.page.mouse.move(0, 0)
    desk.page.evaluate(
        "document.getElementById('filters').reset();"
        "report.select(report.candidates.length - 1); report.point(-1); scrollTo(0, 0);"
    )
    yield desk
    assert desk.complaints == []


def test_opens_offline_with_the_best_selected(
    desk: Visit, report: Path, rows: list[dict[str, str]]
) -> None:
    assert report.stat().st_size < MOST_BYTES
    scores = [float(row["val_score"]) for row in rows]
    assert desk.page.url == report.as_uri()
    assert desk.selected() == scores.index(max(scores))
    assert desk.page.locator(".plot .main-svg").count() >= 9
    assert desk.page.evaluate("document.querySelectorAll('[src], link').length") == 0
    assert desk.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert desk.complaints == []


def test_a_click_on_a_point_shows_the_candidate(visit: Visit, rows: list[dict[str, str]]) -> None:
    for plot, index in ((0, 1), (4, 3)):
        visit.page.mouse.click(*visit.centre(visit.point(plot, index)))
        assert visit.selected() == index
        panel = visit.page.locator(".detail.chosen")
        assert panel.locator("h3 code").inner_text() == rows[index]["id"]
        for drawing in ("svg.flow", "svg.arena"):
            assert panel.locator(drawing).is_visible()
            assert panel.locator(f"{drawing} rect").count() > 4
        assert rows[index]["modalities"].split("+")[0] in (
            panel.locator("svg.arena").text_content() or ""
        )
        assert visit.page.url.endswith(f"#{rows[index]['id']}")
        assert panel.evaluate("panel => Math.abs(panel.getBoundingClientRect().top) < innerHeight")
        assert visit.page.locator(".detail:not(.chosen)").first.is_hidden()
    panel.get_by_role("button", name="next").click()
    assert visit.selected() == 4
    visit.page.get_by_role("button", name="back to the charts").locator("visible=true").click()
    assert (
        visit.page.locator('.plot[data-kind="front"]')
        .nth(4)
        .evaluate(
            "plot => plot.getBoundingClientRect().top < innerHeight && "
            "plot.getBoundingClientRect().bottom > 0"
        )
    )


def test_an_address_names_a_candidate(
    browser: "Browser", report: Path, rows: list[dict[str, str]]
) -> None:
    visit = Visit(browser, report)
    visit.page.goto("about:blank")
    visit.page.goto(f"{report.as_uri()}#{rows[2]['id']}")
    assert visit.selected() == 2
    visit.close()


def test_pointing_marks_every_view(visit: Visit) -> None:
    visit.row(2).scroll_into_view_if_needed()
    visit.row(2).hover()
    assert "pointed" in (visit.line(2).get_attribute("class") or "")
    assert "pointed" in (visit.point(0, 2).get_attribute("class") or "")
    visit.page.mouse.move(*visit.centre(visit.point(1, 4)))
    visit.page.wait_for_selector("#table tr.pointed")
    assert "pointed" in (visit.row(4).get_attribute("class") or "")
    assert "pointed" in (visit.line(4).get_attribute("class") or "")
    assert "pointed" not in (visit.line(2).get_attribute("class") or "")
    visit.centre(visit.page.locator("#parallel"))
    box = visit.line(0).locator("circle").first.bounding_box()
    assert box is not None
    visit.page.mouse.move(box["x"] + 40, box["y"] + 3)  # on the lines beside their axis
    assert visit.page.locator("#parallel .pointed").count() <= 1


def test_parallel_axes_narrow_the_choice(visit: Visit, rows: list[dict[str, str]]) -> None:
    grip = visit.page.locator('#parallel .axis[data-column="ram_bytes"] .grip')
    visit.centre(grip)
    box = grip.bounding_box()
    assert box is not None
    x, top, height = box["x"] + box["width"] / 2, box["y"], box["height"]
    visit.page.mouse.move(x, top + 4)  # the upper end is the least RAM
    visit.page.mouse.down()
    visit.page.mouse.move(x, top + height * 0.45, steps=4)
    visit.page.mouse.up()
    kept = set(visit.shown())
    ram = [int(row["ram_bytes"]) for row in rows]
    assert 0 < len(kept) < len(rows)
    assert max(ram[i] for i in kept) < min(ram[i] for i in range(len(rows)) if i not in kept)
    assert visit.bright() == (kept, kept)
    assert visit.page.locator("#shown").inner_text() == f"{len(kept)} of {len(rows)}"
    visit.page.mouse.click(x, top + height * 0.8)
    assert visit.bright()[0] == set(range(len(rows)))
    visit.line(3).locator("path:not(.hit)").dispatch_event("click")
    assert visit.selected() == 3


def test_a_box_in_a_chart_narrows_the_choice(visit: Visit, rows: list[dict[str, str]]) -> None:
    plot = visit.page.locator('.plot[data-kind="front"]').first
    x, y = visit.centre(visit.point(0, 2))
    plot.hover()
    plot.locator('[data-attr="dragmode"][data-val="select"]').click()
    visit.page.mouse.move(x - 7, y - 7)
    visit.page.mouse.down()
    visit.page.mouse.move(x + 7, y + 7, steps=4)
    visit.page.mouse.up()
    visit.page.wait_for_selector("#table tr[hidden]", state="attached")
    kept = set(visit.shown())
    assert 2 in kept and len(kept) < len(rows)
    assert visit.bright() == (kept, kept)
    visit.page.get_by_role("button", name="Show all").click()
    everything = set(range(len(rows)))
    assert set(visit.shown()) == everything and visit.bright() == (everything, everything)
    assert plot.locator(".selectionlayer path").count() == 0


def test_sorting(visit: Visit, rows: list[dict[str, str]]) -> None:
    arena = [int(row["arena_bytes"]) for row in rows]
    assert sorted(arena) != sorted(arena, key=str)  # numbers must not be sorted as texts
    button = visit.page.locator("#table").get_by_role("button", name="Arena")
    button.click()
    assert [arena[i] for i in visit.shown()] == sorted(arena)
    button.click()
    assert [arena[i] for i in visit.shown()] == sorted(arena, reverse=True)
    assert button.locator("..").get_attribute("aria-sort") == "descending"
    visit.page.locator("#table").get_by_role("button", name="Candidate").click()
    assert [rows[i]["id"] for i in visit.shown()] == sorted(row["id"] for row in rows)


def test_filters(visit: Visit, rows: list[dict[str, str]]) -> None:
    page = visit.page

    def expect(condition: Any) -> None:
        kept = {i for i, row in enumerate(rows) if condition(row)}
        assert 0 < len(kept) < len(rows)
        assert set(visit.shown()) == kept and visit.bright() == (kept, kept)

    page.get_by_label("Score from, %").fill("92")
    expect(lambda row: float(row["val_score"]) >= 0.92)
    page.get_by_label("Score from, %").fill("")
    page.get_by_label("Sensor view").select_option("no")
    expect(lambda row: "view" not in row["modalities"].split("+"))
    limit = sorted(int(row["ram_bytes"]) for row in rows)[3]
    page.get_by_label("RAM up to, KB").fill(str(limit / 1024))
    expect(
        lambda row: "view" not in row["modalities"].split("+") and int(row["ram_bytes"]) <= limit
    )
    page.get_by_role("button", name="Show all").click()
    assert len(visit.shown()) == len(rows)
    page.get_by_label("Latency up to, ms").fill("0.000001")
    assert visit.shown() == []
    assert "none of 6" in page.locator("#shown").inner_text()


def test_comparing_two(visit: Visit, report: Path) -> None:
    page = visit.page
    front = parse_rows(read_front(report.parent))
    for index in range(len(front)):
        page.locator(f'[data-compare="{index}"]').uncheck()
    assert page.locator("#compared table").count() == 0
    for index in (1, 4):
        page.locator(f'[data-compare="{index}"]').check()
    table = page.locator("#compared table")
    assert [front[i].id in table.inner_text() for i in range(6)] == [i in (1, 4) for i in range(6)]
    cells = table.get_by_role("row", name=re.compile("^RAM")).locator("td")
    less = 0 if front[1].ram_bytes < front[4].ram_bytes else 1
    assert "better" in cells.nth(less).inner_text()
    assert "better" not in cells.nth(1 - less).inner_text()
    share = front[4].ram_bytes / front[1].ram_bytes - 1
    assert f"{abs(100 * share):.0f}" in cells.nth(2).inner_text()
    assert page.locator("#compared svg.flow").count() == 2
    for pair in ((1, 4), (0, 5)):
        for side, index in enumerate(pair):
            page.locator(f'[data-side="{side}"]').select_option(str(index))
        apart = can_tell_apart(front[pair[0]], front[pair[1]])
        verdict = page.locator("#compared .verdict").inner_text()
        assert ("can be told apart" in verdict) == apart
        row = table.get_by_role("row", name=re.compile("^Validation"))
        assert ("better" in row.inner_text()) == apart
    assert page.locator("[data-compare]:checked").count() == 2


def test_the_copied_command(visit: Visit, report: Path, rows: list[dict[str, str]]) -> None:
    page = visit.page
    panel = page.locator(".detail.chosen")
    panel.get_by_role("button", name="Copy").click()
    panel.get_by_role("button", name="Copied").wait_for()
    search = page.get_by_label("Search")
    search.focus()
    page.keyboard.press("Control+V")
    best = max(rows, key=lambda row: float(row["val_score"]))["id"]
    expected = ["nas", "pick", str(report.parent), best, "--out", best]
    assert shlex.split(search.input_value()) == expected


def test_keys(visit: Visit) -> None:
    before = visit.selected()
    visit.page.locator("#parallel").focus()
    visit.page.keyboard.press("ArrowLeft")
    assert visit.selected() == before - 1
    visit.page.locator('.plot[data-kind="front"]').nth(2).focus()
    visit.page.keyboard.press("ArrowLeft")
    assert visit.selected() == before - 2
    visit.page.keyboard.press("Enter")
    assert visit.page.evaluate("document.activeElement.closest('.detail.chosen') !== null")
    status = visit.page.locator("#said").inner_text()
    assert status.startswith("Candidate c") and "score" in status


def test_battery_life(visit: Visit, report: Path) -> None:
    page = visit.page
    row = parse_rows(read_front(report.parent))[visit.selected()]
    page.get_by_label("One inference every, s").fill("0.25")
    cell = next(i for i, name in enumerate(cells()) if name == "CR2450")
    page.locator('#battery [name="cell"]').select_option(str(cell))
    power = Power(PROFILE.active_current_a, PROFILE.sleep_current_a, PROFILE.supply_voltage_v)
    life = life_of(duty_of(row.latency_ms, 0.25, power), cells()["CR2450"])
    shown = page.locator("#lasts").inner_text()
    hours = re.search(r"= ([\d,]+) h", shown)
    assert hours and float(hours[1].replace(",", "")) == pytest.approx(24 * life.days, rel=0.006)
    assert ("shelf life" in shown) == life.beyond_shelf
    page.get_by_label("One inference every, s").fill("0.0000001")
    assert "longer than the latency" in page.locator("#lasts").inner_text()


def test_history_over_networks(visit: Visit) -> None:
    best = visit.page.locator('.plot[data-kind="history"]').first
    assert "Time since the start" in best.inner_text()
    visit.page.get_by_role("button", name="over networks trained").click()
    assert "Networks trained" in best.inner_text()


def test_odd_runs_open_too(browser: "Browser", tmp_path: Path) -> None:
    """None on the front yet; one alone, in a run that lacks intervals and currents."""
    early = write_run(tmp_path / "early", candidates=1)
    write_front(early, [])
    alone = write_run(tmp_path / "alone", candidates=1)
    ends = dict.fromkeys(("val_low", "val_high", "test_score", "test_low", "test_high"), "")
    write_front(alone, [front_row(0, 0.9, "no") | ends])
    held = manifest()
    profile = {k: v for k, v in held["profile"].items() if not k.endswith("_current_a")}
    write_json(alone / "run.json", held | {"profile": profile})
    for run, count in ((early, 0), (alone, 1)):
        visit = Visit(browser, write_report(run))
        assert visit.page.locator("#table tbody tr").count() == count
        assert visit.page.locator("#compare, #batteries").count() == 0
        assert visit.page.locator(".detail.chosen svg.flow").count() == count
        assert visit.page.locator("#parallel .line").count() == count
        visit.close()


def test_a_phone(browser: "Browser", report: Path) -> None:
    visit = Visit(browser, report, viewport=PHONE, is_mobile=True, has_touch=True)
    page = visit.page
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    outside = page.evaluate(
        "[...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll, svg, .plot') "
        "&& e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"
    )
    assert outside == []
    grip = page.locator("#parallel .grip").first.bounding_box()
    assert grip is not None and grip["width"] > grip["height"]  # axes lie there
    page.touchscreen.tap(*visit.centre(visit.point(1, 2)))
    page.wait_for_selector('.detail.chosen[data-index="2"]')
    assert visit.selected() == 2
    assert page.locator(".detail.chosen svg.flow").is_visible()
    visit.close()


def test_paper(browser: "Browser", report: Path) -> None:
    visit = Visit(browser, report, color_scheme="dark")
    page = visit.page
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert dark != "rgb(255, 255, 255)"
    plot = page.locator('.plot[data-kind="front"] .main-svg').first
    assert plot.evaluate("svg => svg.style.background") == dark
    page.evaluate(
        "addEventListener('beforeprint', () => { window.printed = {"
        "details: document.querySelector('.detail.chosen details').open,"
        "paper: document.querySelector('.main-svg').style.background}; })"
    )
    printed = page.pdf(format="A4", print_background=True)
    assert printed.startswith(b"%PDF") and printed.count(b"/Type /Page\n") >= 5
    seen = page.evaluate("window.printed")
    assert seen == {"details": True, "paper": "rgb(255, 255, 255)"}
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator(".detail.chosen svg.arena").is_visible()
    assert page.locator("#filters").is_hidden()
    assert page.locator(".detail:not(.chosen)").first.is_hidden()
    visit.close()

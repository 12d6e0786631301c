"""A search in each of the spaces with attention and scans, from data to a verified report."""

from pathlib import Path

import pytest
from test_end_to_end import World, document, table


@pytest.mark.parametrize("space", ("transformer", "mamba", "all"))
def test_a_search(space: str, tmp_path: Path) -> None:
    world = World(tmp_path)
    given = ("--data", world.data, "--space", space, "--no-distil", "--trials", 3)
    world.search(*given, "--out", world.run)
    rows = table(world.run / "front.csv")
    assert rows and all(row["verified"] != "no" for row in rows)
    held = document(world.run / "run.json")
    assert held["space"] == space and held["trials"]["trained"] == 3
    home = world.run / "candidates" / rows[0]["id"]
    assert document(home / "architecture.json")["architecture"]["space"] == space
    done = world.command(
        "-m", "nas", "estimate", home / "architecture.json", "--device", "cortex-m4-32k"
    )
    assert f"{int(rows[0]['weight_bytes']):,} B  exact" in done.stdout
    assert "around a residual" in (world.run / "report.html").read_text() or space != "transformer"

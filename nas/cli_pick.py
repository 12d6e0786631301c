"""The verb `pick` of the command line; what it does is in `nas.choosing.pick`."""

import argparse
from pathlib import Path
from typing import Any

from nas.cli_types import names, positive, positive_int, share


def add_pick_verb(verbs: Any) -> None:
    """Adds `pick` to the verbs of `nas`."""
    pick = verbs.add_parser(
        "pick",
        help="choose a candidate: the knee of the front, or yours, under limits; copy it out",
        epilog="example: nas pick results/demo --max-flash-bytes 16384 --every-s 1 --cell CR2032",
    )
    pick.add_argument("dir", type=Path, metavar="DIR", help="run folder")
    pick.add_argument("id", nargs="?", metavar="ID", help="a candidate; the knee without")
    limits = pick.add_argument_group("limits")
    limits.add_argument("--min-score", type=share, metavar="X", help="on validation, 0 to 1")
    limits.add_argument("--max-ram-bytes", type=positive_int, metavar="N")
    limits.add_argument("--max-flash-bytes", type=positive_int, metavar="N")
    limits.add_argument("--max-latency-ms", type=positive, metavar="X")
    limits.add_argument("--max-weight-bytes", type=positive_int, metavar="N")
    limits.add_argument(
        "--max-bits", type=int, choices=(2, 4, 8), help="of any layer, first layers included"
    )
    limits.add_argument("--sensors", type=names, default=(), metavar="A,B", help="must use these")
    limits.add_argument("--without", type=names, default=(), metavar="C", help="must not use these")
    less = pick.add_argument_group("what less costs")
    less.add_argument(
        "--by",
        choices=("flash", "ram", "latency", "weights"),
        default="flash",
        help="the resource of the ladder (%(default)s)",
    )
    less.add_argument("--less", type=positive, metavar="N", help="so many bytes (ms) less")
    duty = pick.add_argument_group("battery")
    duty.add_argument("--every-s", type=positive, metavar="T", help="one inference every T seconds")
    duty.add_argument(
        "--cell", metavar="NAME|MAH", help="CR2032, CR2450, CR123A, 2xAAA, 2xAA, or its mAh"
    )
    pick.add_argument("--out", type=Path, metavar="FOLDER", help="copy the candidate there")
    pick.set_defaults(run=_pick)


def _pick(chosen: argparse.Namespace) -> int:
    from nas.choosing.battery import read_cell
    from nas.choosing.choose import Limits
    from nas.choosing.pick import Wish, pick

    limits = Limits(
        min_score=chosen.min_score,
        max_ram_bytes=chosen.max_ram_bytes,
        max_flash_bytes=chosen.max_flash_bytes,
        max_latency_ms=chosen.max_latency_ms,
        max_weight_bytes=chosen.max_weight_bytes,
        max_bits=chosen.max_bits,
        sensors=chosen.sensors,
        without=chosen.without,
    )
    cell = None if chosen.cell is None else read_cell(chosen.cell)
    wish = Wish(
        chosen.dir,
        chosen.id,
        limits,
        chosen.by,
        chosen.less,
        chosen.every_s,
        cell,
        chosen.out,
    )
    pick(wish)
    return 0

"""The verbs of deployment: `nas verify`, `nas bundle`, `nas calibrate`."""

import argparse
from pathlib import Path
from typing import Any

from nas.cli_types import cores, positive_int


def add_compiler_option(parser: Any) -> None:
    """`--cc`, which searches and the verbs below share."""
    parser.add_argument(
        "--cc", metavar="CC", help="compiler for the Cortex-M4, path or command (zig of ziglang)"
    )


def add_deploy_verbs(verbs: Any) -> None:
    """Adds the verbs to `nas`."""
    verify = verbs.add_parser(
        "verify",
        help="run every candidate on the emulated chip and in every runtime, compare the outputs",
        epilog="example: nas verify results/demo c0123456789ab",
    )
    verify.add_argument("dir", type=Path, metavar="DIR", help="run folder")
    verify.add_argument("ids", nargs="*", metavar="ID", help="candidates; all without")
    verify.add_argument("--workers", type=positive_int, default=cores(), metavar="W")
    add_compiler_option(verify)
    verify.set_defaults(run=_verify)
    bundle = verbs.add_parser(
        "bundle",
        help="write a candidate's C again, with a prefix of your own",
        epilog="example: nas bundle results/demo c0123456789ab --prefix gait --out firmware/gait",
    )
    bundle.add_argument("dir", type=Path, metavar="DIR", help="run folder")
    bundle.add_argument("id", metavar="ID", help="candidate")
    bundle.add_argument(
        "--prefix", default="model", metavar="P", help="begins every C name (%(default)s)"
    )
    bundle.add_argument(
        "--steps", action="store_true", help="the form that runs step by step (folder c_step)"
    )
    bundle.add_argument("--out", type=Path, metavar="DIR", help="folder (the candidate's own)")
    bundle.set_defaults(run=_bundle)
    calibrate = verbs.add_parser(
        "calibrate",
        help="measure every kernel on the emulated chip and write the table that costs come from",
        epilog="example: nas calibrate --out nas/hardware/kernel_costs.toml",
    )
    calibrate.add_argument("--out", type=Path, default=Path("kernel_costs.toml"), metavar="FILE")
    calibrate.add_argument("--programs", type=positive_int, default=60, metavar="N")
    calibrate.add_argument("--seed", type=int, default=2026, metavar="N")
    add_compiler_option(calibrate)
    calibrate.set_defaults(run=_calibrate)


def _verify(chosen: argparse.Namespace) -> int:
    from nas.choosing.brief import write_briefs
    from nas.export.verification import require_equal
    from nas.export.verify import verify_run
    from nas.progress import Progress
    from nas.report.page import write_report
    from nas.run_folder import locked, read_json
    from nas.tables import print_verification

    read_json(chosen.dir / "run.json")  # a folder of something else is left as it is
    with locked(chosen.dir):
        with Progress(quiet=False) as progress:
            results = verify_run(
                chosen.dir,
                chosen.ids,
                chosen.workers,
                lambda done: progress.status(f"verified {done.id}: {done.verified}"),
                chosen.cc,
            )
        print_verification(results)
        write_briefs(chosen.dir)
        write_report(chosen.dir)
    require_equal(results)
    return 0


def _bundle(chosen: argparse.Namespace) -> int:
    from nas.errors import UsageError
    from nas.export.again import write_again
    from nas.export.emulate import PREFIX

    if chosen.prefix != PREFIX and chosen.out is None:
        raise UsageError(f"--prefix {chosen.prefix}: name a folder for it with --out")
    own = chosen.dir / "candidates" / chosen.id / ("c_step" if chosen.steps else "c")
    out = chosen.out or own
    files = write_again(chosen.dir, chosen.id, chosen.prefix, out, chosen.steps)
    print(f"{out}: {len(files)} files")
    return 0


def _calibrate(chosen: argparse.Namespace) -> int:
    from nas.calibration.command import calibrate
    from nas.progress import Progress
    from nas.tables import print_table

    with Progress(quiet=False) as progress:
        tables = calibrate(chosen.out, chosen.cc, chosen.programs, chosen.seed, progress.status)
    rows = [
        (core, name, str(fit.samples), f"{fit.error_mean:.1%}", f"{fit.error_p95:.1%}")
        for core, table in tables.items()
        for name, fit in table.fits.items()
    ]
    columns = ("core", "kernel", "calls measured", "error of cycles", "95th percentile")
    print_table(columns, rows, right=columns[2:])
    print(f"{chosen.out}: errors are those of calls that the fit had not seen")
    return 0

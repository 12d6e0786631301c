"""The command line: parses, loads only what a verb needs, prints errors as one line.

`run_search.py` and `nas search` start a search; the other verbs read what a search left. Heavy
libraries are imported inside the verbs, so that help answers at once.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas import __version__
from nas.cli_deploy import add_compiler_option, add_deploy_verbs
from nas.cli_pick import add_pick_verb
from nas.cli_types import cores, positive, positive_int
from nas.errors import NasError, UsageError
from nas.importing.command import add_import_verb
from nas.threads import one_thread_each

if TYPE_CHECKING:
    from nas.space import Space
    from nas.training.lessons import Distil
    from nas.training.recipe import TrainOn

INTERRUPTED = 130  # exit status after Ctrl-C, as shells have it
DEMO_TASK, DEMO_MINUTES = "watch", 8.0
DEMO_DEVICE = "cortex-m4-64k"
OBJECTIVES = "error,ram,flash,latency"
METRICS = ("accuracy", "balanced_accuracy", "macro_f1")
VALIDATIONS, FEW_ROWS = ("split", "cross"), 200
TEACHERS = ("conv", "attention", "both")  # of ours; all else is a file
DISTILS: "tuple[Distil, ...]" = ("logits", "features", "walk")  # the first is the default
TRAIN_ON: "tuple[TrainOn, ...]" = ("cpu", "cuda")
MOST_ON_DEVICE = 4  # processes without --workers: each holds libraries and data in its memory
SAMPLERS = ("exact", "tpe", "nsga2", "nsga3", "gp", "random")


def search_main(arguments: Sequence[str] | None = None) -> int:
    """`run_search.py`: returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="run_search.py",
        description="Searches networks for your sensors that fit your microcontroller; without"
        " options a demo of a few minutes.",
        epilog="The other verbs (import, pick, report, verify, estimate, ...): nas --help",
    )
    _add_search_options(parser)
    return _guarded(lambda: _search(parser.parse_args(arguments)))


def main(arguments: Sequence[str] | None = None) -> int:
    """`nas`: returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="nas", description="Neural architecture search for microcontrollers with sensors."
    )
    parser.add_argument("--version", action="version", version=f"nas {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    search = verbs.add_parser("search", help="start or resume a search, as run_search.py does")
    _add_search_options(search)
    search.set_defaults(run=_search)
    add_import_verb(verbs)
    _add_reading_verbs(verbs)
    for name, action, summary in (
        ("tasks", _tasks, "data sets by name"),
        ("devices", _devices, "hardware profiles by name"),
        ("spaces", _spaces, "search spaces by name"),
    ):
        verb = verbs.add_parser(name, help=summary)
        verb.set_defaults(run=action)

    def run() -> int:
        chosen = parser.parse_args(arguments)
        status: int = chosen.run(chosen)
        return status

    return _guarded(run)


def _add_reading_verbs(verbs: Any) -> None:
    report = verbs.add_parser(
        "report", help="write report.html again", epilog="example: nas report results/demo"
    )
    report.add_argument("dir", type=Path, metavar="DIR", help="run folder")
    report.set_defaults(run=_report)
    status = verbs.add_parser(
        "status",
        help="how a run stands, while it goes on or afterwards",
        epilog="example: nas status results/demo",
    )
    status.add_argument("dir", type=Path, metavar="DIR", help="run folder")
    status.set_defaults(run=_status)
    estimate = verbs.add_parser(
        "estimate",
        help="what an architecture costs on a device, per operator",
        epilog="example: nas estimate results/demo/candidates/c0123456789ab/architecture.json"
        " --device nrf52832-qfaa",
    )
    estimate.add_argument("architecture", type=Path, metavar="ARCH.json")
    estimate.add_argument("--device", required=True, metavar="D")
    estimate.set_defaults(run=_estimate)
    add_pick_verb(verbs)
    add_deploy_verbs(verbs)


def _add_search_options(parser: argparse.ArgumentParser) -> None:
    data = parser.add_argument_group("what to learn")
    data.add_argument(
        "--data",
        metavar="F",
        help="data file, .npz (format: README); with --task also the folder of its data set",
    )
    data.add_argument("--task", metavar="NAME", help="named task: nas tasks")
    data.add_argument("--modalities", metavar="A,B", help="use only these sensors")
    data.add_argument("--metric", choices=METRICS, help="score (accuracy, or the task's)")
    data.add_argument(
        "--teacher", metavar="T", help="conv, attention or both, or your own MODEL.onnx (conv)"
    )
    data.add_argument(
        "--distil",
        choices=DISTILS,
        help=f"teach by the teacher's answers, its features too, or level by level ({DISTILS[0]})",
    )
    data.add_argument("--no-distil", action="store_true", help="train without a teacher")
    data.add_argument(
        "--validation",
        choices=VALIDATIONS,
        help="judge by the validation split or crosswise by all rows but test's (cross where"
        f" validation has less than {FEW_ROWS} rows)",
    )
    target = parser.add_argument_group("what it must fit")
    target.add_argument(
        "--device", default=DEMO_DEVICE, metavar="D", help="name or TOML file (%(default)s)"
    )
    target.add_argument("--max-latency-ms", type=positive, metavar="X")
    target.add_argument("--max-weight-bytes", type=positive_int, metavar="N")
    search = parser.add_argument_group("how to search")
    search.add_argument(
        "--space", default="conv", metavar="S", help="see nas spaces, or own FILE.py (%(default)s)"
    )
    search.add_argument(
        "--objectives", default=OBJECTIVES, metavar="LIST", help="subset of %(default)s"
    )
    search.add_argument("--sampler", choices=SAMPLERS, default=SAMPLERS[0], help="(%(default)s)")
    search.add_argument(
        "--trials",
        type=positive_int,
        metavar="N",
        help="networks to train in all, those included that are left halfway",
    )
    length = search.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=positive, metavar="M", help="wall-clock of this command")
    length.add_argument("--hours", type=positive, metavar="H")
    search.add_argument("--seed", type=int, default=0, metavar="N")
    search.add_argument(
        "--workers",
        type=positive_int,
        metavar="W",
        help=f"({cores()}: cores; with --train-on cuda {MOST_ON_DEVICE} at most)",
    )
    search.add_argument(
        "--train-on", choices=TRAIN_ON, default=TRAIN_ON[0], help="what trains (%(default)s)"
    )
    _add_run_options(parser)


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    run = parser.add_argument_group("the run")
    run.add_argument("--out", type=Path, metavar="DIR", help="run folder (results/<task>-<time>)")
    run.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in --out that was stopped, or search longer",
    )
    run.add_argument(
        "--storage", metavar="URL", help="postgresql://… for many machines (DIR/study.db)"
    )
    run.add_argument(
        "--artifacts",
        metavar="PLACE",
        help="folder or s3://BUCKET that all machines of --storage reach",
    )
    run.add_argument("--no-verify", action="store_true", help="do not run the artefacts at the end")
    add_compiler_option(run)
    run.add_argument("--quiet", action="store_true", help="no progress, for logs")


def _guarded(action: Callable[[], int]) -> int:
    """Runs a verb; an error that is ours becomes one line on stderr and exit status 1."""
    try:
        return action()
    except NasError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "stopped: what was finished is kept; go on with the same command and --resume",
            file=sys.stderr,
        )
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        sys.stderr.close()
        return 1


def load_space(name: str) -> "Space":
    """A search space by name or from a Python file, which is run; UsageError for an unknown one."""
    from search_spaces import SPACES

    if name.endswith(".py"):
        from nas.search.own_space import load_space_file

        return load_space_file(Path(name), tuple(SPACES))
    if name not in SPACES:
        raise UsageError(f"--space {name!r}: not one of {', '.join(SPACES)}, and no .py file")
    return SPACES[name]


def _search(chosen: argparse.Namespace) -> int:
    one_thread_each()
    from nas.data.named_tasks import find_task
    from nas.manifest import Options
    from nas.run import run_search

    objectives = tuple(chosen.objectives.split(","))
    unknown = [name for name in objectives if name not in OBJECTIVES.split(",")]
    if unknown or "error" not in objectives or len(set(objectives)) != len(objectives):
        raise UsageError(
            f"--objectives {chosen.objectives}: must be different ones of {OBJECTIVES}, with error"
        )
    distil = _distil(chosen)
    demo = chosen.data is None and chosen.task is None
    task = DEMO_TASK if demo else chosen.task
    limits = (chosen.minutes, chosen.hours, chosen.trials)
    minutes = DEMO_MINUTES if demo and limits == (None,) * 3 else chosen.minutes
    if limits == (None,) * 3 and not demo:
        raise UsageError("no end given; add --minutes, --hours or --trials")
    budget_s = chosen.hours * 3600 if chosen.hours else minutes * 60 if minutes else None
    if chosen.resume and chosen.out is None:
        raise UsageError("--resume: name the run folder with --out")
    _check_sharing(chosen)
    named = task or Path(chosen.data).stem
    task_metric = None if task is None else find_task(task).metric
    stamp = time.strftime("%Y%m%d-%H%M%S")
    out = chosen.out or Path("results") / f"{named}-{Path(chosen.device).stem}-{stamp}"
    options = Options(
        task=task,
        data=chosen.data,
        modalities=None if chosen.modalities is None else tuple(chosen.modalities.split(",")),
        device=chosen.device,
        space=load_space(chosen.space),
        teacher=chosen.teacher,
        trials=chosen.trials,
        budget_s=budget_s,
        objectives=objectives,
        metric=chosen.metric or task_metric or "accuracy",
        max_latency_ms=chosen.max_latency_ms,
        max_weight_bytes=chosen.max_weight_bytes,
        sampler=chosen.sampler,
        distil=distil,
        validation=chosen.validation,
        verify=not chosen.no_verify,
        cc=chosen.cc,
        workers=chosen.workers or _processes(chosen.train_on),
        storage=chosen.storage,
        out=out,
        seed=chosen.seed,
        resume=chosen.resume,
        quiet=chosen.quiet,
        task_sets_metric=chosen.metric is None and task_metric is not None,
        artifacts=chosen.artifacts,
        train_on=chosen.train_on,
    )
    run = run_search(options)
    from nas.tables import print_front

    print_front(run)
    return 0


def _processes(train_on: "TrainOn") -> int:
    """Without --workers; one device is shared by all."""
    return cores() if train_on == "cpu" else min(cores(), MOST_ON_DEVICE)


def _check_sharing(chosen: argparse.Namespace) -> None:
    """UsageError where machines could not share a study."""
    storage = chosen.storage or "sqlite:///"
    kind, slashes, _ = storage.partition("://")
    shared = kind.startswith("postgresql") and slashes != ""
    if not shared and not storage.startswith("sqlite:///"):
        raise UsageError(
            f"--storage {storage.partition(':')[0]}:{slashes[1:]}…: give"
            " postgresql://USER@HOST/DATABASE, or leave it out for a file in the run folder"
        )
    if shared and chosen.artifacts is None:
        raise UsageError(
            "--storage postgresql://…: add --artifacts FOLDER or s3://BUCKET, which every machine"
            " reaches; teacher and networks go through it"
        )
    if chosen.artifacts is not None and not shared:
        raise UsageError("--artifacts: only with --storage postgresql://…; leave it out")
    if shared and chosen.distil == "walk":
        raise UsageError("--distil walk: its teachers are of one machine; leave out --storage")
    if shared:
        from nas.search.storage import check_url

        check_url(storage)


def _distil(chosen: argparse.Namespace) -> "Distil | None":
    """How the teacher teaches, or None for none; UsageError where options contradict each other."""
    if chosen.teacher and chosen.no_distil:
        raise UsageError("--teacher with --no-distil: a teacher that is not used; leave one out")
    if chosen.distil and chosen.no_distil:
        raise UsageError(f"--distil {chosen.distil} with --no-distil: leave one out")
    if chosen.teacher not in (None, *TEACHERS) and chosen.distil == "features":
        raise UsageError(
            "--teacher with --distil features: an ONNX model gives answers and no features; use"
            " --distil logits"
        )
    return None if chosen.no_distil else chosen.distil or DISTILS[0]


def _report(chosen: argparse.Namespace) -> int:
    from nas.report.page import write_report
    from nas.run_folder import locked, read_json

    read_json(chosen.dir / "run.json")  # a folder of something else is left as it is
    with locked(chosen.dir):
        print(write_report(chosen.dir))
    return 0


def _status(chosen: argparse.Namespace) -> int:
    import datetime

    from nas.search.standing import describe_run

    print("\n".join(describe_run(chosen.dir, datetime.datetime.now(datetime.UTC))))
    return 0


def _estimate(chosen: argparse.Namespace) -> int:
    from nas.errors import SpaceError
    from nas.hardware.budget import Budget, price
    from nas.hardware.profile import load_profile
    from nas.network.graph import Graph
    from nas.run_folder import read_json
    from nas.tables import print_cost
    from search_spaces import SPACES

    document = read_json(chosen.architecture)
    candidate, document = document, document.get("architecture", document)
    if "space" not in document:
        raise SpaceError(
            f"{chosen.architecture}: no key 'space'; give the architecture.json of a candidate"
        )
    if document["space"] not in SPACES and "graph" in candidate:  # of a user's space
        graph = Graph.from_json(candidate["graph"])
    else:
        graph = load_space(document["space"]).parse(document).lower()
    profile = load_profile(chosen.device)
    priced = price(graph, profile)
    budget = Budget(profile.ram_budget_bytes, profile.flash_budget_bytes, None, None)
    print_cost(priced, profile, budget)
    return 0


def _tasks(chosen: argparse.Namespace) -> int:
    from nas.data.named_tasks import TASKS
    from nas.tables import print_table

    rows = [(name, f"{task.summary}\ndata: {task.source}") for name, task in TASKS.items()]
    print_table(("task", "what it is"), rows)
    print("run_search.py --task NAME --data PATH reads the folder as published, or an .npz file of")
    print("the same sensors; nas import FOLDER --task NAME --out F.npz writes what it reads")
    return 0


def _devices(chosen: argparse.Namespace) -> int:
    from nas.hardware.profile import list_profiles
    from nas.tables import print_devices

    print_devices(list_profiles())
    return 0


def _spaces(chosen: argparse.Namespace) -> int:
    from nas.tables import print_table
    from search_spaces import SPACES

    print_table(("space", "what it holds"), [(s.name, s.summary) for s in SPACES.values()])
    print("your own: --space FILE.py, as in examples/own_space.py")
    return 0

"""One run from options to a verified, reported front: what `run_search.py` starts.

    check everything -> teacher -> search -> final trainings -> export -> verify -> report

All that can be refused is refused before the run folder is touched.
"""

import importlib.util
import os
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from nas.choosing.brief import write_briefs
from nas.data.task import Task
from nas.deploy.toolchain import cache_folder, find_compiler
from nas.emulation.emulator import check_hook
from nas.emulation.tools import check_tools
from nas.errors import RunError, ToolMissing
from nas.export.front import delivered_hypervolume, drop_dominated, export_front
from nas.export.verification import Verification, complaint, require_equal
from nas.export.verify import verify_run
from nas.given import describe, keep, notes, open_data, source_of, told
from nas.hardware.budget import DEFAULT_LATENCY_LIMIT_MS, Budget, check_possible
from nas.hardware.cost import kernel_costs
from nas.hardware.profile import Profile, load_profile
from nas.manifest import Options, now, open_manifest
from nas.network.integer import load_integer_model
from nas.progress import Progress, clock
from nas.report.page import write_report
from nas.run_folder import Status, TrialRecord, locked, read_front, write_json
from nas.search.clock import Clock, export_s
from nas.search.engine import Search
from nas.search.finals import Finalist, shipped_file, train_finals
from nas.search.ledger import Ledger
from nas.search.meeting import Meeting, meet
from nas.search.own_space import check_space
from nas.search.rules import OBJECTIVES, Rules, front_of, scored
from nas.search.samplers import sampler_of
from nas.search.shared import Shared
from nas.search.shared_ledger import SharedLedger
from nas.search.study import Study, default_storage, open_study
from nas.search.walk import STANDING, check_walk, descend
from nas.space import problem_of
from nas.training import metrics
from nas.training.scoring import Examined, examine
from nas.training.teacher import Teacher, warning
from nas.training.teaching import Choice, OwnModel, choose_teacher, teacher_of
from nas.training.validation import Judging, about, judging
from nas.training.workers import Pool, bench, check_device, examine_model, pool


def run_search(options: Options) -> Path:
    """Runs, or resumes, a search and returns its run folder.

    Raises:
        NasError: anything that the user can mend, before any work is lost.
        KeyboardInterrupt: Ctrl-C; all that was finished is in the folder.
    """
    began_s = time.monotonic()
    check_runtimes(options)
    check_device(options.train_on)
    profile = load_profile(options.device)
    with Progress(options.quiet) as progress:
        given = open_data(options, progress.status)
    task = given.task
    budget = _budget(options, profile)
    problem = problem_of(task)
    if options.space.file is not None:
        check_space(options.space, problem)
    check_possible(options.space, problem, profile, budget)
    judged = judging(task, options.validation)
    if options.distil == "walk":
        check_walk(judged)
    chosen = choose_teacher(options.teacher, problem)
    begun = (options.out / "run.json").exists() or (options.out / ".lock").exists()
    if options.resume and not begun:
        raise RunError(f"{options.out}: no run.json, so nothing to resume; leave out --resume")
    with locked(options.out), Progress(options.quiet, options.out) as progress:
        manifest = open_manifest(options, task, judged, profile, budget, chosen)
        manifest["task"] = describe(given, options)
        about_data = notes(given, options)
        for line in told(given, options) + about_data:
            progress.say(line)
        if kept := keep(given):
            progress.say(kept)
        rules = Rules(
            options.space,
            problem,
            profile,
            budget,
            options.objectives,
            options.metric,
            None,
            options.seed,
            options.max_latency_ms or DEFAULT_LATENCY_LIMIT_MS,
            judged.kind == "cross",
            options.distil or "logits",
            options.train_on,
        )
        clock_ = Clock(options.budget_s, 0.0, began_s, options.verify)
        session = _Session(options, task, judged, rules, manifest, clock_, progress)
        session.notes += about_data
        ready = bench(judged.kind, options.train_on)
        with pool(options.workers, source_of(given), ready) as workers:
            session.search(workers, chosen)
        session.finish()
    return options.out


def _budget(options: Options, profile: Profile) -> Budget:
    return Budget(
        profile.ram_budget_bytes,
        profile.flash_budget_bytes,
        options.max_latency_ms,
        options.max_weight_bytes,
    )


def check_runtimes(options: Options) -> None:
    """The runtimes, compiler and emulator that the end of a run needs, before its first trial.

    TFLM has wheels for Linux on x86-64 only: elsewhere its absence is told, not refused.
    """
    if not options.verify:
        return
    for module, install in (("onnxruntime", "onnxruntime"), ("ai_edge_litert", "ai-edge-litert")):
        if importlib.util.find_spec(module) is None:
            raise ToolMissing(
                f"{module}: not installed, and needed to verify the front; pip install {install},"
                " or add --no-verify"
            )
    check_tools()
    find_compiler(options.cc)
    check_hook(cache_folder())
    if importlib.util.find_spec("tflite_micro") is None and tflm_has_wheels():
        raise ToolMissing(
            "tflite-micro: not installed, and needed to verify the front; pip install"
            " 'mcu-nas[tflm]', or add --no-verify"
        )


def tflm_has_wheels() -> bool:
    """Whether tflite-micro can be installed from wheels on this machine."""
    return sys.platform == "linux" and os.uname().machine == "x86_64"


class _Session:
    """The phases of one session, in the order in which they run."""

    def __init__(
        self,
        options: Options,
        task: Task,
        judged: Judging,
        rules: Rules,
        manifest: dict[str, Any],
        clock: Clock,
        progress: Progress,
    ) -> None:
        self.options, self.task, self.judged, self.rules = options, task, judged, rules
        self.manifest, self.clock, self.progress = manifest, clock, progress
        self.run = options.out
        self.records: list[TrialRecord] = []
        self.finalists: list[Finalist] = []
        self.front: list[Finalist] = []
        self.examined: list[Examined] = []
        self.notes: list[str] = []

    def search(self, workers: Pool, chosen: Choice) -> None:
        """Everything that needs training processes."""
        say = self.progress.say
        budget = self.rules.budget
        say(
            f"{self.task.name} on {self.rules.profile.name}: {budget.ram_bytes:,} bytes of RAM and"
            f" {budget.flash_bytes:,} of Flash for the model"
        )
        say(f"judged by {about(self.judged)}")
        meeting = self._meet()
        try:
            self._search(workers, chosen, meeting)
        finally:
            if meeting is not None:
                meeting.shared.close()

    def _search(self, workers: Pool, chosen: Choice, meeting: Meeting | None) -> None:
        """The teacher, then everything that it teaches."""
        teacher = self._teacher(workers, chosen, meeting)
        taught = (
            ""
            if teacher is None
            else f", {clock(self.clock.elapsed_s())} of it for the teacher, which is kept"
        )
        self.manifest["teacher"] = {"kind": "none"} if teacher is None else teacher.to_json()
        self.rules = replace(self.rules, teacher=None if teacher is None else teacher.file)
        study = self._open_study(None if meeting is None else meeting.shared)
        search = Search(self.rules, study, workers, self.run, self.clock, self.progress)
        self.records = study.records
        self._seek(search, workers, taught)

    def _seek(self, search: Search, workers: Pool, taught: str) -> None:
        """The search, its final trainings, and what the front scores on test."""
        search.go(self.options.trials)
        trained = search.trained
        if not trained:
            raise RunError(
                f"{self.run}: no network was trained in {clock(self.clock.elapsed_s())}{taught};"
                " give it more --minutes and --resume"
            )
        members = len(front_of(self.rules, scored(trained)))
        self.progress.say(
            f"search: {len(trained)} networks trained, {members} on the front"
            f" ({clock(self.clock.elapsed_s())})"
        )
        spared_s = export_s(members, self.options.workers, self.options.verify)

        def left_s() -> float:
            return self.clock.left_s() - spared_s

        place, walk = (workers, self.run, left_s, self.progress), STANDING
        if self.options.distil == "walk":
            walk = descend(self.rules, trained, *place)
            self.manifest["walk"] = walk.to_json(self.rules.profile)
        study = search.study
        with study.guarded():
            shared = study.shared
            ledger = Ledger(self.run) if shared is None else SharedLedger(self.run, shared)
            self.finalists = train_finals(self.rules, trained, *place, walk, ledger)
        entries = [(f.record.cost, f.val_scores[0]) for f in self.finalists]
        self.front = [self.finalists[i] for i in front_of(self.rules, entries)]
        for member in self.front:
            _fetch(self.run, member, study, ledger)
        self._examine(workers)

    def _examine(self, workers: Pool) -> None:
        """The front's members on test, side by side; one by one if a worker is killed."""
        self.progress.status(f"examining the {len(self.front)} members of the front")
        metric = self.rules.metric
        files = [shipped_file(self.run, finalist) for finalist in self.front]
        try:
            futures = [workers.submit(examine_model, file, metric) for file in files]
            self.examined = [future.result() for future in futures]
        except BrokenProcessPool:
            self.examined = [examine(self.task, load_integer_model(f), metric) for f in files]

    def _meet(self) -> Meeting | None:
        """The study of a server, before anything is trained for it; None without a server."""
        storage, artifacts = self.options.storage, self.options.artifacts
        if storage is None or artifacts is None:
            return None
        objectives = len(self.options.objectives)
        say, show = self.progress.say, self.progress.status
        return meet(storage, artifacts, self.manifest, objectives, say, show)

    def _open_study(self, shared: Shared | None) -> Study:
        """The study, once a teacher exists; only now does the folder become that of a run."""
        options = self.options
        storage = options.storage or default_storage(self.run)
        sampler = sampler_of(options.sampler, self.rules)
        study = open_study(
            storage, options.objectives, sampler, options.seed, options.resume, shared
        )
        if shared is None and study.records and not (self.run / "run.json").exists():
            study.close()
            raise RunError(f"{study.place}: holds the study of another run; choose another --out")
        if self.manifest.setdefault("study", study.identity) != study.identity:
            study.close()  # what is restored must not meet its log
            raise RunError(
                f"{study.place}: is not the study of this run, but was emptied or made anew;"
                " restore it or choose another --out"
            )
        with study.guarded():
            study.begin_with(self.rules.space.starts(self.rules.problem))
        write_json(self.run / "run.json", self.manifest)
        trained = [r for r in study.records if r.status == "trained"]
        self.clock.earlier_s = max(
            self.manifest.get("elapsed_s", 0.0), *(r.finished_s for r in study.records), 0.0
        )
        if options.resume or study.records:
            how = "resumed" if options.resume else "joined"
            gone = clock(self.clock.earlier_s)
            self.progress.say(f"{how}: {len(trained)} networks trained before, in {gone}")
        return study

    def _teacher(self, workers: Pool, chosen: Choice, meeting: Meeting | None) -> Teacher | None:
        """None without distillation."""
        if self.options.distil is None:
            return None

        def show(done: int, wanted: int) -> None:
            gone = clock(self.clock.elapsed_s())
            self.progress.status(f"teacher  {done} of {wanted} members trained  {gone} gone")

        def wait() -> None:
            gone = clock(self.clock.elapsed_s())
            self.progress.status(f"teacher  another run is training it  {gone} gone")

        def make() -> Teacher:
            return teacher_of(self.task, self.judged, self.rules.metric, chosen, workers, show)

        teacher = make() if meeting is None else meeting.teacher(self.run, make, wait)
        self.progress.say(
            f"teacher ({teacher.kind}): {self.rules.metric} {teacher.val_score:.4f} on rows that it"
            f" has not seen ({clock(self.clock.elapsed_s())})"
        )
        own = isinstance(chosen, OwnModel)
        labels = self.task.y[self.task.rows("val") if own else self.judged.held_out]
        useless = warning(teacher, self.rules.metric, labels, self.task.classes)
        if useless is not None:
            self.notes.append(useless)
            self.progress.say(f"warning: {useless}")
        return teacher

    def finish(self) -> None:
        """Front, export, verification, report: nothing is trained any more."""
        self.progress.status("writing the candidates")
        members = list(zip(self.front, self.examined, strict=True))
        deviation = metrics.pooled_deviation([f.val_scores for f in self.finalists if f.scores])
        export_front(self.run, self.task, self.judged, self.rules, members, deviation)
        self._close_manifest(deviation)
        write_briefs(self.run)
        results: list[Verification] = []
        if self.options.verify:
            results = verify_run(
                self.run, None, self.options.workers, self._verified, self.options.cc
            )
            # What is not proved must push nothing off the front, nor its own folder be deleted.
            proved = not any(map(complaint, results))
            dropped = drop_dominated(self.run, self.rules) if proved else 0
            if dropped:
                self.progress.say(
                    f"{dropped} of them left the front: as measured, others are as good or better"
                )
            self._tell_late()
            write_briefs(self.run)  # now with what was proved
            self.manifest["hypervolume"] = delivered_hypervolume(self.run, self.rules)
        self.manifest["ended"] = now()  # not before it is verified; the report shows it
        write_json(self.run / "run.json", self.manifest)
        write_report(self.run)
        require_equal(results)

    def _tell_late(self) -> None:
        """Names the members that keep a latency limit as predicted and not as modelled."""
        limit = self.options.max_latency_ms
        rows = read_front(self.run) if limit else []
        late = [row["id"] for row in rows if limit and float(row["latency_ms"]) > limit]
        if late:
            self.progress.say(
                f"slower on the emulated chip than the limit of {limit:g} ms: {', '.join(late)}"
            )

    def _verified(self, result: Verification) -> None:
        self.progress.status(f"verified {result.id}: {result.verified}")

    def _close_manifest(self, deviation: float | None) -> None:
        counts: list[str] = [record.status for record in self.records]
        statuses = get_args(Status)
        notes = list(self.notes)
        if self.options.verify and importlib.util.find_spec("tflite_micro") is None:
            notes.append("TFLM has no wheels for this platform: candidates stay unverified")
        if self.options.verify:
            notes += _other_compiler(self.options.cc)
        if deviation is None:
            notes.append(
                "no candidate had two final trainings: intervals count the sample size only"
            )
        self.manifest |= {
            "elapsed_s": self.clock.elapsed_s(),
            "trials": {status: counts.count(status) for status in statuses},
            "hypervolume": delivered_hypervolume(self.run, self.rules),
            "hypervolume_reference": dict.fromkeys(OBJECTIVES, 1.0),
            "seed_deviation": deviation,
            "notes": notes,
        }
        write_json(self.run / "run.json", self.manifest)


def _fetch(run: Path, member: Finalist, study: Study, ledger: Ledger) -> None:
    """The model that ships, where another run has trained it."""
    if member.shipped:
        ledger.fetch(member.record.id, member.shipped)
    else:
        study.fetch(member.record.id, shipped_file(run, member))


def _other_compiler(cc: str | None) -> list[str]:
    """What a reader of predictions must know where the C is compiled by another compiler."""
    used, calibrated = find_compiler(cc).version, kernel_costs()["compiler"]
    if used == calibrated:
        return []
    return [
        f"candidates were compiled by {used}, predictions are calibrated for {calibrated}:"
        " nas calibrate measures another one"
    ]

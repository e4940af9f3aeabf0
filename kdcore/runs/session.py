"""The execution of a run: its folder, its journal, and the arms left to train."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from torch import Tensor

from kdcore.contracts.tracker import Tracker
from kdcore.errors import StoppedError
from kdcore.plugin.manager import PluginManager
from kdcore.recipe.build import Builder, versions_used
from kdcore.recipe.graph import StagePlan
from kdcore.recipe.plan import BASELINE, DISTILLED, Plan
from kdcore.runs.arms import compare_lengths, evaluate_arm, settings_of, trained_stages
from kdcore.runs.artifacts import save_participants
from kdcore.runs.callbacks import HookCaller, RunListener
from kdcore.runs.context import RunContext, facts_of, tags_of
from kdcore.runs.extension import Extension, final_state, starting_point
from kdcore.runs.interrupts import Interrupts
from kdcore.runs.journal import RunJournal, Status, flattened
from kdcore.runs.lock import locked
from kdcore.runs.outcome import Outcome, write_outcome
from kdcore.runs.preparation import Prepared, make_folder, prepare
from kdcore.runs.records import FACTS, Facts, outcome_file, read_facts, read_run, record_phases, resumed_facts
from kdcore.runs.state import RunState, check_state, refuse_edited_recipe
from kdcore.runs.summary import Summary, summarise
from kdcore.runs.tracked_metrics import means, metric_group
from kdcore.training.checkpoint import Checkpoints, write_file
from kdcore.training.engine import Engine
from kdcore.training.fabric import OneCpu, gradient_scaler, make_fabric, reset_peak_memory
from kdcore.training.participants import Distiller
from kdcore.training.phases import CHECKPOINTS, CHECKS, EVALUATION, OWN, REPORT, START, TRACKING, Phases
from kdcore.training.settings import Checkpoint
from kdcore.training.step_trace import StepTrace

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class ArmTraining:
    """One arm of a seed, ready to train.

    Args:
        seed: Random seed.
        arm: ``distilled`` or ``baseline``.
        engine: Trains the arm's participants.
        stages: The arm's stages.
        checkpoint: Checkpoint to continue from; None to start from the beginning.
    """

    seed: int
    arm: str
    engine: Engine
    stages: Sequence[StagePlan]
    checkpoint: Checkpoint | None


class RunSession:
    """Context manager that executes a run: locks its folder, and records how it ends.

    Args:
        plan: The validated plan of the run.
        plugins: The loaded plugins.
        listener: Callbacks of the run.
        command: Command line that repeats the run.
        folder: Folder of the run to resume; None for a new run.
        split: Split to evaluate a new run on.
        retrain: Whether a new run trains teachers even if other runs have trained them.
        extends: Folder of the finished run that a new run extends, and the extension; None if it extends none.
        phases: Timer of the run; a new one by default. With a profile, steps of the first arm are traced.
    """

    context: RunContext
    _prepared: Prepared | None

    def __init__(
        self,
        plan: Plan,
        plugins: PluginManager,
        listener: RunListener | None,
        command: Sequence[str] = (),
        folder: Path | None = None,
        split: str = "test",
        retrain: bool = False,
        extends: tuple[Path, Extension] | None = None,
        phases: Phases | None = None,
    ):
        self.phases, self._counted = phases or Phases(), False
        self.plan, self.recipe, self.plugins, self.folder = plan, plan.recipe, plugins, folder
        if folder:
            state = RunState.read(folder)
            command, split, retrain = state.command, state.split, state.retrain
        self.command, self.split, self.retrain = tuple(command), split, retrain
        self.extends = extends
        self.listener = HookCaller(listener or RunListener(), plugins)
        self.builder = Builder(plan.recipe, plugins)
        self.scaler = gradient_scaler(plan.recipe.engine)
        self.engine: Engine | None = None
        self.interrupts = Interrupts(lambda line: self.listener.say(line), self._ask_to_stop)
        self.tracker = Tracker()
        self.journal: RunJournal | None = None  # stays None in all processes except the first
        self._stack = ExitStack()

    @cached_property
    def fabric(self) -> Fabric:
        """Devices, precision, processes."""
        with self.phases.during(START):
            return make_fabric(self.recipe.engine, self.scaler)

    def prepare(self, fabric: Fabric | OneCpu) -> Prepared:
        """Read the data, and check the run on a few batches. Writes nothing to the run's folder."""
        self.tracker = self.plugins.hook.open_tracker(recipe=self.recipe, say=self.listener.say) or Tracker()
        known = self.folder or (self.extends[0] if self.extends else None)
        with self.phases.during(CHECKS):
            reading = self.listener.reading if fabric.is_global_zero else RunListener().reading
            return prepare(self.plan, self.builder, fabric, self.split, known, reading, self.phases)

    @property
    def writes(self) -> bool:
        """True if this process writes the run's files: the first of a distributed run."""
        return self.fabric.is_global_zero

    def __enter__(self) -> RunSession:
        with ExitStack() as stack:
            if self.folder and self.writes:
                stack.enter_context(locked(self.folder))
            prepared = self._prepared = self.prepare(self.fabric)
            self._answerless = prepared.found.answerless
            if not self.writes:  # show the progress of one process only
                self.listener = HookCaller(RunListener(), self.plugins)
            if self.folder is None:
                self.folder = make_folder(self.plan, self.fabric, self.command, self.split, self.retrain, self.extends)
                if self.writes:
                    stack.enter_context(locked(self.folder))
            stack.callback(self._keep_phases)
            self.state, self.checkpoints = RunState.read(self.folder), Checkpoints(self.folder / "checkpoints")
            if self.writes:
                experiment = self.recipe.tracking.experiment or self.recipe.name
                self.journal = RunJournal(self.folder / "tracking", self.tracker, experiment)
                stack.callback(self.journal.close)
                stack.callback(self.phases.enter, TRACKING)
                refuse_edited_recipe(self.plan.filled, self.journal.file, self.folder)
            self.context = RunContext(
                self.recipe, self.folder, prepared.assembly, prepared.table, self.plugins.hook, self.split,
                versions_used(self.recipe, self.plugins), self.command, self.journal,
            )  # fmt: skip
            self._checkpoint = self._resume_point()
            stack.enter_context(self.interrupts.watched())
            self._begin()
            self._stack = stack.pop_all()
        self.phases.enter(OWN)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        assert self.folder is not None
        with self._stack:
            if isinstance(error, StoppedError):
                stopped = self.interrupts.error(f"stopped; everything is saved: kdcore resume {self.folder.name}")
                self._record_stop("KILLED", stopped)
                raise stopped from None
            if isinstance(error, KeyboardInterrupt) and self.interrupts.by_keyboard:
                self._record_stop("KILLED", error)
            elif error is not None:  # plugins can raise any exception, even SystemExit
                self._record_stop("FAILED", error)
            elif self.interrupts.requested:  # too late to stop this run, but a command with several runs must stop
                raise self.interrupts.error(
                    f"stopped after the run was finished: kdcore resume {self.folder.name} shows its results"
                )

    def arms(self) -> Iterator[ArmTraining]:
        """Yield the arms left to train; the code after ``yield`` evaluates and saves the arm when the loop resumes."""
        for seed, arm in self._pending():
            if self.interrupts.requested:
                raise StoppedError("")
            distiller = self._distiller(seed, arm)
            self.engine = engine = self._engine(distiller, seed, arm)
            engine.stop_requested = self.interrupts.requested
            stages = self.plan.stages[arm]
            self.listener.arm_started(seed, arm if self.plan.distilled else "", stages)
            with self.phases.during(TRACKING):
                self.plugins.hook.arm_started(run=self.context, seed=seed, arm=arm)
            reset_peak_memory(self.fabric.device)
            began = time.monotonic()
            yield ArmTraining(seed, arm, engine, stages, self._checkpoint_of(seed, arm))
            seconds = time.monotonic() - began
            notes = [*engine.notes, *(self._note_training(engine, seed, arm) if self.writes else ())]
            self.phases.trace = None
            distiller = engine.shards.joined(distiller, lambda seed=seed, arm=arm: self._distiller(seed, arm))
            with self.phases.during(EVALUATION):
                where = self.context.table, self.split, self.recipe.data.batch_size, self.fabric
                outcome = evaluate_arm(arm, distiller, *where, seconds, notes, self._answerless)
            if self.writes:
                with self.phases.during(CHECKPOINTS):
                    self._save(distiller, seed, outcome)
                self.state.done.append((seed, arm))
                self._settle()
                self.checkpoints.clear()
            self.fabric.barrier()

    def conclude(self) -> tuple[Summary, Path | None]:
        """Summarise all seeds, and let plugins write reports. Reports of a complete run are only written again."""
        summary = summarise(self.recipe, read_run(self.context.folder), self.tracker.describe())
        with self.phases.during(REPORT):
            report = self.plugins.hook.write_report(run=self.context, summary=summary)
        if report is None:
            self.listener.say("no report was written: the plugin 'report' is not in use")
        if not self.state.complete:
            assert self.journal is not None
            self.journal.metrics("root", means(summary), 0)
            with self.phases.during(TRACKING):
                self.plugins.hook.run_finished(run=self.context, summary=summary, report=report)
            for name in [f"seed-{seed}" for seed in self.recipe.seeds] + ["root"]:
                self.journal.finish(name)
            self.state.complete = True
            self._settle()
        return summary, report

    def _pending(self) -> list[tuple[int, str]]:
        arms = [(seed, arm) for seed in self.recipe.seeds for arm in self.plan.arms]
        return [each for each in arms if each not in self.state.done]

    def _resume_point(self) -> Checkpoint | None:
        """Load the checkpoint to resume from, and cut the journal back to the position of that checkpoint."""
        loaded = self.checkpoints.load()
        if loaded:
            check_state(loaded[1], self.checkpoints.folder)
        if loaded and (loaded[1]["seed"], loaded[1]["arm"]) in self.state.done:
            loaded = None
        if self.journal:
            self.journal.rewind(loaded[1]["journal"] if loaded else self.state.journal)
        return loaded

    def _checkpoint_of(self, seed: int, arm: str) -> Checkpoint | None:
        """The checkpoint to start an arm from: that of the resumed run (once), or the final state of the extended run."""
        found, self._checkpoint = self._checkpoint, None
        if found and [found[1]["seed"], found[1]["arm"]] == [seed, arm]:
            return found
        if not self.state.extends:
            return None
        start, curves = starting_point(self.context.folder, seed, arm)
        if self.journal:
            for step, values in curves:
                self.journal.metrics(f"seed-{seed}", values, step)
        return start

    def _distiller(self, seed: int, arm: str) -> Distiller:
        """Construct the participants of an arm; the first arm reuses those that were constructed for the checks."""
        prepared, self._prepared = self._prepared, None
        if prepared and (seed, arm) == (self.recipe.seeds[0], DISTILLED):
            return prepared.distiller
        return self.context.assembly.distiller(self.context.table, seed, arm, self.fabric.device)

    def _begin(self) -> None:
        """Write the run's facts, and start its record in the tracker."""
        run = self.context
        if self.state.complete:
            if self.journal:
                self.journal.commit()
            return
        if self.journal:
            if type(self.tracker) is Tracker:
                self.listener.say(
                    f"nothing is tracked: the plugin 'mlflow' is not in use; metrics are in {self.journal.folder}"
                )
            for note in run.assembly.notes:
                self.listener.say(note)
            if self.plan.unread and not self.plan.recipe.fusion:
                self.listener.say(f"no student learns from {', '.join(self.plan.unread)}: no term of its objective reads it")
            mine = read_facts(run.folder)
            phases = mine.phases if mine else {}
            self.phases.add(phases)
            self._counted = True
            before = mine or (read_facts(self.extends[0]) if self.extends else None)
            facts = replace(self._extended(resumed_facts(facts_of(run), before)), phases=phases)
            write_file(run.folder / FACTS, facts.content())
            for note in facts.resumed:
                self.listener.say(note)
            self.journal.start(
                "root", self.recipe.name, None, tags_of(run, self.state.extends.get("run", "")), flattened(self.plan.filled)
            )
        with self.phases.during(TRACKING):
            self.plugins.hook.run_started(run=run)
        if self.journal:
            self.journal.commit()

    def _extended(self, facts: Facts) -> Facts:
        """Add the run that this one extends to the facts."""
        if not self.state.extends:
            return facts
        lines = Extension(**self.state.extends).lines()
        for line in lines:
            self.listener.say(line)
        return replace(facts, extends=self.state.extends, notes=[*facts.notes, *lines])

    def _record_stop(self, status: Status, error: BaseException) -> None:
        """Record that the run was interrupted, and discard records that a resumed run will repeat."""
        self.plugins.hook.run_failed(run=self.context, error=error)
        if self.journal is None:
            return
        self.journal.rewind(self.journal.position)
        unfinished = {seed for seed, _ in self._pending()}
        whole = {f"seed-{seed}" for seed in self.recipe.seeds if seed not in unfinished}
        for name in self.journal.under_way():
            self.journal.finish(name, "FINISHED" if name in whole else status)
        self.journal.commit()

    def _ask_to_stop(self) -> None:
        if self.engine:
            self.engine.stop_requested = True

    def _engine(self, distiller: Distiller, seed: int, arm: str) -> Engine:
        run, child, journal = self.context, f"seed-{seed}", self.journal
        prefix = "" if arm == DISTILLED else f"{BASELINE}/"
        if journal:
            params = {**flattened(self.plan.filled), "seed": seed}  # all params, so that trackers can compare seeds across runs
            journal.start(child, f"{self.recipe.name} seed {seed}", "root", {"seed": seed}, params)

        def record(metrics: Mapping[str, float], step: int) -> None:
            if journal:
                with self.phases.during(TRACKING):
                    journal.metrics(child, {f"{prefix}{name}": value for name, value in metrics.items()}, step)

        trained = trained_stages(self.plan, seed, self.retrain)
        save, finish, table = self._saver(seed, arm), self._finisher(seed, arm), self.context.table
        if self.phases.profile and self.writes and [seed, arm] == [self.recipe.seeds[0], self.plan.arms[0]]:
            self.phases.trace = StepTrace(run.folder / "profile", f"seed-{seed}-{arm}")
        return Engine(
            self.fabric, distiller, table, settings_of(self.recipe, seed), record, save, self.listener, trained, self.scaler,
            finish, self.phases,
        )  # fmt: skip

    def _finisher(self, seed: int, arm: str) -> Callable[[Mapping[str, Tensor], Mapping[str, Any]], None]:
        """Return the callback that stores the final state of an arm, for extensions."""

        def finish(weights: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
            if self.writes and self.recipe.engine.keep_final_state:
                Checkpoints(final_state(self.context.folder, seed, arm), keep=1).save(weights, state)

        return finish

    def _saver(self, seed: int, arm: str) -> Callable[[Mapping[str, Tensor], Mapping[str, Any]], None]:
        def save(weights: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
            if self.journal:
                position = self.journal.flush()
                self.checkpoints.save(weights, {**state, "seed": seed, "arm": arm, "journal": position})
                self.journal.commit()
            self.fabric.barrier()

        return save

    def _save(self, distiller: Distiller, seed: int, outcome: Outcome) -> None:
        """Save an arm's predictions and weights, and record its metrics."""
        assert self.journal is not None
        child, run = f"seed-{seed}", self.context
        write_outcome(outcome_file(run.folder, seed, outcome.arm), outcome)
        for name, evaluation in outcome.evaluations().items():
            group = metric_group(self.split, outcome, name, self.plan.students, self.plan.distilled)
            self.journal.metrics(child, {f"{group}/{metric}": value for metric, value in evaluation.metrics().items()}, 0)
        digests = save_participants(run, distiller, seed, outcome.arm, outcome.students)
        if digests:
            self.journal.tags(child, {f"teacher.{name}": digest for name, digest in digests.items()})
        self.plugins.hook.arm_finished(run=run, seed=seed, arm=outcome.arm, outcome=outcome)

    def _note_training(self, engine: Engine, seed: int, arm: str) -> list[str]:
        """Record each student's epochs and steps, and compare those of the baseline with the distilled arm; returns notes.

        Raises:
            TrainingError: If a student's epochs or steps differ between the arms, and neither ended early.
        """
        learners, students = engine.learners.items(), self.plan.students
        mine = {name: (each.epochs, each.steps, each.ended) for name, each in learners if name in students}
        self.state.trained[f"{seed}/{arm}"] = mine
        distilled, extra = self.state.trained.get(f"{seed}/{DISTILLED}", {}), self.plan.extra_epochs
        said = compare_lengths(distilled, mine, extra) if arm == BASELINE else []
        for sentence in said:
            self.listener.say(f"seed {seed}: {sentence}")
        return said

    def _keep_phases(self) -> None:
        """Write the timings so far to the run's record, unless the run was complete before."""
        self.phases.end_stage()
        if self.folder and self._counted:
            record_phases(self.folder, self.phases.listed())

    def _settle(self) -> None:
        """Commit everything recorded so far: write the state, then commit the journal up to the same position."""
        assert self.journal is not None
        self._keep_phases()
        self.state.journal = self.journal.flush()
        write_file(self.state.path, self.state.content())
        self.journal.commit()

"""The course of a run: open its folder, train and evaluate its arms one after another, and summarise the results."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from torch import Tensor

from kdcore.contracts.tracker import Tracker
from kdcore.errors import StoppedError
from kdcore.plugin.error_attribution import exits_attributed
from kdcore.plugin.manager import PluginManager
from kdcore.recipe.build import Builder, versions_used
from kdcore.recipe.plan import BASELINE, DISTILLED, Plan
from kdcore.runs.arms import compare_lengths, evaluate_arm, settings_of, trained_stages
from kdcore.runs.callbacks import Callbacks, PluginHooks, RunListener
from kdcore.runs.context import RunContext
from kdcore.runs.extension import final_state, starting_point
from kdcore.runs.interrupts import Interrupts
from kdcore.runs.journal import RunJournal, Status
from kdcore.runs.lock import locked
from kdcore.runs.preparation import Prepared, prepare
from kdcore.runs.recorder import RunRecorder
from kdcore.runs.records import read_facts, read_run
from kdcore.runs.result import Result
from kdcore.runs.run_folder import make_folder
from kdcore.runs.state import RunState, check_state, refuse_edited_recipe
from kdcore.runs.summary import summarise
from kdcore.training.checkpoint import Checkpoint, Checkpoints
from kdcore.training.engine import Engine
from kdcore.training.fabric import gradient_scaler, make_fabric, reset_peak_memory
from kdcore.training.participants import Distiller
from kdcore.training.phases import CHECKPOINTS, CHECKS, EVALUATION, OWN, REPORT, START, TRACKING, Phases, in_order
from kdcore.training.process_check import ProcessCheck
from kdcore.training.randomness import preserved_torch
from kdcore.training.step_trace import StepTrace

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def execute(session: RunSession) -> Result | None:
    """Train and evaluate the arms of a run that are left, and summarise it.

    Random states and PyTorch's global settings are restored. Only the first process of a distributed run returns a result.
    """
    with preserved_torch(), exits_attributed(session.plugins), session:
        for seed, arm in session.pending():
            engine, checkpoint = session.start_arm(seed, arm)
            began = time.monotonic()
            engine.fit(session.plan.stages[arm], checkpoint)
            session.finish_arm(seed, arm, engine, time.monotonic() - began)
        result = session.conclude()
    if result:  # complete only now, because closing the tracker takes time and waits for the ids of its runs
        result.run_ids = session.tracker.run_ids()
        facts = read_facts(result.folder)
        result.phases = in_order(facts.phases) if facts else {}
        result.traces = sorted((result.folder / "profile").glob("*.json"))
    return result


class RunSession:
    """Context manager that executes a run: locks its folder, and records how it ends.

    Args:
        plan: The validated plan of the run.
        plugins: The loaded plugins.
        listener: Callbacks of the run.
        state: Arguments and progress of the run.
        folder: Folder of the run to resume; None for a new run.
        extended: Folder of the finished run that a new run extends; None if it extends none.
        phases: Timer of the run; a new one by default. With a profile, steps of the first arm are traced.

    Attributes:
        context: The run, as hooks see it.
        recorder: Records the run; None in all processes of a distributed run except the first.
    """

    context: RunContext
    _prepared: Prepared | None

    def __init__(
        self,
        plan: Plan,
        plugins: PluginManager,
        listener: RunListener,
        state: RunState,
        folder: Path | None = None,
        extended: Path | None = None,
        phases: Phases | None = None,
    ):
        self.plan, self.recipe, self.plugins = plan, plan.recipe, plugins
        self.state, self.folder, self.extended = state, folder, extended
        self.listener = Callbacks([PluginHooks(plugins), listener])
        self.phases = phases or Phases()
        self.builder = Builder(plan.recipe, plugins)
        self.scaler = gradient_scaler(plan.recipe.engine)
        self.interrupts = Interrupts(lambda line: self.listener.say(line), self._ask_to_stop)
        self.tracker, self.process_check = Tracker(), ProcessCheck()
        self.recorder: RunRecorder | None = None
        self._engine: Engine | None = None
        self._open = ExitStack()

    @cached_property
    def fabric(self) -> Fabric:
        """Devices, precision, processes."""
        with self.phases.during(START):
            return make_fabric(self.recipe.engine, self.scaler)

    @property
    def is_first(self) -> bool:
        """True in the first process of a distributed run, which alone writes the run's files and shows progress."""
        return self.fabric.is_global_zero

    def prepare(self) -> Prepared:
        """Read the data, and check the run on a few batches. Writes nothing to the run's folder."""
        self.tracker = self.plugins.hook.open_tracker(recipe=self.recipe, say=self.listener.say) or Tracker()
        reading = self.listener.reading if self.is_first else RunListener().reading
        with self.phases.during(CHECKS):
            return prepare(
                self.plan, self.builder, self.fabric, self.state.split, self.folder or self.extended, reading, self.phases
            )

    def __enter__(self) -> RunSession:
        with ExitStack() as stack:
            if self.folder:
                self._lock(stack, self.folder)
            prepared = self._prepared = self.prepare()
            self._answerless = prepared.checks.answerless
            if not self.is_first:
                self.listener = Callbacks([PluginHooks(self.plugins)])
            if not self.folder:  # created after the checks, so that an invalid run leaves nothing behind
                self.folder = make_folder(self.plan, self.fabric, self.state, self.extended)
                self._lock(stack, self.folder)
            stack.callback(self._end_phases)
            self._open_records(stack, self.folder, prepared)
            stack.enter_context(self.interrupts.watched())
            self._begin()
            self._open = stack.pop_all()
        self.phases.enter(OWN)
        return self

    def _lock(self, stack: ExitStack, folder: Path) -> None:
        if self.is_first:
            stack.enter_context(locked(folder))

    def _open_records(self, stack: ExitStack, folder: Path, prepared: Prepared) -> None:
        """Read the run's state and checkpoint, now that its folder is locked, and open its journal."""
        self.state, self.checkpoints = RunState.read(folder), Checkpoints(folder / "checkpoints")
        journal = None
        if self.is_first:
            journal = RunJournal(folder / "tracking", self.tracker, self.recipe.tracking.experiment or self.recipe.name)
            stack.callback(journal.close)
            stack.callback(self.phases.enter, TRACKING)
            refuse_edited_recipe(self.plan.filled, journal.file, folder)
        self.context = RunContext(
            recipe=self.recipe,
            folder=folder,
            assembly=prepared.assembly,
            table=prepared.table,
            hook=self.plugins.hook,
            split=self.state.split,
            versions=versions_used(self.recipe, self.plugins),
            command=self.state.command,
            journal=journal,
        )
        if journal:
            self.recorder = RunRecorder(self.context, self.state, self.checkpoints, self.listener, self.phases)
        self._checkpoint = self._resume_point(journal)

    def _resume_point(self, journal: RunJournal | None) -> Checkpoint | None:
        """Load the checkpoint to resume from, and cut the journal back to the position of that checkpoint."""
        checkpoint = self.checkpoints.load()
        if checkpoint:
            check_state(checkpoint.state, self.checkpoints.folder)
            if _arm_of(checkpoint) in self.state.done:
                checkpoint = None
        if journal:
            journal.rewind(checkpoint.state["journal"] if checkpoint else self.state.journal)
        return checkpoint

    def _begin(self) -> None:
        """Begin the record of the run, unless it was complete before."""
        if not self.state.complete:
            if self.recorder:
                self.recorder.begin(self.extended)
            with self.phases.during(TRACKING):
                self.plugins.hook.run_started(run=self.context)
        if self.recorder:
            self.recorder.journal.commit()

    def pending(self) -> list[tuple[int, str]]:
        """The (seed, arm) pairs left to train."""
        arms = [(seed, arm) for seed in self.recipe.seeds for arm in self.plan.arms]
        return [each for each in arms if each not in self.state.done]

    def start_arm(self, seed: int, arm: str) -> tuple[Engine, Checkpoint | None]:
        """Construct the engine that trains an arm, and load the checkpoint to continue from; None to start from the beginning.

        Raises:
            StoppedError: If a stop was requested.
        """
        if self.interrupts.requested:
            raise StoppedError("")
        engine = self._engine = self._make_engine(seed, arm)
        engine.stop_requested = self.interrupts.requested
        self.listener.arm_started(seed, arm if self.plan.distilled else "", self.plan.stages[arm])
        with self.phases.during(TRACKING):
            self.plugins.hook.arm_started(run=self.context, seed=seed, arm=arm)
        reset_peak_memory(self.fabric.device)
        return engine, self._checkpoint_of(seed, arm)

    def _make_engine(self, seed: int, arm: str) -> Engine:
        recorder = self.recorder
        distiller = self._distiller(seed, arm)
        if recorder:
            recorder.begin_seed(seed)
            if self.phases.profile and (seed, arm) == (self.recipe.seeds[0], self.plan.arms[0]):
                self.phases.trace = StepTrace(self.context.folder / "profile", f"seed-{seed}-{arm}")

        def record(metrics: Mapping[str, float], step: int) -> None:
            if recorder:
                with self.phases.during(TRACKING):
                    recorder.metrics(seed, arm, metrics, step)

        def save(weights: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
            if recorder:
                recorder.save_checkpoint(seed, arm, weights, state)
            self.fabric.barrier()

        def finish(weights: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
            if recorder and self.recipe.engine.keep_final_state:
                Checkpoints(final_state(self.context.folder, seed, arm), keep=1).save(weights, state)

        return Engine(
            self.fabric,
            distiller,
            self.context.table,
            settings_of(self.recipe, seed),
            record=record,
            save=save,
            finish=finish,
            listener=self.listener,
            trained=trained_stages(self.plan, seed, self.state.retrain),
            scaler=self.scaler,
            phases=self.phases,
            process_check=self.process_check,
        )

    def _distiller(self, seed: int, arm: str) -> Distiller:
        """Construct the participants of an arm; the first arm reuses those that were constructed for the checks."""
        prepared, self._prepared = self._prepared, None
        if prepared and (seed, arm) == (self.recipe.seeds[0], DISTILLED):
            return prepared.distiller
        return self.context.assembly.distiller(self.context.table, seed, arm, self.fabric.device)

    def _checkpoint_of(self, seed: int, arm: str) -> Checkpoint | None:
        """The checkpoint to start an arm from: that of the resumed run (once), or the final state of the extended run."""
        checkpoint, self._checkpoint = self._checkpoint, None
        if checkpoint and _arm_of(checkpoint) == (seed, arm):
            return checkpoint
        if not self.state.extends:
            return None
        checkpoint, curves = starting_point(self.context.folder, seed, arm)
        if self.recorder:
            for step, values in curves:
                self.recorder.journal.metrics(f"seed-{seed}", values, step)
        return checkpoint

    def finish_arm(self, seed: int, arm: str, engine: Engine, seconds: float) -> None:
        """Evaluate an arm that was trained for `seconds`, save it, and commit the record."""
        notes = [*engine.notes, *(self._note_lengths(seed, arm, engine) if self.is_first else ())]
        self.phases.trace = None
        distiller = engine.shards.joined(engine.distiller, lambda: self._distiller(seed, arm))
        with self.phases.during(EVALUATION):
            outcome = evaluate_arm(self.context, self.fabric, arm, distiller, seconds, notes, self._answerless)
        if self.recorder:
            with self.phases.during(CHECKPOINTS):
                self.recorder.save_arm(distiller, seed, outcome)
            self._keep(distiller, seed, arm)
            self.state.done.append((seed, arm))
            self.recorder.commit()
            self.checkpoints.clear()
        self.fabric.barrier()

    def _keep(self, distiller: Distiller, seed: int, arm: str) -> None:
        """Keep the participants of the first seed for the report, off the device and without gradients.

        Not those that `torch.compile` or DDP has changed: plugins may register hooks on modules, and compute gradients.
        """
        if seed == self.recipe.seeds[0] and self.fabric.world_size == 1 and not self.recipe.engine.compile:
            distiller.zero_grad()
            self.context.trained[seed, arm] = distiller.cpu().eval()

    def _note_lengths(self, seed: int, arm: str, engine: Engine) -> list[str]:
        """Store each student's epochs and steps, and compare those of the baseline with the distilled arm; returns notes.

        Raises:
            TrainingError: If a student's epochs or steps differ between the arms, and neither ended early.
        """
        students = {name: learner for name, learner in engine.learners.items() if name in self.plan.students}
        lengths = {name: (each.epochs, each.steps, each.ended) for name, each in students.items()}
        self.state.trained[f"{seed}/{arm}"] = lengths
        if arm != BASELINE:
            return []
        notes = compare_lengths(self.state.trained.get(f"{seed}/{DISTILLED}", {}), lengths, self.plan.extra_epochs)
        for note in notes:
            self.listener.say(f"seed {seed}: {note}")
        return notes

    def conclude(self) -> Result | None:
        """Summarise all seeds, and let plugins write a report. If the run was complete before, only the report is rewritten."""
        if not self.recorder:
            return None
        summary = summarise(self.recipe, read_run(self.context.folder))
        with self.phases.during(REPORT):
            report = self.plugins.hook.write_report(run=self.context, summary=summary)
        if report is None:
            self.listener.say("no report was written: the plugin 'report' is not in use")
        if not self.state.complete:
            self.checkpoints.clear()  # again, in case the process that trained the last arm was killed before it did
            self.recorder.finish(summary, report)
        return Result(summary, self.context.folder, report, summary.tracking)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        name = self.context.folder.name
        with self._open:
            if isinstance(error, StoppedError):
                stopped = self.interrupts.error(f"stopped; everything is saved: kdcore resume {name}")
                self._record_stop("KILLED", stopped)
                raise stopped from None
            if isinstance(error, KeyboardInterrupt) and self.interrupts.by_keyboard:
                self._record_stop("KILLED", error)
            elif error is not None:  # plugins can raise any exception, even SystemExit
                self._record_stop("FAILED", error)
            elif self.interrupts.requested:  # too late to stop this run, but a command with several runs must stop
                raise self.interrupts.error(f"stopped after the run was finished: kdcore resume {name} shows its results")

    def _record_stop(self, status: Status, error: BaseException) -> None:
        self.plugins.hook.run_failed(run=self.context, error=error)
        if self.recorder:
            self.recorder.interrupt(status, {seed for seed, _ in self.pending()})

    def _end_phases(self) -> None:
        self.phases.end_stage()
        if self.recorder:
            self.recorder.record_phases()

    def _ask_to_stop(self) -> None:
        if self._engine:
            self._engine.stop_requested = True


def _arm_of(checkpoint: Checkpoint) -> tuple[int, str]:
    return checkpoint.state["seed"], checkpoint.state["arm"]

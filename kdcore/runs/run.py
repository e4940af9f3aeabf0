"""Run a recipe: load, build, train each seed and arm, evaluate, summarise."""

from __future__ import annotations

import shlex
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from kdcore import __version__
from kdcore.cache import cache_folder
from kdcore.contracts.tracker import Tracker
from kdcore.data.table import Table
from kdcore.errors import CheckpointError, StoppedError
from kdcore.plugin.manager import PluginManager, plugin_manager
from kdcore.recipe.build import Builder, versions_used
from kdcore.recipe.load import load_recipe
from kdcore.recipe.models import Recipe
from kdcore.runs.artifacts import save_participants
from kdcore.runs.callbacks import HookCaller, RunListener
from kdcore.runs.context import RunContext, facts_of
from kdcore.runs.journal import Journal, RunJournal, Status, as_params
from kdcore.runs.lock import locked
from kdcore.runs.outcome import Outcome, write_outcome
from kdcore.runs.paths import find_run
from kdcore.runs.preparation import Prepared, make_folder, prepare
from kdcore.runs.records import FACTS, outcome_file, read_run, recipe_of
from kdcore.runs.state import RunState, check_state
from kdcore.runs.summary import Summary, flattened, means, metric_prefix, summarise
from kdcore.training.assembly import BASELINE, DISTILLED, parameter_counts
from kdcore.training.checkpoint import Checkpoints, write_file
from kdcore.training.engine import Engine, Settings
from kdcore.training.evaluation import predict
from kdcore.training.fabric import gradient_scaler, make_fabric, most_memory
from kdcore.training.participants import Distiller
from kdcore.training.preflight import Preflight
from kdcore.training.trained_teachers import TrainedStages


@dataclass
class Result:
    """What a finished run leaves.

    Args:
        summary: Its results.
        folder: Where its files are.
        report: The file that a plugin wrote for people to read; None without such a plugin.
        tracking: How to look at what was tracked; empty if nothing was.
        run_ids: Local name of a run → its id with the tracker.
    """

    summary: Summary
    folder: Path
    report: Path | None = None
    tracking: str = ""
    run_ids: Mapping[str, str] = field(default_factory=dict)


def run(
    source: str | Path,
    overrides: Sequence[str] = (),
    listener: RunListener | None = None,
    command: Sequence[str] = (),
    part: Literal["test", "validation"] = "test",
    retrain: bool = False,
) -> Result | None:
    """Run a recipe from the start. Returns None in all processes of a distributed run but the first.

    Args:
        source: A recipe's path, or the name of a shipped one.
        overrides: ``key=value`` each.
        listener: Told how it goes.
        command: What a person types to repeat it.
        part: What to evaluate on. With ``validation``, test samples are never looked at: for choosing among recipes.
        retrain: Train teachers even if other runs have trained them (`engine.reuse_teachers`).

    Raises:
        KdcoreError: With a message for the user; nothing is written if the recipe or the data are at fault.
    """
    plugins = plugin_manager()
    return _Run(load_recipe(source, overrides, plugins), plugins, listener, command, part=part, retrain=retrain).execute()


def resume(run_id: str, listener: RunListener | None = None) -> Result | None:
    """Resume an interrupted run, to the same end as if it had not been interrupted.

    Raises:
        CheckpointError: If there is no such run, or its checkpoint cannot be trusted.
    """
    folder = find_run(run_id)
    plugins = plugin_manager()
    state = RunState.read(folder)
    return _Run(recipe_of(folder, plugins), plugins, listener, state.command, folder).execute()


def refuse_edited_recipe(recipe: Recipe, journal: Journal, folder: Path) -> None:
    """Check that a run is resumed with the recipe that it began with.

    Raises:
        CheckpointError: If the recipe in its folder was edited; names the options that differ.
    """
    began = next((record["values"] for _, record in journal.read(0) if record["kind"] == "params"), None)
    if began is None:
        return
    now = as_params(flattened(recipe.filled()))
    names = [name for name in dict.fromkeys([*began, *now]) if not name.startswith("plugins")]
    changed = [f"{name} was {began.get(name)}, is {now.get(name)}" for name in names if began.get(name) != now.get(name)]
    if changed:
        more = f", and {len(changed) - 5} more" if len(changed) > 5 else ""
        raise CheckpointError(
            f"{folder / 'recipe.yaml'} is not the recipe that this run began with: {'; '.join(changed[:5])}{more}; "
            f"undo the change, or start another run: kdcore run {folder / 'recipe.yaml'}"
        )


def dry_run(
    source: str | Path,
    overrides: Sequence[str] = (),
    listener: RunListener | None = None,
    part: Literal["test", "validation"] = "test",
) -> Preflight | None:
    """One batch through everything: shapes, terms, gradients. Trains nothing, and writes nothing but prepared data.

    Returns None in all processes of a distributed run but the first.
    """
    plugins = plugin_manager()
    return _Run(load_recipe(source, overrides, plugins), plugins, listener, (), part=part).rehearse()


Checkpoint = tuple[dict[str, Tensor], dict[str, Any]]
"""Weights, and the state that goes with them."""


class _Run:
    """One recipe being run.

    Args:
        recipe: Checked by the loader.
        plugins: Who provides its components.
        listener: Told how it goes.
        command: What a person types to repeat it.
        folder: Of the run to go on with; None for a new one.
        part: Of the split, to evaluate a new one on.
        retrain: Take no teachers that other runs have trained.
    """

    def __init__(
        self,
        recipe: Recipe,
        plugins: PluginManager,
        listener: RunListener | None,
        command: Sequence[str],
        folder: Path | None = None,
        part: str = "test",
        retrain: bool = False,
    ):
        self.recipe, self.plugins, self.command, self.folder = recipe, plugins, tuple(command), folder
        if folder:
            state = RunState.read(folder)
            part, retrain = state.part, state.retrain
        self.part, self.retrain = part, retrain
        self.listener = HookCaller(listener or RunListener(), plugins)
        self.builder = Builder(recipe, plugins)
        self.scaler = gradient_scaler(recipe.engine)
        self.fabric = make_fabric(recipe.engine, self.scaler)
        self.engine: Engine | None = None
        self.stop_requested, self.stop_signal = False, 0
        self.tracker = Tracker()
        self.journal: RunJournal | None = None  # in all processes but the first

    def rehearse(self) -> Preflight | None:
        """What one batch shows, for a dry run."""
        found = self._prepare().found
        return found if self._writes else None

    def execute(self) -> Result | None:
        """Train what is not trained yet, evaluate, and report."""
        with ExitStack() as stack:
            if self.folder and self._writes:
                stack.enter_context(locked(self.folder))
            return self._execute(stack)

    def _execute(self, stack: ExitStack) -> Result | None:
        prepared = self._prepare()
        if not self._writes:  # what all processes do alike is told by one
            self.listener = HookCaller(RunListener(), self.plugins)
        if self.folder is None:
            self.folder = make_folder(self.recipe, self.fabric, self.command, self.part, self.retrain)
            if self._writes:
                stack.enter_context(locked(self.folder))
        self.state, self.checkpoints = RunState.read(self.folder), Checkpoints(self.folder / "checkpoints")
        if self._writes:
            experiment = self.recipe.tracking.experiment or self.recipe.name
            self.journal = RunJournal(self.folder / "tracking", self.tracker, experiment)
            refuse_edited_recipe(self.recipe, self.journal.file, self.folder)
        context = self._context(prepared, self.folder)
        pending = self._resume_point()
        result = None
        try:
            with self._stoppable():
                self._begin(context)
                for seed, arm in self._pending_arms(context):
                    self._train(context, seed, arm, pending)
                    pending = None
                if self._writes:
                    result = self._conclude(context)
        except StoppedError:
            stopped = self._stopped(f"stopped; everything is saved: kdcore resume {self.folder.name}")
            self._record_stop("KILLED", context, stopped)
            raise stopped from None
        except Exception as error:  # a plugin at work may raise anything
            self._record_stop("FAILED", context, error)
            raise
        finally:
            if self.journal:
                self.journal.close()
        if self.stop_requested:  # too late for this run, but whoever has more of them to do must know
            raise self._stopped(f"stopped, after the run was finished: kdcore resume {self.folder.name} shows what came of it")
        return result

    @property
    def _writes(self) -> bool:
        return self.fabric.is_global_zero

    def _prepare(self) -> Prepared:
        """Check everything before anything is written."""
        found = self.plugins.hook.open_tracker(recipe=self.recipe, say=self.listener.say)
        self.tracker = found or Tracker()
        return prepare(self.builder, self.fabric, self.part, self.folder, self._reading)

    def _reading(self, done: int, total: int, what: str) -> None:
        if self._writes:
            self.listener.reading(done, total, what)

    def _context(self, prepared: Prepared, folder: Path) -> RunContext:
        versions = versions_used(self.recipe, self.plugins)
        return RunContext(
            self.recipe, folder, prepared.assembly, prepared.table, self.plugins.hook, self.part, versions, self.command,
            self.journal,
        )  # fmt: skip

    def _pending_arms(self, run: RunContext) -> list[tuple[int, str]]:
        arms = [(seed, arm) for seed in self.recipe.seeds for arm in run.assembly.arms]
        return [(seed, arm) for seed, arm in arms if [seed, arm] not in self.state.done]

    def _resume_point(self) -> Checkpoint | None:
        """The checkpoint to resume from, with the journal taken back to where it was made."""
        loaded = self.checkpoints.load()
        if loaded:
            check_state(loaded[1], self.checkpoints.folder)
        if loaded and [loaded[1]["seed"], loaded[1]["arm"]] in self.state.done:
            loaded = None
        if self.journal:
            self.journal.rewind(loaded[1]["journal"] if loaded else self.state.journal)
        return loaded

    def _begin(self, run: RunContext) -> None:
        """Record what is run, on what."""
        if self.state.complete:
            if self.journal:
                self.journal.commit()
            return
        if self.journal:
            if type(self.tracker) is Tracker:
                self.listener.say(
                    f"nothing is tracked: the plugin 'mlflow' is not in use; metrics are in {self.journal.folder}"
                )
            write_file(run.folder / FACTS, facts_of(run).content())
            self.journal.start("root", self.recipe.name, None, self._tags(run), flattened(self.recipe.filled()))
        self.plugins.hook.run_started(run=run)
        if self.journal:
            self.journal.commit()

    def _tags(self, run: RunContext) -> dict[str, object]:
        return {
            "recipe": self.recipe.name, "recipe_hash": self.recipe.hash, "run": run.folder.name,
            "kdcore": __version__, "dataset": self.recipe.data.dataset.name,
            "dataset_fingerprint": run.table.fingerprint, "split": run.table.split.rule, "command": shlex.join(run.command),
            "torch": torch.__version__, **{f"plugin.{name}": version for name, version in run.versions.items()},
            **self.recipe.tracking.tags,
        }  # fmt: skip

    def _record_stop(self, status: Status, run: RunContext, error: Exception) -> None:
        """Record that the run stopped short, without what a resumed run records again."""
        self.plugins.hook.run_failed(run=run, error=error)
        if self.journal is None:
            return
        self.journal.rewind(self.journal.position)
        unfinished = {seed for seed, _ in self._pending_arms(run)}
        whole = {f"seed-{seed}" for seed in self.recipe.seeds if seed not in unfinished}
        for name in self.journal.under_way():
            self.journal.finish(name, "FINISHED" if name in whole else status)
        self.journal.commit()

    def _stopped(self, said: str) -> StoppedError:
        error = StoppedError(said)
        error.exit_code = 128 + (self.stop_signal or signal.SIGTERM)
        return error

    @contextmanager
    def _stoppable(self):
        """SIGTERM and Ctrl-C ask to stop: the state is saved, and the process ends cleanly. Ctrl-C again stops at once."""

        def ask(number: int, _: object) -> None:
            if number == signal.SIGINT:
                signal.signal(signal.SIGINT, before[signal.SIGINT])
                self.listener.say("stopping after this step; press Ctrl-C again to stop at once, without saving")
            self.stop_requested, self.stop_signal = True, number
            if self.engine:
                self.engine.stop_requested = True

        before = {}
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                before[number] = signal.signal(number, ask)
        except ValueError:  # not in the main thread: whoever called us decides about signals
            yield
            return
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _train(self, run: RunContext, seed: int, arm: str, pending: Checkpoint | None) -> None:
        """Train one arm of a seed, from its start or from the `pending` checkpoint if that is its own."""
        if self.stop_requested:
            raise StoppedError("")
        stages = run.assembly.stages(arm)
        distiller = run.assembly.distiller(run.table, seed, arm, self.fabric.device)
        self.engine = self._engine(run, distiller, seed, arm)
        self.engine.stop_requested = self.stop_requested
        self.listener.arm_started(seed, arm, stages)
        self.plugins.hook.arm_started(run=run, seed=seed, arm=arm)
        began = time.monotonic()
        if self.fabric.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.fabric.device)
        mine = pending if pending and [pending[1]["seed"], pending[1]["arm"]] == [seed, arm] else None
        self.engine.fit(stages, mine)
        outcome = self._evaluate(distiller, run.table, arm, time.monotonic() - began)
        if self._writes:
            self._save(run, distiller, seed, outcome)
            self.state.done.append([seed, arm])
            self._settle()
            self.checkpoints.clear()
        self.fabric.barrier()

    def _engine(self, run: RunContext, distiller: Distiller, seed: int, arm: str) -> Engine:
        child, journal = f"seed-{seed}", self.journal
        prefix = "" if arm == DISTILLED else f"{BASELINE}/"
        if journal:
            params = {**flattened(self.recipe.filled()), "seed": seed}  # the parent's, too, so that seeds of two runs compare
            journal.start(child, f"{self.recipe.name} seed {seed}", "root", {"seed": seed}, params)

        def record(metrics: Mapping[str, float], step: int) -> None:
            if journal:
                journal.metrics(child, {f"{prefix}{name}": value for name, value in metrics.items()}, step)

        save, trained = self._saver(seed, arm), self._trained(seed)
        settings = self._settings(seed)
        return Engine(self.fabric, distiller, run.table, settings, record, save, self.listener, trained, self.scaler)

    def _save(self, run: RunContext, distiller: Distiller, seed: int, outcome: Outcome) -> None:
        """Save an arm's predictions and weights, and record its metrics."""
        assert self.journal is not None
        child = f"seed-{seed}"
        write_outcome(outcome_file(run.folder, seed, outcome.arm), outcome)
        prefix = metric_prefix(self.part) + ("" if outcome.arm == DISTILLED else f"/{BASELINE}")
        for name, evaluation in outcome.evaluations().items():
            metrics = {f"{prefix}/{name}/{metric}": value for metric, value in evaluation.metrics().items()}
            self.journal.metrics(child, metrics, 0)
        digests = save_participants(run, distiller, seed, outcome.arm)
        if digests:
            self.journal.tags(child, {f"teacher.{name}": digest for name, digest in digests.items()})
        self.plugins.hook.arm_finished(run=run, seed=seed, arm=outcome.arm, outcome=outcome)

    def _settle(self) -> None:
        """Make everything recorded and finished so far final."""
        assert self.journal is not None
        self.state.journal = self.journal.flush()
        write_file(self.state.path, self.state.content())
        self.journal.commit()

    def _trained(self, seed: int) -> TrainedStages | None:
        """Where teachers are kept for other runs, if the recipe wants it."""
        if self.retrain or not self.recipe.engine.reuse_teachers:
            return None
        recipe = self.recipe.filled()
        said = {key: recipe[key] for key in ("teachers", "fusion", "teacher_losses", "class_embeddings", "engine")}
        identity = {**said, "seed": seed, "batch_size": recipe["data"]["batch_size"]}
        return TrainedStages(cache_folder() / "teachers", identity)

    def _settings(self, seed: int) -> Settings:
        engine, data = self.recipe.engine, self.recipe.data
        return Settings(
            seed,
            data.batch_size,
            data.labels == "withheld",
            engine.compile,
            engine.teacher_cache,
            data.memory_bytes,
            engine.checkpoint_seconds,
            engine.log_every,
        )

    def _saver(self, seed: int, arm: str) -> Callable[[Mapping[str, Tensor], Mapping[str, Any]], None]:
        def save(weights: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
            if self.journal:
                position = self.journal.flush()
                self.checkpoints.save(weights, {**state, "seed": seed, "arm": arm, "journal": position})
                self.journal.commit()
            self.fabric.barrier()

        return save

    def _evaluate(self, distiller: Distiller, table: Table, arm: str, seconds: float) -> Outcome:
        """The one time that test data is looked at, if it is test data that the run is evaluated on."""
        rows = table.parts[self.part]
        stored = [name for name, outputs in distiller.stored.items() if bool(outputs.covers(rows).all())]
        names = [*distiller.teachers, *stored, *distiller.students]
        probabilities = predict(distiller, names, rows, table, self.recipe.data.batch_size, self.fabric)
        counts = parameter_counts({name: distiller.participant(name) for name in distiller.networks})
        labels = table.labels[rows].cpu().numpy()
        keys = [str(table.keys[row]) for row in rows.tolist()]
        teachers, students = [*distiller.teachers, *stored], list(distiller.students)
        return Outcome(arm, probabilities, labels, keys, counts, seconds, teachers, students, most_memory(self.fabric.device))

    def _conclude(self, run: RunContext) -> Result:
        """Summarise all seeds and let plugins report; a run that was complete is reported again, and nothing else."""
        summary = summarise(self.recipe, read_run(run.folder), self.tracker.describe())
        report = self.plugins.hook.write_report(run=run, summary=summary)
        if report is None:
            self.listener.say("no report was written: the plugin 'report' is not in use")
        if not self.state.complete:
            assert self.journal is not None
            self.journal.metrics("root", means(summary), 0)
            self.plugins.hook.run_finished(run=run, summary=summary, report=report)
            for name in [f"seed-{seed}" for seed in self.recipe.seeds] + ["root"]:
                self.journal.finish(name)
            self.state.complete = True
            self._settle()
        return Result(summary, run.folder, report, self.tracker.describe(), self.tracker.run_ids())

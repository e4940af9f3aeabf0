"""Runs a recipe: load → build → train each seed → evaluate → track."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from kdcore.cache import cache_folder
from kdcore.data.table import Table
from kdcore.errors import StoppedError
from kdcore.plugin.manager import PluginManager, plugin_manager
from kdcore.recipe.build import Builder, versions_used
from kdcore.recipe.load import load_recipe
from kdcore.recipe.models import Recipe
from kdcore.results.system_metrics import MachineLoad
from kdcore.results.tracking import NullTracker, Tracker, tracking_address
from kdcore.runs.archive import Archive
from kdcore.runs.callbacks import HookCaller, RunListener
from kdcore.runs.outcome import Outcome
from kdcore.runs.paths import Ledger, find_run
from kdcore.runs.preparation import Prepared, make_folder, prepare
from kdcore.runs.records import recipe_of
from kdcore.runs.summary import Summary
from kdcore.training.assembly import BASELINE, DISTILLED, Assembly, parameter_counts
from kdcore.training.checkpoint import Checkpoints, write_file
from kdcore.training.engine import Engine, Settings
from kdcore.training.evaluation import predict
from kdcore.training.fabric import gradient_scaler, make_fabric, most_memory
from kdcore.training.participants import Distiller
from kdcore.training.preflight import Preflight
from kdcore.training.trained_teachers import TrainedStages


@dataclass
class Result:
    """What a finished run leaves: its summary, its folder, and where it is tracked."""

    summary: Summary
    folder: Path
    report: Path
    tracking: str
    mlflow_runs: Mapping[str, str] = field(default_factory=dict)


def run(
    source: str | Path,
    overrides: Sequence[str] = (),
    listener: RunListener | None = None,
    command: Sequence[str] = (),
    part: Literal["test", "validation"] = "test",
    anew: bool = False,
) -> Result | None:
    """Run a recipe from the start. Returns None in all processes of a distributed run but the first.

    Args:
        source: A recipe's path, or the name of a shipped one.
        overrides: ``key=value`` each.
        listener: Told how it goes.
        command: What a person types to repeat it.
        part: What to evaluate on. With ``validation``, test samples are never looked at: for choosing among recipes.
        anew: Train teachers even if other runs have trained them (`engine.reuse_teachers`).

    Raises:
        KdcoreError: With a message for the user; nothing is written if the recipe or the data are at fault.
    """
    plugins = plugin_manager()
    return _Run(load_recipe(source, overrides, plugins), plugins, listener, command, part=part, anew=anew).execute()


def resume(run_id: str, listener: RunListener | None = None) -> Result | None:
    """Go on with a run that was stopped, to the same end as if it had not been.

    Raises:
        CheckpointError: If there is no such run, or its checkpoint cannot be trusted.
    """
    folder = find_run(run_id)
    plugins = plugin_manager()
    ledger = Ledger.read(folder)
    return _Run(recipe_of(folder, plugins), plugins, listener, ledger.command, folder).execute()


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


@dataclass(frozen=True)
class _Desk:
    """What a run works with, and where it puts what comes of it."""

    assembly: Assembly
    table: Table
    archive: Archive
    ledger: Ledger
    checkpoints: Checkpoints


class _Run:
    """One recipe being run.

    Args:
        recipe: Checked by the loader.
        plugins: Who provides its components.
        listener: Told how it goes.
        command: What a person types to repeat it.
        folder: Of the run to go on with; None for a new one.
        part: Of the split, to evaluate a new one on.
        anew: Take no teachers that other runs have trained.
    """

    def __init__(
        self,
        recipe: Recipe,
        plugins: PluginManager,
        listener: RunListener | None,
        command: Sequence[str],
        folder: Path | None = None,
        part: str = "test",
        anew: bool = False,
    ):
        self.recipe, self.plugins, self.command, self.folder = recipe, plugins, tuple(command), folder
        if folder:
            ledger = Ledger.read(folder)
            part, anew = ledger.part, ledger.anew
        self.part, self.anew = part, anew
        self.listener = HookCaller(listener or RunListener(), plugins)
        self.builder = Builder(recipe, plugins)
        self.scaler = gradient_scaler(recipe.engine)
        self.fabric = make_fabric(recipe.engine, self.scaler)
        self.engine: Engine | None = None
        self.stop_requested = False
        self.tracker: Tracker | NullTracker = NullTracker()
        self.load = MachineLoad(lambda metrics, step: self.tracker.metrics("root", metrics, step))

    def rehearse(self) -> Preflight | None:
        """What one batch shows, for a dry run."""
        found = self._prepare().found
        return found if self._writes else None

    def execute(self) -> Result | None:
        """Train what is not trained yet, evaluate, and report."""
        prepared = self._prepare()
        if not self._writes:  # what all processes do alike is told by one
            self.listener = HookCaller(RunListener(), self.plugins)
        assembly, table = prepared.assembly, prepared.table
        self.folder = self.folder or make_folder(self.recipe, self.fabric, self.command, self.part, self.anew)
        ledger = Ledger.read(self.folder)
        checkpoints = Checkpoints(self.folder / "checkpoints")
        self.tracker = self._open_tracker(self.folder)
        pending = self._resume_point(ledger, checkpoints)
        versions = versions_used(self.recipe, self.plugins)
        archive = Archive(self.recipe, self.folder, self.tracker, versions, self.command, self.part)
        desk = _Desk(assembly, table, archive, ledger, checkpoints)
        try:
            with self._stoppable():
                if ledger.complete:
                    self.tracker.commit()
                else:
                    archive.begin(table, assembly.stages(DISTILLED), assembly.arms)
                    self.tracker.commit()
                self.plugins.hook.run_started(name=self.recipe.name, seeds=tuple(self.recipe.seeds))
                for seed in self.recipe.seeds:
                    for arm in assembly.arms:
                        if [seed, arm] not in ledger.done:
                            self._train(desk, seed, arm, pending)
                            pending = None
                result = self._conclude(desk) if self._writes else None
        except StoppedError:
            archive.stopped("KILLED", self._trained_seeds(desk))
            raise StoppedError(f"stopped; everything is saved: kdcore resume {self.folder.name}") from None
        except Exception:  # a plugin at work may raise anything
            archive.stopped("FAILED", self._trained_seeds(desk))
            raise
        finally:
            self.tracker.close()
        if self.stop_requested:  # too late for this run, but whoever has more of them to do must know
            raise StoppedError(f"stopped, after the run was finished: kdcore resume {self.folder.name} shows what came of it")
        return result

    def _trained_seeds(self, desk: _Desk) -> list[int]:
        arms = desk.assembly.arms
        return [seed for seed in self.recipe.seeds if all([seed, arm] in desk.ledger.done for arm in arms)]

    @property
    def _writes(self) -> bool:
        return self.fabric.is_global_zero

    def _prepare(self) -> Prepared:
        tracking_address(self.recipe.tracking.uri)  # refused before anything is written
        return prepare(self.builder, self.fabric, self.part, self.folder, self._reading)

    def _reading(self, done: int, total: int, what: str) -> None:
        if self._writes:
            self.listener.reading(done, total, what)

    def _open_tracker(self, folder: Path) -> Tracker | NullTracker:
        if not self._writes:
            return NullTracker()
        tracking = self.recipe.tracking
        return Tracker(folder / "tracking", tracking.uri, tracking.experiment or self.recipe.name, self.listener.say)

    def _resume_point(self, ledger: Ledger, checkpoints: Checkpoints) -> Checkpoint | None:
        """The checkpoint to go on from, with tracking taken back to where it was made."""
        loaded = checkpoints.load()
        if loaded and [loaded[1]["seed"], loaded[1]["arm"]] in ledger.done:
            loaded = None
        self.tracker.rewind(loaded[1]["journal"] if loaded else ledger.journal)
        return loaded

    @contextmanager
    def _stoppable(self):
        """SIGTERM asks to stop: the state is saved, and the process ends cleanly."""

        def ask(*_: object) -> None:
            self.stop_requested = True
            if self.engine:
                self.engine.stop_requested = True

        try:
            before = signal.signal(signal.SIGTERM, ask)
        except ValueError:  # not in the main thread: whoever called us decides about signals
            yield
            return
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def _train(self, desk: _Desk, seed: int, arm: str, pending: Checkpoint | None) -> None:
        """One arm of a seed, from its start or from the `pending` checkpoint if that is its own."""
        if self.stop_requested:
            raise StoppedError("")
        stages = desk.assembly.stages(arm)
        distiller = desk.assembly.distiller(desk.table, seed, arm, self.fabric.device)
        self.engine = self._engine(desk, distiller, seed, arm)
        self.engine.stop_requested = self.stop_requested
        self.listener.arm_started(seed, arm, stages)
        began = time.monotonic()
        if self.fabric.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.fabric.device)
        mine = pending if pending and [pending[1]["seed"], pending[1]["arm"]] == [seed, arm] else None
        self.engine.fit(stages, mine)
        outcome = self._evaluate(distiller, desk.table, arm, time.monotonic() - began)
        if self._writes:
            desk.archive.keep(desk.assembly, distiller, desk.table, seed, outcome)
            desk.ledger.done.append([seed, arm])
            self._settle(desk.ledger)
            desk.checkpoints.clear()
        self.fabric.barrier()

    def _engine(self, desk: _Desk, distiller: Distiller, seed: int, arm: str) -> Engine:
        child = desk.archive.begin_seed(seed)
        prefix = "" if arm == DISTILLED else f"{BASELINE}/"

        def record(metrics: Mapping[str, float], step: int) -> None:
            self.load.remind()
            self.tracker.metrics(child, {f"{prefix}{name}": value for name, value in metrics.items()}, step)

        save, trained = self._saver(desk.checkpoints, seed, arm), self._trained(seed)
        settings = self._settings(seed)
        return Engine(self.fabric, distiller, desk.table, settings, record, save, self.listener, trained, self.scaler)

    def _settle(self, ledger: Ledger) -> None:
        """Make all that was tracked and finished so far last."""
        ledger.journal = self.tracker.flush()
        write_file(ledger.path, ledger.content())
        self.tracker.commit()

    def _trained(self, seed: int) -> TrainedStages | None:
        """Where teachers are kept for other runs, if the recipe wants it."""
        if self.anew or not self.recipe.engine.reuse_teachers:
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

    def _saver(
        self, checkpoints: Checkpoints, seed: int, arm: str
    ) -> Callable[[Mapping[str, Tensor], Mapping[str, Any]], None]:
        def save(weights: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
            if self._writes:
                position = self.tracker.flush()
                checkpoints.save(weights, {**state, "seed": seed, "arm": arm, "journal": position})
                self.tracker.commit()
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

    def _conclude(self, desk: _Desk) -> Result:
        archive, ledger = desk.archive, desk.ledger
        summary, report, overall = archive.conclude(desk.assembly, desk.table, self.plugins.hook)
        if not ledger.complete:
            archive.end(desk.assembly, desk.table, report, overall)
            ledger.complete = True
            self._settle(ledger)
        self.plugins.hook.run_finished(name=self.recipe.name, summary=overall)
        return Result(summary, archive.folder, report, self.tracker.describe(), self.tracker.run_ids())

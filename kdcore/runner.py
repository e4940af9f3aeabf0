"""Runs a recipe: load → build → train each seed → evaluate → track."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from kdcore.contracts.schedule import Stage
from kdcore.errors import DataError, StoppedError, TrainingError
from kdcore.plugin.files import is_file
from kdcore.plugin.manager import PluginManager, plugin_manager
from kdcore.recipe.build import Builder, versions_used
from kdcore.recipe.load import load_recipe
from kdcore.recipe.schema import Recipe
from kdcore.recipe.source import dump
from kdcore.results.archive import Archive
from kdcore.results.finished import refuse_other_recordings
from kdcore.results.outcome import Outcome
from kdcore.results.report import Summary
from kdcore.results.tracking import NullTracker, Tracker
from kdcore.training.assembly import BASELINE, DISTILLED, Assembly, parameter_counts
from kdcore.training.checkpoint import Checkpoints, write_file
from kdcore.training.data import Table, load_table
from kdcore.training.distiller import Distiller
from kdcore.training.engine import Engine, Listener, Settings, predict
from kdcore.training.fabric import make_fabric, most_memory
from kdcore.training.preflight import Preflight, preflight
from kdcore.training.randomness import make_deterministic
from kdcore.training.reuse import TrainedStages
from kdcore.workspace import Ledger, cache_folder, find_run, new_run_id, runs_folder


class RunListener(Listener):
    """Told how a run goes, beside its stages."""

    def reading(self, done: int, total: int, what: str) -> None:
        """Recordings are being read."""

    def arm_started(self, seed: int, arm: str, stages: Sequence[Stage]) -> None:
        """A seed's distilled or baseline training begins."""

    def say(self, text: str) -> None:
        """A line for the user."""


class _Hooks(RunListener):
    """Passes everything on to the user's listener, and stages to the plugins' hooks."""

    def __init__(self, to: RunListener, plugins: PluginManager):
        self._to, self._hook, self._seed = to, plugins.hook, 0
        self.reading, self.stepped, self.say = to.reading, to.stepped, to.say  # type: ignore[method-assign]

    def arm_started(self, seed: int, arm: str, stages: Sequence[Stage]) -> None:
        self._seed = seed
        self._to.arm_started(seed, arm, stages)

    def stage_started(self, stage: Stage, steps: int) -> None:
        self._hook.stage_started(stage=stage, seed=self._seed)
        self._to.stage_started(stage, steps)

    def epoch_finished(self, stage: Stage, epoch: int, metrics: Mapping[str, float]) -> None:
        self._hook.epoch_finished(stage=stage, seed=self._seed, epoch=epoch, metrics=metrics)
        self._to.epoch_finished(stage, epoch, metrics)

    def stage_finished(self, stage: Stage) -> None:
        self._hook.stage_finished(stage=stage, seed=self._seed)
        self._to.stage_finished(stage)

    def stage_reused(self, stage: Stage) -> None:
        self._to.stage_reused(stage)


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
) -> Result | None:
    """Run a recipe from the start. Returns None in all processes of a distributed run but the first.

    Args:
        source: A recipe's path, or the name of a shipped one.
        overrides: ``key=value`` each.
        listener: Told how it goes.
        command: What a person types to repeat it.
        part: What to evaluate on. With ``validation``, test samples are never looked at: for choosing among recipes.

    Raises:
        KdcoreError: With a message for the user; nothing is written if the recipe or the data are at fault.
    """
    plugins = plugin_manager()
    return _Run(load_recipe(source, overrides, plugins), plugins, listener, command, part=part).execute()


def resume(run_id: str, listener: RunListener | None = None) -> Result | None:
    """Go on with a run that was stopped, to the same end as if it had not been.

    Raises:
        CheckpointError: If there is no such run, or its checkpoint cannot be trusted.
    """
    folder = find_run(run_id)
    plugins = plugin_manager()
    ledger = Ledger.read(folder)
    return _Run(load_recipe(folder / "recipe.yaml", (), plugins), plugins, listener, ledger.command, folder).execute()


def dry_run(
    source: str | Path,
    overrides: Sequence[str] = (),
    listener: RunListener | None = None,
    part: Literal["test", "validation"] = "test",
) -> Preflight:
    """One batch through everything: shapes, terms, gradients. Trains nothing, and writes nothing but prepared data."""
    plugins = plugin_manager()
    return _Run(load_recipe(source, overrides, plugins), plugins, listener, (), part=part).rehearse()


class _Run:
    """One recipe being run.

    Args:
        recipe: Checked by the loader.
        plugins: Who provides its components.
        listener: Told how it goes.
        command: What a person types to repeat it.
        folder: Of the run to go on with; None for a new one.
        part: Of the split, to evaluate a new one on.
    """

    def __init__(
        self,
        recipe: Recipe,
        plugins: PluginManager,
        listener: RunListener | None,
        command: Sequence[str],
        folder: Path | None = None,
        part: str = "test",
    ):
        self.recipe, self.plugins, self.command, self.folder = recipe, plugins, tuple(command), folder
        self.part = Ledger.read(folder).part if folder else part
        self.listener = _Hooks(listener or RunListener(), plugins)
        self.builder = Builder(recipe, plugins)
        self.fabric = make_fabric(recipe.engine)
        self.engine: Engine | None = None
        self.stop_asked = False
        self.tracker: Tracker | NullTracker = NullTracker()

    def prepare(self) -> tuple[Assembly, Table, Preflight]:
        """Everything up to the first step, checked."""
        self.fabric.launch()
        if self.recipe.engine.threads:
            torch.set_num_threads(self.recipe.engine.threads)
        if self.recipe.engine.deterministic:
            make_deterministic()
        dataset = self.builder.dataset()
        assembly = Assembly(self.builder, dataset)
        table = load_table(
            dataset,
            self.builder.protocol(),
            self.recipe.filled_data,
            assembly.pipelines,
            cache_folder(),
            self.recipe.data.memory_bytes,
            self._reading,
        )
        if not len(table.parts.get(self.part, ())):
            raise DataError(
                f"this split has no {self.part} part ({table.split.rule}): hold out training subjects for it, "
                "e.g. data.protocol.validation_subjects=2"
            )
        self._refuse_unequal_shares(assembly)
        if self.folder:
            refuse_other_recordings(self.folder, table)
        table = table.to(self.fabric.device, self.recipe.data.memory_bytes)
        distiller = assembly.distiller(table, self.recipe.seeds[0], DISTILLED, self.fabric.device)
        found = preflight(distiller, assembly.stages(DISTILLED), table, self.recipe.data.batch_size, self._withheld)
        return assembly, table, found

    def _refuse_unequal_shares(self, assembly: Assembly) -> None:
        """Every process must get as many samples of each batch as any other."""
        processes = self.fabric.world_size
        for stage in assembly.stages(DISTILLED):
            if (size := stage.training.batch_size or self.recipe.data.batch_size) % processes:
                raise TrainingError(f"stage {stage.name}: batch_size {size} cannot be shared equally by {processes} processes")

    def rehearse(self) -> Preflight:
        """`prepare`, for a dry run."""
        return self.prepare()[2]

    def execute(self) -> Result | None:
        """Train what is not trained yet, evaluate, and report."""
        assembly, table, _ = self.prepare()
        self.folder = self.folder or self._new_folder()
        ledger = Ledger.read(self.folder)
        checkpoints = Checkpoints(self.folder / "checkpoints")
        self.tracker = self._open_tracker(self.folder)
        pending = self._resume_point(ledger, checkpoints)
        archive = Archive(
            self.recipe, self.folder, self.tracker, versions_used(self.recipe, self.plugins), self.command, self.part
        )
        try:
            with self._stoppable():
                if ledger.complete:
                    self.tracker.commit()
                else:
                    archive.begin(table, assembly.stages(DISTILLED), _arms(assembly))
                self.plugins.hook.run_started(name=self.recipe.name, seeds=tuple(self.recipe.seeds))
                for seed in self.recipe.seeds:
                    for arm in _arms(assembly):
                        if [seed, arm] not in ledger.done:
                            self._train(archive, assembly, table, seed, arm, checkpoints, ledger, pending)
                            pending = None
                return self._conclude(archive, assembly, table, ledger) if self._writes else None
        except StoppedError:
            archive.stopped("KILLED")
            raise StoppedError(f"stopped; everything is saved: kdcore resume {self.folder.name}") from None
        except Exception:  # a plugin at work may raise anything
            archive.stopped("FAILED")
            raise
        finally:
            self.tracker.close()

    @property
    def _writes(self) -> bool:
        return self.fabric.is_global_zero

    @property
    def _withheld(self) -> bool:
        return self.recipe.data.labels == "withheld"

    def _reading(self, done: int, total: int, what: str) -> None:
        if self._writes:
            self.listener.reading(done, total, what)

    def _new_folder(self) -> Path:
        name = new_run_id(self.recipe.name, self.recipe.hash, datetime.now())
        folder = runs_folder() / self.fabric.broadcast(name)
        if self._writes:
            self._write_recipe(folder)
            write_file(folder / "progress.json", Ledger(folder, command=self.command, part=self.part).content())
        self.fabric.barrier()
        return folder

    def _write_recipe(self, folder: Path) -> None:
        """The recipe in full, with copies of those plugins that are files, so that the folder says all that was run."""
        tree = self.recipe.filled()
        for index, name in enumerate(tree["plugins"]):
            if is_file(name):
                tree["plugins"][index] = copy = f"plugins/{Path(name).name}"
                write_file(folder / copy, Path(name).read_bytes())
        write_file(folder / "recipe.yaml", dump(tree).encode())

    def _open_tracker(self, folder: Path) -> Tracker | NullTracker:
        if not self._writes:
            return NullTracker()
        tracking = self.recipe.tracking
        return Tracker(folder / "tracking", tracking.uri, tracking.experiment or self.recipe.name, self.listener.say)

    def _resume_point(self, ledger: Ledger, checkpoints: Checkpoints) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
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
            self.stop_asked = True
            if self.engine:
                self.engine.stop_asked = True

        try:
            before = signal.signal(signal.SIGTERM, ask)
        except ValueError:  # not in the main thread: whoever called us decides about signals
            yield
            return
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def _train(
        self,
        archive: Archive,
        assembly: Assembly,
        table: Table,
        seed: int,
        arm: str,
        checkpoints: Checkpoints,
        ledger: Ledger,
        pending: tuple[dict[str, Tensor], dict[str, Any]] | None,
    ) -> None:
        if self.stop_asked:
            raise StoppedError("")
        stages = assembly.stages(arm)
        distiller = assembly.distiller(table, seed, arm, self.fabric.device)
        prefix = "" if arm == DISTILLED else f"{BASELINE}/"
        child = archive.begin_seed(seed)
        self.engine = Engine(
            self.fabric,
            distiller,
            table,
            self._settings(seed),
            lambda metrics, step: self.tracker.metrics(
                child, {f"{prefix}{name}": value for name, value in metrics.items()}, step
            ),
            self._saver(checkpoints, seed, arm),
            self.listener,
            self._trained(seed),
        )
        self.engine.stop_asked = self.stop_asked
        self.listener.arm_started(seed, arm, stages)
        began = time.monotonic()
        if self.fabric.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.fabric.device)
        mine = pending if pending and [pending[1]["seed"], pending[1]["arm"]] == [seed, arm] else None
        self.engine.fit(stages, *(mine or (None, None)))
        outcome = self._evaluate(distiller, table, arm, time.monotonic() - began)
        if self._writes:
            archive.keep(assembly, distiller, table, seed, outcome)
            ledger.done.append([seed, arm])
            ledger.journal = self.tracker.flush()
            write_file(ledger.path, ledger.content())
            self.tracker.commit()
            checkpoints.clear()
        self.fabric.barrier()

    def _trained(self, seed: int) -> TrainedStages | None:
        """Where teachers are kept for other runs, if the recipe wants it."""
        recipe = self.recipe.filled()
        said = {key: recipe[key] for key in ("teachers", "fusion", "teacher_losses", "class_embeddings", "engine")}
        identity = {**said, "seed": seed, "batch_size": recipe["data"]["batch_size"]}
        return TrainedStages(cache_folder() / "teachers", identity) if self.recipe.engine.reuse_teachers else None

    def _settings(self, seed: int) -> Settings:
        engine, data = self.recipe.engine, self.recipe.data
        return Settings(
            seed,
            data.batch_size,
            self._withheld,
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
        names = [*distiller.teachers, *distiller.students]
        rows = table.parts[self.part]
        probabilities = predict(distiller, names, rows, table, self.recipe.data.batch_size, self.fabric)
        counts = parameter_counts({name: distiller.participant(name) for name in names})
        labels = table.labels[rows].cpu().numpy()
        keys = [str(table.keys[row]) for row in rows.tolist()]
        teachers, students = list(distiller.teachers), list(distiller.students)
        return Outcome(arm, probabilities, labels, keys, counts, seconds, teachers, students, most_memory(self.fabric.device))

    def _conclude(self, archive: Archive, assembly: Assembly, table: Table, ledger: Ledger) -> Result:
        summary, report, overall = archive.conclude(assembly, table)
        if not ledger.complete:
            archive.end(assembly, table, report, overall)
            ledger.complete, ledger.journal = True, self.tracker.flush()
            write_file(ledger.path, ledger.content())
            self.tracker.commit()
        self.plugins.hook.run_finished(name=self.recipe.name, summary=overall)
        return Result(summary, archive.folder, report, self.tracker.describe(), self.tracker.run_ids())


def _arms(assembly: Assembly) -> tuple[str, ...]:
    return (DISTILLED, BASELINE) if assembly.has_baseline else (DISTILLED,)

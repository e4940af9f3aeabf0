"""Runs a recipe: load → build → train each seed → evaluate → track."""

from __future__ import annotations

import os
import shlex
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from kdcore import __version__
from kdcore.contracts.schedule import Stage
from kdcore.errors import Interrupted, KdcoreError
from kdcore.plugin.manager import PluginManager, plugin_manager
from kdcore.recipe.build import Builder, versions_used
from kdcore.recipe.load import load_recipe
from kdcore.recipe.schema import Recipe
from kdcore.results.outcome import Outcome, read_outcome, write_outcome
from kdcore.results.report import Summary, write_report
from kdcore.results.summarise import means, summarise
from kdcore.results.tracking import NullTracker, Tracker
from kdcore.training.assembly import BASELINE, DISTILLED, Assembly, parameter_counts
from kdcore.training.checkpoint import Checkpoints, save_weights, write_file
from kdcore.training.data import Table, load_table
from kdcore.training.distiller import Distiller
from kdcore.training.engine import Engine, Listener, Settings, predict
from kdcore.training.preflight import Preflight, preflight
from kdcore.training.randomness import make_deterministic
from kdcore.training.student import save_student
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


@dataclass
class Result:
    """What a finished run leaves: its summary, its folder, and where it is tracked."""

    summary: Summary
    folder: Path
    report: Path
    tracking: str
    mlflow_runs: Mapping[str, str] = field(default_factory=dict)


def run(source: str | Path, overrides: Sequence[str] = (), listener: RunListener | None = None, command: Sequence[str] = ()) -> Result | None:
    """Run a recipe from the start. Returns None in all processes of a distributed run but the first.

    Args:
        source: A recipe's path, or the name of a shipped one.
        overrides: ``key=value`` each.
        listener: Told how it goes.
        command: What a person types to repeat it.

    Raises:
        KdcoreError: With a message for the user; nothing is written if the recipe or the data are at fault.
    """
    plugins = plugin_manager()
    return _Run(load_recipe(source, overrides, plugins), plugins, listener, command).execute()


def resume(run_id: str, listener: RunListener | None = None) -> Result | None:
    """Go on with a run that was stopped, to the same end as if it had not been.

    Raises:
        CheckpointError: If there is no such run, or its checkpoint cannot be trusted.
    """
    folder = find_run(run_id)
    plugins = plugin_manager()
    ledger = Ledger.read(folder)
    return _Run(load_recipe(folder / "recipe.yaml", (), plugins), plugins, listener, ledger.command, folder).execute()


def dry_run(source: str | Path, overrides: Sequence[str] = (), listener: RunListener | None = None) -> Preflight:
    """One batch through everything: shapes, parameters, terms and their gradients. Trains and writes nothing but prepared data."""
    plugins = plugin_manager()
    return _Run(load_recipe(source, overrides, plugins), plugins, listener, ()).rehearse()


class _Run:
    """One recipe being run.

    Args:
        recipe: Checked by the loader.
        plugins: Who provides its components.
        listener: Told how it goes.
        command: What a person types to repeat it.
        folder: Of the run to go on with; None for a new one.
    """

    def __init__(self, recipe: Recipe, plugins: PluginManager, listener: RunListener | None, command: Sequence[str], folder: Path | None = None):
        self.recipe, self.plugins, self.command, self.folder = recipe, plugins, tuple(command), folder
        self.listener = _Hooks(listener or RunListener(), plugins)
        self.builder = Builder(recipe, plugins)
        self.fabric = make_fabric(recipe)
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
            dataset, self.builder.protocol(), self.recipe.data, assembly.pipelines, cache_folder(), self.recipe.data.memory_bytes, self._reading
        )
        table = table.to(self.fabric.device, self.recipe.data.memory_bytes)
        distiller = assembly.distiller(table, self.recipe.seeds[0], DISTILLED, self.fabric.device)
        found = preflight(distiller, assembly.stages(DISTILLED), table, self.recipe.data.batch_size, self._withheld)
        return assembly, table, found

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
        started = time.monotonic()
        try:
            with self._stoppable():
                self._start_tracking(table)
                self.plugins.hook.run_started(name=self.recipe.name, seeds=tuple(self.recipe.seeds))
                for seed in self.recipe.seeds:
                    for arm in (DISTILLED, BASELINE) if assembly.has_baseline else (DISTILLED,):
                        if [seed, arm] not in ledger.done:
                            self._train(assembly, table, seed, arm, checkpoints, ledger, pending)
                            pending = None
                return self._conclude(assembly, table, ledger, time.monotonic() - started) if self._writes else None
        except Interrupted:
            raise Interrupted(f"stopped; everything is saved: kdcore resume {self.folder.name}") from None
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
            write_file(folder / "recipe.yaml", self.recipe.to_yaml().encode())
            write_file(folder / "progress.json", Ledger(folder, command=self.command).content())
        self.fabric.barrier()
        return folder

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
        assembly: Assembly,
        table: Table,
        seed: int,
        arm: str,
        checkpoints: Checkpoints,
        ledger: Ledger,
        pending: tuple[dict[str, Tensor], dict[str, Any]] | None,
    ) -> None:
        assert self.folder is not None
        if self.stop_asked:
            raise Interrupted("")
        stages = assembly.stages(arm)
        distiller = assembly.distiller(table, seed, arm, self.fabric.device)
        prefix = "" if arm == DISTILLED else f"{BASELINE}/"
        child = f"seed-{seed}"
        self.tracker.start(child, f"{self.recipe.name} seed {seed}", "root", {"seed": seed}, {"seed": seed})
        self.engine = Engine(
            self.fabric,
            distiller,
            table,
            self._settings(seed),
            lambda metrics, step: self.tracker.metrics(child, {f"{prefix}{name}": value for name, value in metrics.items()}, step),
            self._saver(checkpoints, seed, arm),
            self.listener,
        )
        self.engine.stop_asked = self.stop_asked
        self.listener.arm_started(seed, arm, stages)
        began = time.monotonic()
        mine = pending if pending and [pending[1]["seed"], pending[1]["arm"]] == [seed, arm] else None
        self.engine.fit(stages, *(mine or (None, None)))
        outcome = self._evaluate(assembly, distiller, table, arm, time.monotonic() - began)
        if self._writes:
            self._keep(assembly, distiller, table, seed, arm, outcome)
            ledger.done.append([seed, arm])
            ledger.journal = self.tracker.flush()
            write_file(ledger.path, ledger.content())
            self.tracker.commit()
            checkpoints.clear()
        self.fabric.barrier()

    def _settings(self, seed: int) -> Settings:
        engine, data = self.recipe.engine, self.recipe.data
        return Settings(
            seed, data.batch_size, self._withheld, engine.compile, engine.teacher_cache, data.memory_bytes, engine.checkpoint_seconds, engine.log_every
        )

    def _saver(self, checkpoints: Checkpoints, seed: int, arm: str) -> Callable[[Mapping[str, Tensor], Mapping[str, Any]], None]:
        def save(weights: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
            if self._writes:
                position = self.tracker.flush()
                checkpoints.save(weights, {**state, "seed": seed, "arm": arm, "journal": position})
                self.tracker.commit()
            self.fabric.barrier()

        return save

    def _evaluate(self, assembly: Assembly, distiller: Distiller, table: Table, arm: str, seconds: float) -> Outcome:
        """The one time that test data is looked at."""
        names = [*distiller.teachers, *distiller.students]
        rows = table.parts["test"]
        probabilities = predict(distiller, names, rows, table, self.recipe.data.batch_size, self.fabric)
        counts = parameter_counts({name: distiller.participant(name) for name in names})
        labels = table.labels[rows].cpu().numpy()
        keys = [str(table.keys[row]) for row in rows.tolist()]
        return Outcome(arm, probabilities, labels, keys, counts, seconds, list(distiller.teachers), list(distiller.students))

    def _keep(self, assembly: Assembly, distiller: Distiller, table: Table, seed: int, arm: str, outcome: Outcome) -> None:
        """Write an arm's results and, once distilled, everybody's weights; track its test metrics."""
        assert self.folder is not None
        write_outcome(self.folder / "results" / f"seed-{seed}-{arm}.npz", outcome)
        child = f"seed-{seed}"
        prefix = "test" if arm == DISTILLED else f"test/{BASELINE}"
        for name, evaluation in outcome.evaluations().items():
            self.tracker.metrics(child, {f"{prefix}/{name}/{metric}": value for metric, value in evaluation.metrics().items()}, 0)
        if arm != DISTILLED:
            return
        for name in distiller.teachers:
            save_weights(self.folder / "teachers" / f"seed-{seed}" / f"{name}.safetensors", distiller.participant(name).state_dict())
        for name in distiller.students:
            folder = self.folder / "students" / f"seed-{seed}" / name
            save_student(folder, assembly.pipelines[name], distiller.participant(name).encoder, self._description(assembly, table, name))
            self.tracker.artifact(child, folder, "students")

    def _description(self, assembly: Assembly, table: Table, name: str) -> dict[str, Any]:
        spec, recipe = assembly.specs[name], self.recipe
        window = recipe.data.window
        return {
            "name": name,
            "recipe": {"name": recipe.name, "hash": recipe.hash},
            "kdcore": __version__,
            "plugins": dict(versions_used(recipe, self.plugins)),
            "dataset": {"name": recipe.data.dataset.name, "fingerprint": table.fingerprint},
            "classes": list(table.classes),
            "in_shape": list(self._in_shape(assembly, table, name)),
            "encoder": spec.encoder.model_dump(mode="json"),
            "transforms": {key: [each.model_dump(mode="json") for each in spec.transforms_of(key)] for key in (*spec.modalities, "joined")},
            "window": {"length": window.length, "hop": window.hop} if window else None,
        }

    def _in_shape(self, assembly: Assembly, table: Table, name: str) -> tuple[int, ...]:
        signal = table.batch(table.parts["train"][:1], [name]).signals[name]
        with torch.no_grad():
            return tuple(assembly.pipelines[name].live.eval()(signal).shape[1:])

    def _start_tracking(self, table: Table) -> None:
        recipe = self.recipe
        tags = {
            "recipe": recipe.name, "recipe_hash": recipe.hash, "kdcore": __version__, "dataset": recipe.data.dataset.name,
            "dataset_fingerprint": table.fingerprint, "split": table.split.rule, "command": shlex.join(self.command),
            "torch": torch.__version__, **{f"plugin.{name}": version for name, version in versions_used(recipe, self.plugins).items()},
            **recipe.tracking.tags,
        }  # fmt: skip
        self.tracker.start("root", recipe.name, None, tags, flattened(recipe.filled()))
        if self.folder and self._writes:
            self.tracker.artifact("root", self.folder / "recipe.yaml")
        source = str(recipe.data.dataset.options.get("root", recipe.data.dataset.name))
        for part, context in (("train", "training"), ("test", "testing")):
            self.tracker.dataset("root", f"{recipe.data.dataset.name}-{part}", table.fingerprint, source, context)

    def _conclude(self, assembly: Assembly, table: Table, ledger: Ledger, seconds: float) -> Result:
        assert self.folder is not None
        folder = self.folder
        arms = (DISTILLED, BASELINE) if assembly.has_baseline else (DISTILLED,)
        outcomes = {arm: [read_outcome(folder / "results" / f"seed-{seed}-{arm}.npz") for seed in self.recipe.seeds] for arm in arms}
        versions = versions_used(self.recipe, self.plugins)
        stages = assembly.stages(DISTILLED)
        summary = summarise(self.recipe, table, stages, outcomes, versions, self.command, folder, self.tracker.describe())
        report = folder / "report.html"
        write_report(report, summary)
        overall = means(summary)
        self.tracker.metrics("root", overall, 0)
        self.tracker.artifact("root", report)
        for seed in self.recipe.seeds:
            self.tracker.finish(f"seed-{seed}")
        self.tracker.finish("root")
        ledger.complete, ledger.journal = True, self.tracker.flush()
        write_file(ledger.path, ledger.content())
        self.tracker.commit()
        self.plugins.hook.run_finished(name=self.recipe.name, summary=overall)
        return Result(summary, folder, report, self.tracker.describe(), self.tracker.run_ids())


def make_fabric(recipe: Recipe) -> Fabric:
    """Fabric as the recipe wants it, or as ``torchrun`` has started this process."""
    engine = recipe.engine
    devices: int | str = engine.devices
    nodes = 1
    if "TORCHELASTIC_RUN_ID" in os.environ:
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    strategy = "ddp_find_unused_parameters_true" if engine.strategy == "ddp" or nodes > 1 or (isinstance(devices, int) and devices > 1) else "auto"
    try:
        return Fabric(accelerator=engine.accelerator, devices=devices, num_nodes=nodes, strategy=strategy, precision=engine.precision)  # type: ignore[arg-type]
    except (ValueError, RuntimeError, TypeError) as error:
        raise KdcoreError(f"engine: {error}") from error


def flattened(values: Any, path: str = "") -> dict[str, Any]:
    """Nested mappings and lists as ``a.b.0.c`` → value."""
    if isinstance(values, Mapping) and values:
        return {key: value for name, each in values.items() for key, value in flattened(each, f"{path}.{name}" if path else str(name)).items()}
    if isinstance(values, list) and values and any(isinstance(each, dict | list) for each in values):
        return {key: value for index, each in enumerate(values) for key, value in flattened(each, f"{path}.{index}").items()}
    return {path: values}



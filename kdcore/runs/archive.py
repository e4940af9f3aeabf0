"""What a run leaves behind, in its folder and with MLflow."""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from kdcore import __version__
from kdcore.contracts.dataset import Sample
from kdcore.data.data_cache import PLACES
from kdcore.data.table import Table
from kdcore.deploy.bundle import save_student
from kdcore.recipe.graph import StagePlan
from kdcore.recipe.models import Recipe, modalities_of
from kdcore.results import served_file
from kdcore.results.examples import gather_examples
from kdcore.results.explaining import Explainer
from kdcore.results.sections import write_report
from kdcore.results.tracking import NullTracker, Tracker
from kdcore.runs.outcome import Outcome, write_outcome
from kdcore.runs.records import FACTS, outcome_file, read_run
from kdcore.runs.summarise import facts_of, flattened, means, metric_prefix, summarise
from kdcore.runs.summary import Summary
from kdcore.runs.weights import baseline_file, save_fusion, student_folder, teacher_file
from kdcore.training.assembly import BASELINE, DISTILLED, Assembly
from kdcore.training.checkpoint import save_weights, write_file
from kdcore.training.participants import Distiller


class Archive:
    """Keeps and tracks one run.

    Args:
        recipe: What is run.
        folder: Of the run.
        tracker: Sends it to MLflow.
        versions: Of the plugins used.
        command: Repeats the run.
        part: Part of the split that is evaluated.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        tracker: Tracker | NullTracker,
        versions: Mapping[str, str],
        command: Sequence[str],
        part: str = "test",
    ):
        self.recipe, self.folder, self.tracker = recipe, folder, tracker
        self.versions, self.command, self.part = dict(versions), list(command), part

    def begin(self, table: Table, stages: Sequence[StagePlan], arms: Sequence[str]) -> None:
        """Keep and track what is run, on what."""
        facts = facts_of(self.recipe, table, stages, arms, self.versions, self.part, self.command)
        write_file(self.folder / FACTS, facts.content())
        recipe, dataset = self.recipe, self.recipe.data.dataset
        tags = {
            "recipe": recipe.name, "recipe_hash": recipe.hash, "run": self.folder.name,
            "kdcore": __version__, "dataset": dataset.name,
            "dataset_fingerprint": table.fingerprint, "split": table.split.rule, "command": shlex.join(self.command),
            "torch": torch.__version__, **{f"plugin.{name}": version for name, version in self.versions.items()},
            "mlflow.note.content": recipe.description, "mlflow.user": os.environ.get("USER", ""),
            "mlflow.source.name": "kdcore",
            **recipe.tracking.tags,
        }  # fmt: skip
        self.tracker.start("root", recipe.name, None, tags, flattened(recipe.filled()))
        for name in ("recipe.yaml", FACTS):
            self.tracker.artifact("root", self.folder / name)
        if (self.folder / "plugins").is_dir():
            self.tracker.artifact("root", self.folder / "plugins")
        source = str(dataset.options.get("root", dataset.name))
        for part, context in (("train", "training"), ("test", "testing")):
            self.tracker.dataset("root", f"{dataset.name}-{part}", table.fingerprint, source, context)

    def begin_seed(self, seed: int) -> str:
        """Track a seed; returns its run's local name."""
        child = f"seed-{seed}"
        params = {**flattened(self.recipe.filled()), "seed": seed}  # the parent's, too, so that seeds of two runs compare
        self.tracker.start(child, f"{self.recipe.name} seed {seed}", "root", {"seed": seed}, params)
        return child

    def keep(self, assembly: Assembly, distiller: Distiller, table: Table, seed: int, outcome: Outcome) -> None:
        """Write an arm's results and weights (of the baseline, the first seed's alone); track its test metrics."""
        path = outcome_file(self.folder, seed, outcome.arm)
        write_outcome(path, outcome)
        self.tracker.artifact("root", path, "results")
        child = f"seed-{seed}"
        prefix = metric_prefix(self.part) + ("" if outcome.arm == DISTILLED else f"/{BASELINE}")
        for name, evaluation in outcome.evaluations().items():
            metrics = {f"{prefix}/{name}/{metric}": value for metric, value in evaluation.metrics().items()}
            self.tracker.metrics(child, metrics, 0)
        if outcome.arm == DISTILLED:
            for name in distiller.teachers:
                digest = save_weights(teacher_file(self.folder, seed, name), distiller.participant(name).state_dict())
                self.tracker.tags(child, {f"teacher.{name}": digest})
            save_fusion(self.folder, distiller, seed)
            for name in distiller.students:
                self._keep_student(assembly, distiller, table, seed, name)
        elif seed == self.recipe.seeds[0]:
            for name in distiller.students:
                save_weights(baseline_file(self.folder, seed, name), distiller.participant(name).state_dict())

    def conclude(self, assembly: Assembly, table: Table, hook: Any) -> tuple[Summary, Path, dict[str, float]]:
        """Summarise all seeds and write the report; plugins' `hook` tells where participants looked."""
        run = read_run(self.folder)
        seed = self.recipe.seeds[0]
        first = {arm: outcomes[seed] for arm, outcomes in run.outcomes.items()}
        explainer = Explainer(assembly, table, self.folder, self.part, seed, first, hook)
        examples = gather_examples(assembly, table, self.part, first, explainer)
        summary = summarise(self.recipe, run, self.tracker.describe(), examples)
        report = self.folder / "report.html"
        write_report(report, summary)
        return summary, report, means(summary)

    def end(self, assembly: Assembly, table: Table, report: Path, overall: Mapping[str, float]) -> None:
        """Track what `conclude` wrote, and the students as models; the last that is tracked of a run.

        MLflow loads every model to try it out, beside whatever runs then, which must not be training: making a network draws
        random numbers.
        """
        self.tracker.metrics("root", overall, 0)
        self.tracker.artifact("root", report)
        for picture in sorted((self.folder / "pictures").iterdir()):
            self.tracker.artifact("root", picture, "pictures")
        for seed in self.recipe.seeds:
            for name in self.recipe.student_specs:
                self._track_model(assembly, table, seed, name)
            self._track_ensemble(assembly, table, seed)
            self.tracker.finish(f"seed-{seed}")
        self.tracker.finish("root")

    def stopped(self, status: Literal["KILLED", "FAILED"], done: Collection[int]) -> None:
        """Track that the run stopped short, after seeds that are `done`, without what a resumed run will track again."""
        self.tracker.rewind(self.tracker.position)
        whole = {f"seed-{seed}" for seed in done}
        for name in self.tracker.under_way():
            self.tracker.finish(name, "FINISHED" if name in whole else status)
        self.tracker.commit()

    def _keep_student(self, assembly: Assembly, distiller: Distiller, table: Table, seed: int, name: str) -> None:
        folder = student_folder(self.folder, seed, name)
        description = self._description(assembly, table, name)
        save_student(folder, assembly.pipelines[name], distiller.participant(name).encoder, description)
        self.tracker.artifact(f"seed-{seed}", folder, "students")

    def _track_model(self, assembly: Assembly, table: Table, seed: int, name: str) -> None:
        if len(assembly.pipelines[name].branches) == 1:  # MLflow's example input is one array
            files = {"student": student_folder(self.folder, seed, name)}
            example = _raw_example(assembly, table, name)
            self.tracker.model(f"seed-{seed}", name, served_file(), files, example, [f"kdcore=={__version__}"])

    def _track_ensemble(self, assembly: Assembly, table: Table, seed: int) -> None:
        names = list(self.recipe.student_specs)
        if len(names) > 1 and len(modalities_of(assembly.specs[name] for name in names)) == 1:
            files, example = {"student": self.folder / "students" / f"seed-{seed}"}, _raw_example(assembly, table, names[0])
            self.tracker.model(f"seed-{seed}", "ensemble", served_file(), files, example, [f"kdcore=={__version__}"])

    def _description(self, assembly: Assembly, table: Table, name: str) -> dict[str, Any]:
        """All that loading the student needs, with every default written out."""
        recipe, spec = self.recipe, assembly.specs[name]
        filled = recipe.filled()
        member = filled["students"][name] if filled["students"] else filled["student"]
        chains = member["transforms"] if isinstance(member["transforms"], dict) else {spec.modalities[0]: member["transforms"]}
        signal = table.batch(table.parts["train"][:1], [name]).signals[name]
        with torch.no_grad():
            in_shape = assembly.pipelines[name].live.eval()(signal).shape[1:]
        options = {key: value for key, value in filled["data"]["dataset"].items() if key not in ("name", *PLACES)}
        return {
            "name": name,
            "recipe": {"name": recipe.name, "hash": recipe.hash},
            "kdcore": __version__,
            "plugins": self.versions,
            "dataset": {"name": recipe.data.dataset.name, "fingerprint": table.fingerprint, "options": options},
            "classes": list(table.classes),
            "in_shape": list(in_shape),
            "recorded": {modality: _recorded(assembly, table, modality) for modality in spec.modalities},
            "encoder": member["encoder"],
            "transforms": {key: chains.get(key, []) for key in (*spec.modalities, "joined")},
            "window": filled["data"]["window"],
        }


def _recorded(assembly: Assembly, table: Table, modality: str) -> dict[str, Any]:
    """What a recording of this modality looks like."""
    signal = assembly.dataset.read(_first(table), modality)
    return {"shape": list(signal.values.shape), "dtype": str(signal.values.dtype), "rate": signal.rate}


def _raw_example(assembly: Assembly, table: Table, name: str) -> np.ndarray:
    modality = assembly.pipelines[name].branches[0].modality
    values = np.asarray(assembly.dataset.read(_first(table), modality.name).values)[None]
    return values.astype(np.float32) if values.dtype == np.float64 else values


def _first(table: Table) -> Sample:
    """The first training sample that could be read."""
    key = replace(table.keys[int(table.parts["train"][0])], window=0)
    return next(sample for sample in table.split.parts["train"] if sample.key == key)

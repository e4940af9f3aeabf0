"""The predictions of one arm and seed, stored on disk."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kdcore.contracts.target import OF_CLASSES, Target, known, read_target
from kdcore.errors import CheckpointError
from kdcore.runs.metrics import combine
from kdcore.runs.target_metrics import evaluate_target
from kdcore.training.checkpoint import write_file

JOINT_TEACHERS = "teachers (mean)"
_WINDOW = re.compile(r", window \d+$")
"""Suffix of a key's text; omitted for a recording's first window."""

Rule = Literal["average", "max"]

ENSEMBLES: dict[str, Rule] = {"students (average)": "average", "students (max)": "max"}


@dataclass(frozen=True)
class Outcome:
    """Predictions on the evaluated split.

    Args:
        arm: ``distilled`` or ``baseline``.
        probabilities: Participant → (n, classes) class probabilities; for other targets, label probabilities or values in
            their units. NaN in rows without the participant's signals.
        labels: (n,) class indices; (n, names) for other targets.
        keys: Sample key of each row, as text.
        parameters: Participant → number of its encoder's parameters.
        seconds: Training time.
        teachers: Names of the teachers.
        students: Names of the students.
        memory: Peak memory in bytes, of the accelerator or else of the process; None if unknown.
        trained: Participant → number of parameters that were trained.
        notes: Remarks on the training, for readers of the results.
        target: Kind of the labels, with the statistics of values.
        names: Names of the labels or values; empty for classes.
        origins: Students from which others start: earlier phases, and no members of ensembles.
        copies: Teachers that are copies of a trained participant, and no members of ensembles.
    """

    arm: str
    probabilities: Mapping[str, np.ndarray]
    labels: np.ndarray
    keys: Sequence[str]
    parameters: Mapping[str, int]
    seconds: float
    teachers: Sequence[str]
    students: Sequence[str]
    memory: int | None = None
    trained: Mapping[str, int] = field(default_factory=dict)
    notes: Sequence[str] = ()
    target: Target = OF_CLASSES
    names: Sequence[str] = ()
    origins: Sequence[str] = ()
    copies: Sequence[str] = ()

    @property
    def joint_teachers(self) -> list[str]:
        """The teachers whose outputs are averaged: all but copies."""
        return [name for name in self.teachers if name not in self.copies]

    def _mean_of_teachers(self) -> np.ndarray:
        """Mean of the teachers' outputs where all of them have the sample's signals, else NaN."""
        outputs = [self.probabilities[name] for name in self.joint_teachers]
        complete = ~np.isnan(np.stack(outputs)).any((0, 2))
        mean = np.full_like(outputs[0], np.nan, dtype=np.float64)
        if complete.any():
            mean[complete] = combine([each[complete] for each in outputs], "average", self.target.is_classes)
        return mean

    def _recordings(self) -> np.ndarray | None:
        """(n,) the recording that each row is a window of; None if there are no windows."""
        names = [_WINDOW.sub("", key) for key in self.keys]
        return np.array(names) if names != list(self.keys) else None

    def subjects(self) -> np.ndarray:
        """The subject of each labelled row, by its key."""
        names = np.array([key.partition(", action ")[0] for key in self.keys])
        return names[known(self.labels)]

    @property
    def members(self) -> list[str]:
        """The students that form ensembles."""
        return [name for name in self.students if name not in self.origins]

    @property
    def ensembles(self) -> dict[str, Rule]:
        """Label → rule of the ensembles of several students; of values, only their average means anything."""
        if len(self.members) < 2:
            return {}
        return {label: rule for label, rule in ENSEMBLES.items() if rule == "average" or self.target.kind != "values"}

    def evaluations(self) -> dict[str, Any]:
        """Every participant's evaluation, and those of teachers and students combined where there are several.

        They are `kdcore.Evaluation` where samples have classes, `kdcore.LabelEvaluation` or `kdcore.ValueEvaluation` otherwise.
        """
        everybody = dict(self.probabilities)
        if len(self.joint_teachers) > 1:
            everybody[JOINT_TEACHERS] = self._mean_of_teachers()
        for label, rule in self.ensembles.items():
            members = [self.probabilities[name] for name in self.members]
            everybody[label] = combine(members, rule, self.target.is_classes)
        evaluations, recordings = {}, self._recordings()
        for name, probabilities in everybody.items():
            labelled = known(self.labels)
            complete = ~np.isnan(probabilities[labelled]).any(1)
            if complete.any():
                windows = None if recordings is None else recordings[labelled][complete]
                outputs, labels = probabilities[labelled][complete], self.labels[labelled][complete]
                evaluation = evaluate_target(self.target, self.names, outputs, labels, windows)
                evaluations[name] = evaluation if complete.all() else replace(evaluation, rows=np.flatnonzero(complete))
        return evaluations


def write_outcome(path: Path, outcome: Outcome) -> None:
    """Write an outcome atomically."""
    head = {
        "arm": outcome.arm, "keys": list(outcome.keys), "parameters": dict(outcome.parameters), "seconds": outcome.seconds,
        "teachers": list(outcome.teachers), "students": list(outcome.students), "memory": outcome.memory,
        "trained": dict(outcome.trained),
        "notes": list(outcome.notes),
        **({"origins": list(outcome.origins)} if outcome.origins else {}),
        **({"copies": list(outcome.copies)} if outcome.copies else {}),
        **({} if outcome.target.is_classes else {"target": asdict(outcome.target), "names": list(outcome.names)}),
    }  # fmt: skip
    buffer = io.BytesIO()
    arrays = {f"probabilities.{name}": values for name, values in outcome.probabilities.items()}
    np.savez(buffer, head=np.array(json.dumps(head)), labels=outcome.labels, **arrays)  # type: ignore[arg-type]
    write_file(path, buffer.getvalue())


def read_outcome(path: Path) -> Outcome:
    """Read an outcome.

    Raises:
        CheckpointError: If it is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            head = json.loads(str(file["head"]))
            head["target"] = read_target(head.get("target"))
            prefix = "probabilities."
            probabilities = {key.removeprefix(prefix): file[key] for key in file.files if key.startswith(prefix)}
            return Outcome(probabilities=probabilities, labels=file["labels"], **head)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: not a readable result: {error}") from error

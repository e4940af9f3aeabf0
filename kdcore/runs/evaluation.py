"""A run's saved students once more on recordings of its split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from kdcore.contracts.dataset import Dataset
from kdcore.contracts.modality import Signal
from kdcore.contracts.protocol import Split
from kdcore.data.preparation import load_split
from kdcore.deploy.bundle import DESCRIPTION, load_student
from kdcore.errors import DataError
from kdcore.plugin.manager import plugin_manager
from kdcore.recipe.build import Builder
from kdcore.recipe.models import modalities_of
from kdcore.runs.metrics import combine, evaluate
from kdcore.runs.outcome import ENSEMBLES
from kdcore.runs.paths import find_run
from kdcore.runs.records import recipe_of
from kdcore.runs.saved_students import saved_seeds


class Recordings:
    """The recordings that a run was trained and tested on, by the parts of its split.

    Args:
        run: Id or folder of the run.

    Raises:
        KdcoreError: If there is no such run, or its recordings are not where they were.
    """

    def __init__(self, run: str | Path):
        self.folder = find_run(str(run))
        plugins = plugin_manager()
        recipe = recipe_of(self.folder, plugins)
        builder = Builder(recipe, plugins)
        self.dataset: Dataset = builder.dataset()
        self.skip_bad = recipe.data.on_bad_sample == "skip"
        modalities = modalities_of(recipe.participants.values())
        with builder.locating_data_errors():
            self.split: Split = load_split(self.dataset, builder.protocol(), recipe.data, modalities)[1]

    def clips(self, part: str, modalities: Sequence[str]) -> Iterator[tuple[dict[str, Signal], int | None]]:
        """Signals and label of every sample of a part that can be read.

        Raises:
            DataError: If one cannot, unless the run's recipe skips bad samples.
        """
        for sample in self.split.parts[part]:
            try:
                yield {name: self.dataset.read(sample, name) for name in modalities}, sample.label
            except DataError:
                if not self.skip_bad:
                    raise


def evaluate_run(run_id: str) -> Iterator[str]:
    """A line for every student of a run, and for all of a seed's taken together: what it is worth on the test part.

    Raises:
        KdcoreError: If the run has saved no student, or the recordings are no longer there.
    """
    recordings = Recordings(run_id)
    for folder in saved_seeds(recordings.folder).values():
        answers: dict[str, np.ndarray] = {}
        labels = np.empty(0, dtype=np.int64)
        for path in sorted(each.parent for each in folder.glob(f"*/{DESCRIPTION}")):
            answers[path.name], labels = _answers(path, recordings)
        if len(answers) > 1:
            members = list(answers.values())
            answers |= {label: combine(members, rule) for label, rule in ENSEMBLES.items()}  # type: ignore[arg-type]
        for name, probabilities in answers.items():
            metrics = evaluate(probabilities, labels).metrics()
            yield f"{folder.name} {name}: " + "  ".join(f"{metric} {value:.4f}" for metric, value in metrics.items())


def _answers(path: Path, recordings: Recordings) -> tuple[np.ndarray, np.ndarray]:
    student = load_student(path)
    probabilities, labels = [], []
    for signals, label in recordings.clips("test", student.modalities):
        try:
            rows = student.predict(signals)
        except DataError:
            if not recordings.skip_bad:
                raise
            continue
        if label is not None:
            probabilities.append(rows)
            labels += [label] * len(rows)
    return np.concatenate(probabilities), np.array(labels)

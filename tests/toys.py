"""A dataset of small files, and what is made of it without the rest of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from kdcore import Dataset, Modality, Participant, Protocol, Sample, SampleKey, SampleTransform, Signal, Splits, Transform
from kdcore.data.branch import Branch
from kdcore.data.pipeline import Pipeline
from kdcore.data.preparation import load_table
from kdcore.data.table import Table
from kdcore.errors import DataError
from kdcore.recipe.models import DataSpec

WRIST = Modality("wrist", ("time", "channel"), ("channel", "time"), "m/s^2", 10.0)
ANKLE = WRIST.renamed("ankle", rate=20.0)


def write(folder: Path, subjects: int = 4, trials: int = 2, classes: int = 2, seconds: float = 1.0) -> Path:
    """One .npy file per sample and modality; wrist has 10 samples per second, ankle 20."""
    for subject in range(subjects):
        for action in range(classes):
            for trial in range(trials):
                number = (subject * classes + action) * trials + trial
                for name, rate, channels in (("wrist", 10, 2), ("ankle", 20, 3)):
                    values = np.random.default_rng(number).normal(action, 1, (round(seconds * rate), channels))
                    np.save(folder / f"{name}-s{subject}-a{action}-t{trial}.npy", values)
    return folder


class Files(Dataset):
    """Reads what `write` wrote, and counts its readings."""

    def __init__(self, root: Path, classes: int = 2, starts: Mapping[str, float] | None = None):
        self.modalities = {"wrist": WRIST, "ankle": ANKLE}
        self.root, self.classes = root, [f"class {n}" for n in range(classes)]
        self.starts = dict(starts or {})
        self.reads: Counter[str] = Counter()

    def samples(self) -> Sequence[Sample]:
        found: dict[SampleKey, dict[str, object]] = {}
        for path in sorted(self.root.glob("*.npy")):
            modality, subject, action, trial = path.stem.split("-")
            found.setdefault(SampleKey(subject, action, trial), {})[modality] = path
        return [Sample(key, int(key.action[1:]), sources) for key, sources in sorted(found.items())]

    def read(self, sample: Sample, modality: str) -> Signal:
        self.reads[modality] += 1
        path = sample.sources[modality]
        try:
            values = np.load(path)  # type: ignore[arg-type]
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{path}: damaged") from error
        return Signal(values, self.modalities[modality].rate or 1.0, self.starts.get(modality, 0.0))


class BySubject(Protocol):
    """Subject s2 validates, s3 tests, all others train."""

    def split(self, samples: Sequence[Sample]) -> Splits:
        split_of = {"s2": "validation", "s3": "test"}
        splits: dict[str, list[Sample]] = {"train": [], "validation": [], "test": []}
        for sample in samples:
            splits[split_of.get(sample.key.subject, "train")].append(sample)
        return Splits({split: tuple(found) for split, found in splits.items()}, "by subject", ("subject",))


class Times(SampleTransform):
    def __init__(self, factor: float = 1.0):
        self.factor = factor

    def __call__(self, signal: Signal) -> Signal:
        return signal.with_values(signal.values * self.factor)


class Centre(Transform):
    """Subtracts the mean of all that it was fitted on; remembers it."""

    fitted = True

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))
        self.seen: list[torch.Tensor] = []

    def fit(self, x: torch.Tensor) -> None:
        self.seen.append(x.clone())
        self.mean = x.mean()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - self.mean


class Noise(Transform):
    augmentation = True

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.rand_like(x) + 100


class Doubled(Transform):
    """Done per batch."""

    per_batch = True

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2


def branch(modality: Modality = WRIST, factor: float = 1.0, on_batches: Sequence[nn.Module] = ()) -> Branch:
    return Branch(modality, [Times(factor)], list(on_batches), f'["times", {factor}]')  # type: ignore[arg-type]


def spec(**options: Any) -> DataSpec:
    return DataSpec.model_validate({"dataset": "files", "protocol": "by-subject"} | options)


def table(data: Files, pipelines: Mapping[str, Pipeline], cache: Path, memory_limit: int = 1 << 30, **options: Any) -> Table:
    return load_table(data, BySubject(), spec(**options), pipelines, cache, memory_limit)


def participant(name: str, channels: int, classes: int = 2, seed: int = 0, **options: Any) -> Participant:
    """A network with batch normalisation and dropout, tapped before its last layer."""
    torch.manual_seed(seed)
    layers = [nn.Conv1d(channels, 4, 3, padding=1), nn.BatchNorm1d(4), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten()]
    encoder = nn.Sequential(*layers, nn.Dropout(0.2), nn.Linear(4, classes))
    return Participant(name, encoder, {"features": "4"}, **options)

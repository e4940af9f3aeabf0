"""Datasets, protocols, class embeddings and modalities with one fault each. Those called `Plain…` have none."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from faults import add, caught_by, sound

from kdcore import ClassEmbeddings, DataError, Dataset, Modality, Protocol, Sample, SampleKey, Signal, Splits
from kdcore.testing import Case

WRIST = Modality("wrist", ("time", "channel"), ("channel", "time"), "m/s^2", 10.0, ("x", "y", "z"), description="A sensor.")


def recordings(folder: Path) -> dict[str, Any]:
    for subject in range(2):
        for action in range(2):
            values = np.random.default_rng(subject + 10 * action).normal(size=(8, 3))
            np.save(folder / f"{subject}-{action}.npy", values)
    return {"root": folder}


FILES = Case(recordings)


@sound("dataset", FILES)
class PlainDataset(Dataset):
    """A folder of arrays.

    Args:
        root: The folder.
    """

    classes = ("walk", "run")

    def __init__(self, *, root: Path):
        self.root = root
        self.modalities = {"wrist": WRIST}

    def samples(self) -> Sequence[Sample]:
        paths = sorted(self.root.glob("*.npy"))
        if not paths:
            raise DataError(f"{self.root}: holds no recordings")
        return [self.sample(path, *path.stem.split("-")) for path in paths]

    def sample(self, path: Path, subject: str, action: str) -> Sample:
        return Sample(SampleKey(subject, action, "1"), int(action), {"wrist": path})

    def read(self, sample: Sample, modality: str) -> Signal:
        path = Path(str(sample.sources[modality]))
        try:
            return Signal(np.load(path), 10.0)
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: {error}") from error


@caught_by("dataset", "finds_samples", case=FILES)
class Empty(PlainDataset):
    """Finds nothing.

    Args:
        root: The folder.
    """

    def samples(self) -> Sequence[Sample]:
        return super().samples()[:0]


@caught_by("dataset", "keys_unique", case=FILES)
class Nameless(PlainDataset):
    """Gives all recordings of an action one key.

    Args:
        root: The folder.
    """

    def sample(self, path: Path, subject: str, action: str) -> Sample:
        return replace(super().sample(path, subject, action), key=SampleKey("", action, "1"))


@caught_by("dataset", "labels_in_range", case=FILES)
class FromOne(PlainDataset):
    """Counts labels from one.

    Args:
        root: The folder.
    """

    def sample(self, path: Path, subject: str, action: str) -> Sample:
        return replace(super().sample(path, subject, action), label=int(action) + 1)


@caught_by("dataset", "modalities_named", case=FILES)
class Misnamed(PlainDataset):
    """Has a modality that goes by another name.

    Args:
        root: The folder.
    """

    def __init__(self, *, root: Path):
        super().__init__(root=root)
        self.modalities = {"wrist": WRIST.renamed("ankle")}


@caught_by("dataset", "reads", case=FILES)
class Unreadable(PlainDataset):
    """Cannot read its last recording.

    Args:
        root: The folder.
    """

    def read(self, sample: Sample, modality: str) -> Signal:
        if sample.key == self.samples()[-1].key:
            raise KeyError(modality)
        return super().read(sample, modality)


@caught_by("dataset", "signals_fit", case=FILES)
class Transposed(PlainDataset):
    """Has channels where time should be.

    Args:
        root: The folder.
    """

    def read(self, sample: Sample, modality: str) -> Signal:
        signal = super().read(sample, modality)
        return signal.with_values(signal.values.T)


@caught_by("dataset", "clocks_run", case=FILES)
class Standing(PlainDataset):
    """Has a rate of minus one.

    Args:
        root: The folder.
    """

    def read(self, sample: Sample, modality: str) -> Signal:
        return replace(super().read(sample, modality), rate=-1.0, times=np.arange(8.0))


@caught_by("dataset", "repeatable", case=FILES)
class Noisy(PlainDataset):
    """Reads something else each time.

    Args:
        root: The folder.
    """

    def read(self, sample: Sample, modality: str) -> Signal:
        signal = super().read(sample, modality)
        return signal.with_values(signal.values + np.random.default_rng().normal())


@caught_by("dataset", "fingerprint_stable", case=FILES)
class Versioned(PlainDataset):
    """Calls itself another version each time.

    Args:
        root: The folder.
    """

    def __init__(self, *, root: Path):
        super().__init__(root=root)
        self.version = uuid4().hex


@caught_by("dataset", "missing_folder_clear", case=FILES)
class Eager(PlainDataset):
    """Looks into the folder at once.

    Args:
        root: The folder.
    """

    def __init__(self, *, root: Path):
        super().__init__(root=root)
        self.files = os.listdir(root)


@caught_by("dataset", "damaged_file_clear", case=FILES)
class Careless(PlainDataset):
    """Lets the library speak of damaged files.

    Args:
        root: The folder.
    """

    def read(self, sample: Sample, modality: str) -> Signal:
        return Signal(np.load(Path(str(sample.sources[modality]))), 10.0)


@sound("protocol")
class PlainProtocol(Protocol):
    """The last subject tests."""

    def split(self, samples: Sequence[Sample]) -> Splits:
        if not samples:
            raise DataError("there are no samples to split")
        ordered = sorted(samples, key=lambda sample: sample.key)
        last = ordered[-1].key.subject
        train = tuple(sample for sample in ordered if sample.key.subject != last)
        test = tuple(sample for sample in ordered if sample.key.subject == last)
        return Splits({"train": train, "validation": (), "test": test}, f"subject {last} tests", ("subject",))


@caught_by("protocol", "splits")
class Silent(PlainProtocol):
    """Does not say its rule."""

    def split(self, samples: Sequence[Sample]) -> Splits:
        return replace(super().split(samples), rule="")


@caught_by("protocol", "disjoint")
class Leaking(PlainProtocol):
    """Calls views disjoint, which are not."""

    def split(self, samples: Sequence[Sample]) -> Splits:
        return replace(super().split(samples), disjoint=("subject", "view"))


@caught_by("protocol", "covers")
class Losing(PlainProtocol):
    """Loses a sample and does not say so."""

    def split(self, samples: Sequence[Sample]) -> Splits:
        found = super().split(samples)
        return replace(found, samples={**found.samples, "train": found.samples["train"][1:]})


@caught_by("protocol", "deterministic")
class AsGiven(PlainProtocol):
    """Keeps the order in which samples come."""

    def split(self, samples: Sequence[Sample]) -> Splits:
        found = super().split(samples)
        trains = {sample.key for sample in found.samples["train"]}
        return replace(found, samples={**found.samples, "train": tuple(sample for sample in samples if sample.key in trains)})


@caught_by("protocol", "refusals_clear")
class Blunt(PlainProtocol):
    """Speaks of an index where there are no samples."""

    def split(self, samples: Sequence[Sample]) -> Splits:
        samples[0]
        return super().split(samples)


@sound("class_embedding")
class PlainEmbedding(ClassEmbeddings):
    """Vectors that follow from the letters."""

    def table(self, classes: Sequence[str]) -> np.ndarray:
        return np.stack([np.random.default_rng(list(name.encode())).normal(size=6) for name in classes]).astype(np.float32)


@caught_by("class_embedding", "table")
class DoublePrecision(PlainEmbedding):
    """Gives double precision."""

    def table(self, classes: Sequence[str]) -> np.ndarray:
        return super().table(classes).astype(np.float64)


@caught_by("class_embedding", "classes_differ")
class Constant(PlainEmbedding):
    """Takes all classes for one."""

    def table(self, classes: Sequence[str]) -> np.ndarray:
        return np.ones((len(classes), 6), np.float32)


@caught_by("class_embedding", "rows_follow_names")
class Positional(PlainEmbedding):
    """Adds where a class stands."""

    def table(self, classes: Sequence[str]) -> np.ndarray:
        return super().table(classes) + np.arange(len(classes), dtype=np.float32)[:, None]


@caught_by("class_embedding", "deterministic")
class Trembling(PlainEmbedding):
    """Adds a little noise."""

    def table(self, classes: Sequence[str]) -> np.ndarray:
        return super().table(classes) + np.random.normal(size=6, scale=2e-6).astype(np.float32)


ankle = WRIST
add("modality", __name__, "ankle", "well_formed")
wrist = WRIST
add("modality", __name__, "wrist")

"""Datasets: samples joined by key, each with one signal per modality."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from kdcore.contracts.target import OF_CLASSES, Target

if TYPE_CHECKING:
    from kdcore.contracts.modality import Modality, Signal


@dataclass(frozen=True, order=True)
class SampleKey:
    """Identifies a sample across modalities; signals with the same key are joined.

    `window` is the index of a window cut from the recording; 0 for whole recordings.
    """

    subject: str
    action: str
    trial: str
    view: str = ""
    scene: str = ""
    session: str = ""
    window: int = 0

    def __str__(self) -> str:
        text = f"subject {self.subject}, action {self.action}, trial {self.trial}"
        for name, value in (("view", self.view), ("scene", self.scene), ("session", self.session), ("window", self.window)):
            if value:
                text += f", {name} {value}"
        return text


@dataclass(frozen=True)
class Sample:
    """One sample: its key, its label, and the sources of its modalities.

    Args:
        key: Key, unique within the dataset.
        label: Index into the dataset's classes; None if unknown.
        sources: Modality → file (a `Path`, which enters the dataset's fingerprint), or any other object that the dataset's
            `read` accepts. Modalities that were not recorded are absent.
        target: Replaces the label for the targets ``labels`` (0 or 1 per name, NaN if unknown) and ``values`` (a number per
            name, NaN if unknown); None if nothing is known.
        weight: Sample weight in terms that read labels; greater than 0.
    """

    key: SampleKey
    label: int | None
    sources: Mapping[str, object] = field(default_factory=dict)
    target: tuple[float, ...] | None = None
    weight: float = 1.0

    @property
    def is_labelled(self) -> bool:
        """True if its class, labels or values are known."""
        return self.label is not None or self.target is not None


LARGEST = 1e30
"""Magnitude above which sums in float32 may overflow; values and weights below its inverse may underflow."""


def wrong_weight(weight: float) -> str:
    """Describe what is wrong with a sample weight; empty if it is valid."""
    if not (math.isfinite(weight) and weight > 0):
        return f"its weight must be a number greater than 0, not {weight:g}; leave out samples that should not count"
    if not 1 / LARGEST < weight < LARGEST:
        return f"its weight must be between {1 / LARGEST:g} and {LARGEST:g}, not {weight:g}"
    return ""


@dataclass(frozen=True)
class Unusable:
    """A recording that a dataset found but could not or must not turn into a sample.

    Args:
        what: The file, and its rows if only some are affected.
        reason: Short reason, the same for all similar cases, such as ``fewer than two rows``; cases are counted by it.
        detail: What is wrong with this recording.
        subject: Subject of the recording, if known.
        fault: True for a damaged recording, which the recipe's ``on_bad_sample`` handles; False for one that the dataset's
            options exclude.
    """

    what: str
    reason: str
    detail: str = ""
    subject: str = ""
    fault: bool = True

    def __str__(self) -> str:
        return f"{self.what}: {self.detail or self.reason}"


class Dataset(ABC):
    """Base class of datasets: collections of recordings. Constructors only store their options and open no files.

    Attributes:
        classes: Class names in the order of the class indices; for other targets, names of the labels or values.
        target: Kind of the labels: one class per sample (default), several labels, or values. Set it in the constructor.
        weighted: True if samples may have weights. Set it in the constructor.
        modalities: Name → modality that a sample may have.
        version: Part of the fingerprint; change it when the same files would be read differently.
        unusable: Recordings that did not become samples; set by each call of `samples`.
        notes: Remarks on the recordings for the user, such as filled-in values; set by each call of `samples`.
    """

    classes: Sequence[str]
    modalities: Mapping[str, Modality]
    target: Target = OF_CLASSES
    weighted: bool = False
    version: str = "1"
    unusable: Sequence[Unusable] = ()
    notes: Sequence[str] = ()

    @abstractmethod
    def samples(self) -> Sequence[Sample]:
        """List all samples, in an order that does not depend on the file system.

        A damaged recording does not raise: add it to `unusable`.

        Raises:
            DataError: If the folder is missing, unreadable or holds no recordings.
        """

    @abstractmethod
    def read(self, sample: Sample, modality: str) -> Signal:
        """Read one signal of a sample, as recorded.

        Raises:
            DataError: If the file is damaged; names it and what is wrong.
        """

    def read_file(self, path: Path, modality: str) -> Signal:
        """Read a file in this dataset's format that belongs to no sample, for prediction.

        Raises:
            DataError: If the file cannot be read as that modality.
        """
        return self.read(Sample(SampleKey("", "", ""), None, {modality: path}), modality)

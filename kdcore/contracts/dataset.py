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
    """The recording that a sample comes from: the identity by which modalities are joined.

    `window` counts the windows cut from one recording; a sample as recorded has window 0.
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
    """One sample: its key, its label, and the source of each modality.

    Args:
        key: Identity, unique within the dataset.
        label: Index into the dataset's classes; None if unknown.
        sources: Modality name → file (a `Path`, which enters the dataset's fingerprint) or another object that the dataset's
            `read` accepts. A modality that was not recorded is absent.
        target: Replaces the label if the dataset's target is ``labels`` (0 or 1 for each name, NaN if unknown) or ``values``
            (a number for each name, NaN if unknown); None if nothing is known.
        weight: Weight of the sample in terms that read labels; greater than 0.
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
"""Magnitude beyond which sums in float32 may overflow; values and weights below its inverse may vanish."""


def wrong_weight(weight: float) -> str:
    """Problem with a sample's weight; empty if there is none."""
    if not (math.isfinite(weight) and weight > 0):
        return f"its weight must be a number greater than 0, not {weight:g}; leave out samples that should not count"
    if not 1 / LARGEST < weight < LARGEST:
        return f"its weight must be between {1 / LARGEST:g} and {LARGEST:g}, not {weight:g}"
    return ""


@dataclass(frozen=True)
class Unusable:
    """A recording that does not become a sample.

    Args:
        what: The file, with its rows if they matter.
        reason: Short reason, the same for all recordings with this problem, e.g. ``fewer than two rows``.
        detail: Details of this recording's problem.
        subject: Its subject, if known.
        fault: True for a broken recording, which the recipe's ``on_bad_sample`` applies to; False for one that the dataset's
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
    """A collection of recordings. A constructor only stores its options and opens no file.

    Attributes:
        classes: Names of the classes, in the order of the labels; for other targets, names of the labels or values.
        target: Whether a sample has one class (the default), several labels, or values to estimate. The constructor sets it.
        weighted: True if samples may have weights; the constructor sets it.
        modalities: The modalities of the dataset, by name.
        version: Part of the fingerprint; change it when the same files are read differently.
        unusable: Recordings that do not become samples; `samples` sets it.
        notes: Remarks on the recordings, such as interpolated values; `samples` sets them.
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
        """List every sample, in an order that does not depend on the file system.

        Add recordings that are found to be broken to `unusable`, instead of raising an error.

        Raises:
            DataError: If the folder is missing, unreadable or holds no recordings.
        """

    @abstractmethod
    def read(self, sample: Sample, modality: str) -> Signal:
        """Read one signal of a sample, as recorded.

        Raises:
            DataError: If the file is damaged, naming it and what is wrong.
        """

    def read_file(self, path: Path, modality: str) -> Signal:
        """Read a file of this dataset's format that is not one of its samples, for prediction.

        Raises:
            DataError: If the file cannot be read as that modality.
        """
        return self.read(Sample(SampleKey("", "", ""), None, {modality: path}), modality)

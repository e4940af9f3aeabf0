"""Dataset `skeleton-collection`: many preprocessed skeleton clips in one file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Gt

from kdcore import DataError, Dataset, Sample, SampleKey, Signal, Unusable
from kdcore_datasets.collected_clips import CollectedClip, load_npz, load_pickle
from kdcore_datasets.file_formats import require_finite
from kdcore_datasets.folders import existing_file
from kdcore_datasets.modalities import SKELETON
from kdcore_datasets.pattern import PathPattern


@dataclass(frozen=True)
class ClipSource:
    """The location of a clip: the file and its index in it."""

    path: Path
    number: int


class SkeletonCollection(Dataset):
    """Skeleton clips of a pickle in PYSKL's format, or of a ``.npz`` file with ``x_train``, ``y_train``, ``x_test``, …

    A pickle is a dictionary with ``annotations``, a list of dictionaries with ``frame_dir`` (name of the clip), ``label`` and
    ``keypoint``, an array (person, time, joint, channel), and optionally ``split``, a dictionary from the name of a part, such
    as ``xsub_train``, to names of clips. Only containers and NumPy arrays are loaded.
    In a ``.npz`` file, x is (clips, time, persons × joints × 3) and y is one-hot or integer. Frames that are all zero at the
    end of a clip are removed.

    The parts of a published split become sessions, e.g. ``train`` and ``val``, which the protocol ``cross-session`` splits by.

    Args:
        file: File with the clips.
        classes: Class names in the order of the labels.
        split: Split of a pickle whose parts are the sessions, e.g. ``xsub`` for ``xsub_train`` and ``xsub_val``. Clips in none
            of its parts are skipped.
        names: Pattern of clip names, e.g. ``S{scene}C{view}P{subject}R{trial}A{action}``.
        persons: Persons per clip. Further ones are dropped, and missing ones are zero.
        choose: Persons to keep if a clip has more: the first ones in the file (``order``), or those that move most
            (``motion``), by the sum of their joints' displacements between frames, in the order of the file.
        coordinates: Coordinates of a joint: ``xyz``, ``xy``, or ``xy-confidence``, for which the ``keypoint_score`` of the
            pickle becomes a third channel.
        joints: Joints per person in a ``.npz`` file.
        skeleton: Skeleton layout: a name, or joints, edges and centre.
        rate: Frame rate in Hz.
    """

    def __init__(
        self,
        *,
        file: Path,
        classes: tuple[str, ...],
        split: str = "",
        names: str = "{trial}",
        persons: Annotated[int, Ge(1)] = 2,
        choose: Literal["order", "motion"] = "order",
        coordinates: Literal["xyz", "xy", "xy-confidence"] = "xyz",
        joints: Annotated[int, Ge(1)] = 25,
        skeleton: str | dict[str, Any] = "ntu-25",
        rate: Annotated[float, Gt(0)] = 30.0,
    ):
        self.file = file
        self.classes = classes
        self.split = split
        self.names = PathPattern(names)
        self.persons = persons
        self.joints = joints
        self.rate = rate
        self.choose = choose
        self.coordinates = coordinates
        self.version = f"1 {persons} {joints} {rate}" + (f" {choose} {coordinates}" if (choose, coordinates) != _PLAIN else "")
        form = {} if coordinates == "xyz" else {"units": "", "channels": ("x", "y", "confidence")[: 2 + (coordinates != "xy")]}
        self.modalities = {
            "skeleton": replace(SKELETON.renamed("skeleton", rate=rate, skeleton=skeleton, persons=persons), **form)
        }

    @cached_property
    def _path(self) -> Path:
        return existing_file(self.file)

    @cached_property
    def _clips(self) -> list[CollectedClip]:
        return load_npz(self._path, self.joints) if self._path.suffix == ".npz" else load_pickle(self._path, self.split)

    def samples(self) -> Sequence[Sample]:
        """Return all clips, in file order."""
        if not self._clips:
            raise DataError(f"{self._path}: holds no clips of split {self.split!r}")
        made, unusable = [], []
        for number, clip in enumerate(self._clips):
            try:
                made.append(Sample(self._key(clip), clip.label, {"skeleton": ClipSource(self._path, number)}))
            except DataError as error:
                unusable.append(Unusable(f"{self._path}, clip {clip.name!r}", "unfit name or label", str(error)))
        self.unusable = unusable
        crowded = sum(len(clip.joints) > self.persons for clip in self._clips)
        if crowded:
            rule = "that move most" if self.choose == "motion" else "that come first in the file"
            self.notes = [f"{crowded} of {len(self._clips)} clips have more than {self.persons} persons; those {rule} are kept"]
        return made

    def _key(self, clip: CollectedClip) -> SampleKey:
        values = self.names.match(clip.name)
        if values is None:
            raise DataError(f"{self._path}: clip {clip.name!r} does not fit {self.names.text!r}")
        if not 0 <= clip.label < len(self.classes):
            raise DataError(f"{self._path}: clip {clip.name!r} has label {clip.label}, of {len(self.classes)} classes")
        key = SampleKey("", self.classes[clip.label], "", session=clip.session)
        return replace(key, **{name: _plain(value) for name, value in values.items()})

    def read(self, sample: Sample, modality: str) -> Signal:
        """Read the joint positions of a clip, (time, joint, channel, person)."""
        source = sample.sources[modality]
        if not isinstance(source, ClipSource):
            raise DataError(f"{source}: a file of this dataset is a collection of clips; use it as a dataset instead")
        clip = self._clips[source.number]
        values = require_finite(self._joints(clip), self._path, f"clip {clip.name!r}").transpose(1, 2, 3, 0)
        values = values[..., self._chosen(clip.joints)]
        missing = self.persons - values.shape[-1]
        return Signal(np.pad(values, [(0, 0)] * 3 + [(0, missing)]).astype(np.float32), self.rate)

    def _joints(self, clip: CollectedClip) -> np.ndarray:
        """Return the coordinates of a clip, (person, time, joint, channel).

        Raises:
            DataError: If the clip has other coordinates, or no confidences.
        """
        count, wanted = clip.joints.shape[3], 3 if self.coordinates == "xyz" else 2
        if count != wanted:
            what = f"clip {clip.name!r} has {count} coordinates for each joint, but coordinates is {self.coordinates}"
            raise DataError(f"{self._path}: {what}")
        if self.coordinates != "xy-confidence":
            return clip.joints
        if clip.confidences is None:
            raise DataError(f"{self._path}: clip {clip.name!r} has no keypoint_score; set coordinates: xy")
        return np.concatenate([clip.joints, clip.confidences[..., np.newaxis]], axis=3)

    def _chosen(self, joints: np.ndarray) -> list[int]:
        """Return the persons to keep, in the order of the file."""
        if self.choose == "order" or len(joints) <= self.persons:
            return list(range(min(self.persons, len(joints))))
        motion = np.linalg.norm(np.diff(joints.astype(np.float64), axis=1), axis=-1).sum(axis=(1, 2))
        return sorted(np.argsort(-motion, kind="stable")[: self.persons].tolist())


_PLAIN = ("order", "xyz")


def _plain(value: str) -> str:
    """Return ``7`` for ``007``, as subjects and views are usually written."""
    return str(int(value)) if value.isdecimal() else value

"""UTD-MHAD: one inertial sensor, a Kinect skeleton, depth and colour video of 27 actions by 8 subjects."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from kdcore import DataError, Dataset, Sample, SampleKey, Signal, Unusable, warn
from kdcore_datasets.classes import UTD_MHAD
from kdcore_datasets.file_formats import read_variable, read_video, require_finite, require_shape
from kdcore_datasets.folders import entries, existing_folder, subfolder
from kdcore_datasets.modalities import ACCELEROMETER, DEPTH, GYROSCOPE, KINECT_20, RGB, STANDARD_GRAVITY
from kdcore_datasets.protocols.partition import listed

INERTIAL_RATE, SKELETON_RATE, VIDEO_RATE = 50.0, 30.0, 15.0

Kind = Literal["inertial", "skeleton", "depth", "rgb"]
_FOLDERS: dict[Kind, str] = {"inertial": "Inertial", "skeleton": "Skeleton", "depth": "Depth", "rgb": "RGB"}
_KIND_OF_SUFFIX: dict[str, Kind] = {
    "inertial.mat": "inertial",
    "skeleton.mat": "skeleton",
    "depth.mat": "depth",
    "color.avi": "rgb",
}
_MODALITIES: dict[Kind, tuple[str, ...]] = {
    "inertial": ("accelerometer", "gyroscope"),
    "skeleton": ("skeleton",),
    "depth": ("depth",),
    "rgb": ("rgb",),
}
_FILE = re.compile(r"a(\d+)_s(\d+)_t(\d+)_(inertial\.mat|skeleton\.mat|depth\.mat|color\.avi)", re.IGNORECASE)

Place = tuple[int, int, int]
"""(action, subject, trial), which joins the files of the modalities."""


class UtdMhad(Dataset):
    """UTD-MHAD (Chen, Jafari and Kehtarnavaz, ICIP 2015), as published.

    Paper: https://doi.org/10.1109/ICIP.2015.7350781.

    Files are named ``a{action}_s{subject}_t{trial}_{inertial,skeleton,depth}.mat`` and ``…_color.avi``, in the folders
    Inertial, Skeleton, Depth and RGB (ignoring case), or all in `root`. Modalities without a folder are not available.

    The sensor is worn on the right wrist in actions 1-21 and on the right thigh in the others. A depth clip may contain fewer
    frames than were recorded, at equal intervals. Its rate is therefore its number of frames divided by the duration of the
    clip's skeleton (30 Hz if there is none).

    Args:
        root: Folder of the recordings.
        folders: Other folder names, by ``inertial``, ``skeleton``, ``depth`` or ``rgb``.
    """

    classes = UTD_MHAD

    def __init__(self, *, root: Path, folders: dict[Kind, str] | None = None):
        self.root = root
        self.folders = folders or {}
        self._inertial_read: tuple[object, np.ndarray] = (None, np.empty(0))
        """Last inertial file with its time stamp. Accelerometer and gyroscope share a file."""
        self.modalities = {
            "accelerometer": ACCELEROMETER.renamed("accelerometer", rate=INERTIAL_RATE),
            "gyroscope": GYROSCOPE.renamed("gyroscope", rate=INERTIAL_RATE),
            "skeleton": KINECT_20.renamed("skeleton", rate=SKELETON_RATE),
            "depth": DEPTH,
            "rgb": RGB.renamed("rgb", rate=VIDEO_RATE),
        }
        self._readers = {
            "accelerometer": self._read_accelerometer,
            "gyroscope": self._read_gyroscope,
            "skeleton": self._read_skeleton,
            "depth": self._read_depth,
            "rgb": self._read_rgb,
        }

    def samples(self) -> Sequence[Sample]:
        """Return all clips, by action, subject and trial."""
        root = existing_folder(self.root)
        sources: dict[Place, dict[str, object]] = {}
        for kind in _FOLDERS:
            for place, path in self._files(root, kind):
                clip = sources.setdefault(place, {})
                for modality in _MODALITIES[kind]:
                    if modality in clip:
                        raise DataError(f"{path}: a second {kind} file of the same clip as {clip[modality]}")
                    clip[modality] = path
        if not sources:
            raise DataError(f"{root}: holds no recordings named like a1_s1_t1_inertial.mat; {self._folders_there(root)}")
        kinds: list[Kind] = [kind for kind, names in _MODALITIES.items() if any(names[0] in clip for clip in sources.values())]
        if len(kinds) == 1:
            self._warn_of_one(root, kinds[0])
        strange = [place for place in sorted(sources) if not 1 <= place[0] <= len(self.classes)]
        self.unusable = [
            Unusable(
                str(next(iter(sources[place].values()))),
                "unknown action",
                f"action {place[0]} is none of the {len(self.classes)} of UTD-MHAD",
                str(place[1]),
            )
            for place in strange
        ]
        return [self._sample(place, sources[place]) for place in sorted(sources) if place not in strange]

    def _folder(self, kind: Kind) -> str:
        return self.folders.get(kind, _FOLDERS[kind])

    def _folders_there(self, root: Path) -> str:
        names = [self._folder(kind) for kind in _FOLDERS]
        return f"of the folders {listed(names)} it has {listed([name for name in names if subfolder(root, name)]) or 'none'}"

    def _warn_of_one(self, root: Path, kind: Kind) -> None:
        """Warn if there is only one kind of recording, as when `root` is one level too deep."""
        above = root.resolve().parent
        siblings = listed([name for each in _FOLDERS if each != kind and (above / (name := self._folder(each))).is_dir()])
        hint = f"; next to it, in {above}: {siblings}" if siblings else ""
        warn(f"{root}: holds {kind} recordings only; {self._folders_there(root)}{hint}")

    def _files(self, root: Path, kind: Kind) -> list[tuple[Place, Path]]:
        folder = subfolder(root, self._folder(kind))
        if folder is None and kind in self.folders:
            raise DataError(f"{root}: has no folder {self.folders[kind]!r} for {kind}")
        folder = folder or root
        matched = [(path, _FILE.fullmatch(path.name)) for path in entries(folder)]
        return [
            ((int(match[1]), int(match[2]), int(match[3])), path)
            for path, match in matched
            if match and _KIND_OF_SUFFIX[match[4].lower()] == kind
        ]

    def _sample(self, place: Place, sources: dict[str, object]) -> Sample:
        action, subject, trial = place
        return Sample(SampleKey(str(subject), str(action), str(trial)), action - 1, sources)

    def read(self, sample: Sample, modality: str) -> Signal:
        """Read a signal of a clip; accelerations in m/s², angular velocities in rad/s, joints in m, depth in mm."""
        return self._readers[modality](sample)

    def _inertial(self, sample: Sample, modality: str) -> np.ndarray:
        path = _path(sample, modality)
        known, values = self._inertial_read
        found = _stamp(path)
        if known != found:
            values = require_shape(read_variable(path, "d_iner"), (None, 6), path, "d_iner")
            values = require_finite(values.astype(np.float64), path, "d_iner")
            self._inertial_read = found, values
        return values

    def _read_accelerometer(self, sample: Sample) -> Signal:
        values = self._inertial(sample, "accelerometer")[:, :3] * STANDARD_GRAVITY
        return Signal(values.astype(np.float32), INERTIAL_RATE)

    def _read_gyroscope(self, sample: Sample) -> Signal:
        values = np.deg2rad(self._inertial(sample, "gyroscope")[:, 3:])
        return Signal(values.astype(np.float32), INERTIAL_RATE)

    def _read_skeleton(self, sample: Sample) -> Signal:
        path = _path(sample, "skeleton")
        values = _frames(require_shape(read_variable(path, "d_skel"), (20, 3, None), path, "d_skel"))
        require_finite(values, path, "d_skel")
        return Signal(values.astype(np.float32), SKELETON_RATE)

    def _read_depth(self, sample: Sample) -> Signal:
        path = _path(sample, "depth")
        values = _frames(require_shape(read_variable(path, "d_depth"), (None, None, None), path, "d_depth"))
        require_finite(values, path, "d_depth")
        rate = len(values) / self._read_skeleton(sample).duration if "skeleton" in sample.sources else SKELETON_RATE
        return Signal(values.astype(np.uint16), rate)

    def _read_rgb(self, sample: Sample) -> Signal:
        values, rate = read_video(_path(sample, "rgb"))
        return Signal(values, rate or VIDEO_RATE)


def _path(sample: Sample, modality: str) -> Path:
    source = sample.sources[modality]
    return source if isinstance(source, Path) else Path(str(source))


def _stamp(path: Path) -> object:
    try:
        found = path.stat()
    except OSError:
        return path  # reading the file reports the error
    return path, found.st_size, found.st_mtime_ns, found.st_ino


def _frames(values: np.ndarray) -> np.ndarray:
    """Move time to the front and add a last axis of length one: (A, B, T) → (T, A, B, 1)."""
    if values.ndim != 3:
        raise ValueError(f"expected three axes, got shape {values.shape}")
    return np.moveaxis(values, -1, 0)[..., np.newaxis]

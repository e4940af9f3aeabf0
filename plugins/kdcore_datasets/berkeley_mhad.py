"""Berkeley MHAD: six body-worn accelerometers and motion capture of 11 actions by 12 subjects."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from kdcore import DataError, Dataset, Sample, SampleKey, Signal
from kdcore_datasets.bvh import read_bvh
from kdcore_datasets.classes import BERKELEY_MHAD
from kdcore_datasets.delimited import TextLayout, read_numbers
from kdcore_datasets.folders import entries, existing_folder, subfolder
from kdcore_datasets.modalities import ACCELEROMETER, SKELETON, STANDARD_GRAVITY

PLACEMENTS = ("left-wrist", "right-wrist", "left-hip", "right-hip", "left-ankle", "right-ankle")
"""Placements of sensors 1 to 6."""
RATE = 30.0

_TRIAL = r"s(?P<subject>\d+)_a(?P<action>\d+)_r(?P<trial>\d+)"
_SENSOR_FILE = re.compile(rf"acc_h(?P<sensor>\d+)_{_TRIAL}\.txt", re.IGNORECASE)
_SKELETON_FILE = re.compile(rf"skl_{_TRIAL}\.bvh", re.IGNORECASE)

File = tuple[str, Path, re.Match[str]]
"""Modality, path, and fields of the file name."""


class BerkeleyMhad(Dataset):
    """Berkeley MHAD (Ofli et al., WACV 2013), as published.

    Paper: https://doi.org/10.1109/WACV.2013.6474999.

    Accelerometer files are ``Accelerometer/Shimmer0k/acc_h0k_sXX_aYY_rZZ.txt`` with columns x, y, z in g and Unix time in s;
    sampling is irregular, around 30 Hz. All sensors of a trial share a clock that starts with the earliest of them.
    Skeletons are ``Mocap/SkeletalData/skl_sXX_aYY_rZZ.bvh`` in cm, at the rate of motion capture. Their joints are all nodes of
    the hierarchy in file order, including the ends of limbs. Skeletons have no time stamps and are assumed to start with the
    sensors. Recordings other than the 11 actions (T-pose, background), and the cameras, Kinects and microphones of the dataset,
    are not read.

    Args:
        root: Folder that contains ``Accelerometer`` and optionally ``Mocap``, or the folder ``Accelerometer`` itself.
    """

    classes = BERKELEY_MHAD

    def __init__(self, *, root: Path):
        self.root = root
        self.modalities = {
            name: ACCELEROMETER.renamed(name, rate=RATE, placement=placement)
            for placement in PLACEMENTS
            for name in [f"accelerometer-{placement}"]
        }
        self.modalities["skeleton"] = SKELETON.renamed("skeleton", skeleton="berkeley-mhad", persons=1)

    def samples(self) -> Sequence[Sample]:
        """Return all trials, by action, subject and repetition."""
        root = existing_folder(self.root)
        sources: dict[tuple[int, int, int], dict[str, object]] = {}
        for modality, path, match in [*_sensor_files(root), *_skeleton_files(root)]:
            subject, action, trial = (int(match[part]) for part in ("subject", "action", "trial"))
            if 1 <= action <= len(self.classes):
                sources.setdefault((action, subject, trial), {})[modality] = path
        if not sources:
            raise DataError(f"{root}: holds no recordings like Accelerometer/Shimmer01/acc_h01_s01_a01_r01.txt")
        return [
            Sample(SampleKey(str(subject), str(action), str(trial)), action - 1, sources[action, subject, trial])
            for action, subject, trial in sorted(sources)
        ]

    def read(self, sample: Sample, modality: str) -> Signal:
        """Read an accelerometer in m/s², or the skeleton in m, of a trial."""
        path = Path(str(sample.sources[modality]))
        if modality == "skeleton":
            positions, rate = read_bvh(path)
            return Signal((positions / 100).astype(np.float32)[..., np.newaxis], rate)
        start = min(_table(Path(str(each)))[0, 3] for name, each in sample.sources.items() if name != "skeleton")
        table = _table(path)
        times = table[:, 3] - start
        if len(times) < 2 or times[-1] <= times[0] or (np.diff(times) < 0).any():
            raise DataError(f"{path}: time stamps do not advance")
        values = (table[:, :3] * STANDARD_GRAVITY).astype(np.float32)
        return Signal(values, (len(times) - 1) / float(times[-1] - times[0]), float(times[0]), times)


def _sensor_files(root: Path) -> Iterator[File]:
    folder = subfolder(root, "Accelerometer") or root
    for number, placement in enumerate(PLACEMENTS, start=1):
        for path in entries(subfolder(folder, f"Shimmer{number:02}") or folder):
            match = _SENSOR_FILE.fullmatch(path.name)
            if match and int(match["sensor"]) == number:
                yield f"accelerometer-{placement}", path, match


def _skeleton_files(root: Path) -> Iterator[File]:
    mocap = subfolder(root, "Mocap")
    folder = subfolder(mocap, "SkeletalData") if mocap else None
    for path in entries(folder) if folder else []:
        match = _SKELETON_FILE.fullmatch(path.name)
        if match:
            yield "skeleton", path, match


def _table(path: Path) -> np.ndarray:
    return read_numbers(path, (0, 1, 2, 3), TextLayout(" ", header=False))

"""Berkeley MHAD: six body-worn accelerometers, 11 actions by 12 subjects."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kdcore import DataError, Dataset, Sample, SampleKey, Signal
from kdcore_datasets.classes import BERKELEY_MHAD
from kdcore_datasets.delimited import read_numbers
from kdcore_datasets.folders import entries, existing_folder, subfolder
from kdcore_datasets.modalities import ACCELEROMETER
from kdcore_datasets.units import STANDARD_GRAVITY

PLACEMENTS = ("left-wrist", "right-wrist", "left-hip", "right-hip", "left-ankle", "right-ankle")
"""Where sensors 1 to 6 are worn."""
RATE = 30.0

_FILE = re.compile(r"acc_h(\d+)_s(\d+)_a(\d+)_r(\d+)\.txt", re.IGNORECASE)


class BerkeleyMhad(Dataset):
    """Accelerometers of Berkeley MHAD (Ofli et al., WACV 2013), as published.

    Files are ``Accelerometer/Shimmer0k/acc_h0k_sXX_aYY_rZZ.txt`` with columns x, y, z in g and unix time in s; sampling is
    irregular, around 30 Hz. All sensors of a trial share a clock that starts with the earliest of them.
    Recordings of anything but the 11 actions (T-pose, background) are left out. The motion capture, cameras,
    Kinects and microphones of the dataset are not read.

    Args:
        root: Folder that contains ``Accelerometer``, or that folder itself.
    """

    classes = BERKELEY_MHAD

    def __init__(self, *, root: Path):
        self.root = root
        self.modalities = {
            name: ACCELEROMETER.renamed(name, rate=RATE, placement=placement)
            for placement in PLACEMENTS
            for name in [f"accelerometer-{placement}"]
        }

    def samples(self) -> Sequence[Sample]:
        """All trials, by action, subject and repetition."""
        root = existing_folder(self.root)
        folder = subfolder(root, "Accelerometer") or root
        sources: dict[tuple[int, int, int], dict[str, object]] = {}
        for number, modality in enumerate(self.modalities, start=1):
            for path in entries(subfolder(folder, f"Shimmer{number:02}") or folder):
                match = _FILE.fullmatch(path.name)
                if match and int(match[1]) == number and 1 <= int(match[3]) <= len(self.classes):
                    place = int(match[3]), int(match[2]), int(match[4])
                    sources.setdefault(place, {})[modality] = path
        if not sources:
            raise DataError(f"{root}: holds no recordings like Accelerometer/Shimmer01/acc_h01_s01_a01_r01.txt")
        return [
            Sample(SampleKey(str(subject), str(action), str(trial)), action - 1, sources[action, subject, trial])
            for action, subject, trial in sorted(sources)
        ]

    def read(self, sample: Sample, modality: str) -> Signal:
        """One accelerometer of a trial, in m/s²."""
        start = min(_table(Path(str(path)))[0, 3] for path in sample.sources.values())
        path = Path(str(sample.sources[modality]))
        table = _table(path)
        times = table[:, 3] - start
        if len(times) < 2 or times[-1] <= times[0] or (np.diff(times) < 0).any():
            raise DataError(f"{path}: time stamps do not advance")
        values = (table[:, :3] * STANDARD_GRAVITY).astype(np.float32)
        return Signal(values, (len(times) - 1) / float(times[-1] - times[0]), float(times[0]), times)


def _table(path: Path) -> np.ndarray:
    return read_numbers(path, (0, 1, 2, 3), delimiter=" ", header=False)

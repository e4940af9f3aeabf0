"""NTU RGB+D: Kinect v2 skeletons and colour video of 60 actions by 40 subjects from three views."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

from annotated_types import Ge

from kdcore import DataError, Dataset, Sample, SampleKey, Signal
from kdcore_datasets.classes import NTU_RGBD_60
from kdcore_datasets.file_formats import read_video
from kdcore_datasets.folders import existing_folder, refuse_folder
from kdcore_datasets.kinect_skeleton import read_skeleton
from kdcore_datasets.modalities import NTU_25_LINKS, RGB, SKELETON

RATE = 30.0

_NAME = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})")
_MODALITY_OF_SUFFIX = {".skeleton": "skeleton", "_rgb.avi": "rgb"}


class NtuRgbd(Dataset):
    """NTU RGB+D (Shahroudy et al., CVPR 2016), as published.

    Paper: https://arxiv.org/abs/1604.02808.

    Files are named ``SsssCcccPpppRrrrAaaa.skeleton`` and ``…_rgb.avi``, in `root` or any subfolder. In the key of a sample, the
    view is the camera and the scene is the setup. Recordings of actions beyond the 60 are skipped.

    Args:
        root: Folder of the recordings.
        persons: Number of bodies per skeleton sample: those that move most. Missing bodies are zero.
        missing: Text file with one recording per line to skip, such as the published list of samples with missing or incomplete
            skeletons.
    """

    classes = NTU_RGBD_60

    def __init__(self, *, root: Path, persons: Annotated[int, Ge(1)] = 2, missing: Path | None = None):
        self.root = root
        self.persons = persons
        self.missing = missing
        self.version = f"1-{persons}"
        self.modalities = {
            "skeleton": SKELETON.renamed("skeleton", rate=RATE, skeleton="ntu-25", persons=persons, links=NTU_25_LINKS),
            "rgb": RGB.renamed("rgb", rate=RATE),
        }

    def samples(self) -> Sequence[Sample]:
        """Return all recordings, by file name."""
        root = existing_folder(self.root)
        left_out = self._left_out()
        sources: dict[str, dict[str, object]] = {}
        for path, name, modality in _files(root):
            known = sources.setdefault(name, {})
            if modality in known:
                raise DataError(f"{path}: a second {modality} file of the same recording as {known[modality]}")
            known[modality] = path
        samples = [_sample(name, sources[name]) for name in sorted(sources) if name not in left_out]
        samples = [sample for sample in samples if sample.label is not None and sample.label < len(self.classes)]
        if not samples:
            raise DataError(f"{root}: holds no recordings named like S001C001P001R001A001.skeleton")
        return samples

    def _left_out(self) -> set[str]:
        if self.missing is None:
            return set()
        try:
            text = self.missing.expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{self.missing}: cannot be read ({error})") from error
        return {match[0] for match in _NAME.finditer(text)}

    def read(self, sample: Sample, modality: str) -> Signal:
        """Read a signal of a recording; joints are in m."""
        path = Path(str(sample.sources[modality]))
        if modality == "skeleton":
            return Signal(read_skeleton(path, self.persons), RATE)
        values, rate = read_video(path)
        return Signal(values, rate or RATE)


def _files(root: Path) -> Iterator[tuple[Path, str, str]]:
    """Yield (path, name, modality) of all recordings below `root`."""
    for folder, _, names in os.walk(root, onerror=refuse_folder):
        for name in names:
            match = _NAME.match(name)
            if match and name[match.end() :] in _MODALITY_OF_SUFFIX:
                yield Path(folder, name), match[0], _MODALITY_OF_SUFFIX[name[match.end() :]]


def _sample(name: str, sources: dict[str, object]) -> Sample:
    match = _NAME.fullmatch(name)
    if match is None:
        raise DataError(f"{name}: not a file name of NTU RGB+D")
    setup, camera, person, repetition, action = map(int, match.groups())
    key = SampleKey(str(person), str(action), str(repetition), view=str(camera), scene=str(setup))
    return Sample(key, action - 1, sources)

"""MMAct: phone and watch sensors with video from four views, of 20 subjects in four scenes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from kdcore import DataError, Dataset, Sample, SampleKey, Signal, Unusable
from kdcore_datasets.classes import MMACT
from kdcore_datasets.delimited import TextLayout, read_numbers, read_texts
from kdcore_datasets.file_formats import read_video
from kdcore_datasets.folders import existing_folder, subfolder
from kdcore_datasets.modalities import ACCELEROMETER, GYROSCOPE, ORIENTATION, RGB
from kdcore_datasets.pattern import FoundFile, PathPattern

_SENSORS = {
    "accelerometer-watch": "acc_watch_clip",
    "accelerometer-phone": "acc_phone_clip",
    "gyroscope": "gyro_clip",
    "orientation": "orientation_clip",
}
_SENSOR_FILES = PathPattern("subject{subject}/scene{scene}/session{session}/{action}.csv")
_VIDEO_FILES = PathPattern("subject{subject}/cam{view}/scene{scene}/session{session}/{action}.mp4")
_VIDEO_RATE = 30.0

_DESK_SCENE = "3"
_ALSO_AT_DESK = ("talking on phone", "using phone")


class Mmact(Dataset):
    """Trimmed clips of MMAct (Kong et al., ICCV 2019).

    Paper: https://openaccess.thecvf.com/content_ICCV_2019/papers/Kong_MMAct_A_Large-Scale_Dataset_for_Cross_Modal_Human_Action_Understanding_ICCV_2019_paper.pdf.

    Sensor files are ``{acc_watch,acc_phone,gyro,orientation}_clip/subjectA/sceneB/sessionC/action.csv`` with lines of time, x,
    y and z without a header. Times have the form ``20180731_13:05:22.120``. Video files are
    ``subjectA/camD/sceneB/sessionC/action.mp4`` in the folder `video`. With video, there is one sample per camera, and the four
    samples share their sensor files. Without video, there is one sample per recording.

    The 37 classes are the file names, with separate classes at the desk (scene 3) for talking on the phone and using the phone.
    Lines of a sensor file are sorted by time, and repeated times are dropped. The sensors of a clip share a clock that starts
    with the earliest of them, and the video is assumed to start with it. Empty sensor files are skipped. Units are assumed to
    be those of Android: m/s², rad/s, and degrees for orientation.

    Published splits: subjects 1-16 train and 17-20 test; sessions 1-4 and 5; scenes 1-3 and 4; views 1-3 and 4.

    Args:
        root: Folder that contains the sensor folders.
        video: Folder with the subjects' videos in `root`.
    """

    classes = MMACT

    def __init__(self, *, root: Path, video: str = "trimmed"):
        self.root = root
        self.video = video
        self.modalities = {
            "accelerometer-watch": ACCELEROMETER.renamed("accelerometer-watch", rate=100.0, placement="wrist"),
            "accelerometer-phone": ACCELEROMETER.renamed("accelerometer-phone", rate=100.0, placement="trouser-pocket"),
            "gyroscope": GYROSCOPE.renamed("gyroscope", rate=50.0, placement="trouser-pocket"),
            "orientation": ORIENTATION.renamed("orientation", rate=50.0, placement="trouser-pocket"),
            "rgb": RGB.renamed("rgb", rate=_VIDEO_RATE),
        }

    def samples(self) -> Sequence[Sample]:
        """Return all clips, by subject, action, scene, session and view."""
        root = existing_folder(self.root)
        sources = self._sensors(root)
        videos = subfolder(root, self.video)
        for file in _VIDEO_FILES.find(videos) if videos else []:
            key = _key(file)
            sensors = sources.get(_without_view(key), {})
            sources[key] = {**sensors, "rgb": file.path}
        seen = {_without_view(key) for key in sources if key.view}
        kept = {key: each for key, each in sources.items() if key.view or key not in seen}
        if not kept:
            raise DataError(f"{root}: holds neither {_SENSORS['accelerometer-watch']} nor {self.video} with clips of MMAct")
        self.unusable = [
            Unusable(
                str(min(files.values(), key=str)), "unknown action", f"{key.action!r} is not an action of MMAct", key.subject
            )
            for key, files in sorted(kept.items())
            if key.action not in self.classes
        ]
        return [Sample(key, self.classes.index(key.action), kept[key]) for key in sorted(kept) if key.action in self.classes]

    def _sensors(self, root: Path) -> dict[SampleKey, dict[str, object]]:
        sources: dict[SampleKey, dict[str, object]] = {}
        for modality, name in _SENSORS.items():
            folder = subfolder(root, name)
            for file in _SENSOR_FILES.find(folder) if folder else []:
                if not (file.path.is_file() and file.path.stat().st_size == 0):  # the reader reports broken links
                    sources.setdefault(_key(file), {})[modality] = file.path
        return sources

    def read(self, sample: Sample, modality: str) -> Signal:
        """Read a signal of a clip."""
        path = Path(str(sample.sources[modality]))
        if modality == "rgb":
            values, rate = read_video(path)
            return Signal(values, rate or _VIDEO_RATE)
        start = min(_times(Path(str(each)))[0].min() for name, each in sample.sources.items() if name != "rgb")
        times, lines = _times(path)
        values = read_numbers(path, (1, 2, 3), TextLayout(header=False))[lines]
        if len(times) < 2:
            raise DataError(f"{path}: time does not advance")
        values = np.deg2rad(values) if modality == "orientation" else values
        rate = (len(times) - 1) / float(times[-1] - times[0])
        return Signal(values.astype(np.float32), rate, float(times[0] - start), times - start)


def _times(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return distinct sorted times in seconds, and the indices of their lines."""
    stamps = read_texts(path, (0,), TextLayout(header=False))[:, 0]
    try:
        moments = [datetime.fromisoformat(stamp.replace("_", "T")).replace(tzinfo=UTC) for stamp in stamps.tolist()]
    except ValueError as error:
        raise DataError(f"{path}: has a time that is not of the form 20180731_13:05:22.120 ({error})") from error
    return np.unique([moment.timestamp() for moment in moments], return_index=True)


def _key(file: FoundFile) -> SampleKey:
    """Return the key of a clip, with the action named as in the class list, and scene and session as the trial."""
    found = file.key()
    action = found.action.strip().lower().replace("_", " ")
    if found.scene == _DESK_SCENE and action in _ALSO_AT_DESK:
        action += " desk"
    return replace(found, action=action, trial=f"{found.scene}-{found.session}")


def _without_view(key: SampleKey) -> SampleKey:
    return replace(key, view="")

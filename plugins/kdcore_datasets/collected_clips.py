"""Readers for files that contain many skeleton clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdcore import DataError, refuse_bomb
from kdcore_datasets.file_formats import read_pickle, require_shape
from kdcore_datasets.protocols.partition import listed


@dataclass(frozen=True)
class CollectedClip:
    """A clip of a collection.

    Args:
        name: Name of the clip in the file.
        label: Index of its class.
        session: Part of the published split; empty if there is none.
        joints: Joint positions, (person, time, joint, channel).
        confidences: Confidence of each joint, (person, time, joint); None if the file has none.
    """

    name: str
    label: int
    session: str
    joints: np.ndarray
    confidences: np.ndarray | None = None


def load_pickle(path: Path, split: str) -> list[CollectedClip]:
    """Read the clips of a pickle in PYSKL's format, with the parts of `split` as sessions.

    Raises:
        DataError: If the file is not such a pickle, or does not contain the split.
    """
    content = read_pickle(path)
    if not isinstance(content, Mapping):
        content = {"annotations": content}
    annotations = content.get("annotations")
    if not isinstance(annotations, Sequence) or not annotations:
        raise DataError(f"{path}: has no list of annotations")
    sessions = _sessions(content.get("split") or {}, split, path)
    clips = [_clip(annotation, f"annotation {number}", path) for number, annotation in enumerate(annotations)]
    _refuse_twins(clips, path)
    _refuse_unlike(clips, path)
    scores = [_scores(annotation, clip[0], clip[2], path) for annotation, clip in zip(annotations, clips, strict=True)]
    return [
        CollectedClip(name, label, sessions[name] if split else "", joints, score)
        for (name, label, joints), score in zip(clips, scores, strict=True)
        if not split or name in sessions
    ]


def _scores(annotation: Mapping[str, Any], name: str, joints: np.ndarray, path: Path) -> np.ndarray | None:
    if annotation.get("keypoint_score") is None:
        return None
    return require_shape(np.asarray(annotation["keypoint_score"]), joints.shape[:3], path, f"clip {name!r}, keypoint_score")


def _clip(annotation: Any, what: str, path: Path) -> tuple[str, int, np.ndarray]:
    try:
        name, label, joints = (annotation[key] for key in ("frame_dir", "label", "keypoint"))
        joints = require_shape(np.asarray(joints), (None,) * 4, path, f"{what}, keypoint")
        claimed = int(annotation.get("total_frames", joints.shape[1]))
        label = int(label)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: {what} must have frame_dir, label and keypoint ({error!r})") from error
    if claimed != joints.shape[1]:
        raise DataError(f"{path}: clip {name!r} has {joints.shape[1]} frames, but total_frames is {claimed}")
    return str(name), label, joints


def _refuse_twins(clips: Sequence[tuple[str, int, np.ndarray]], path: Path) -> None:
    names: set[str] = set()
    for name, _, _ in clips:
        if name in names:
            raise DataError(f"{path}: holds two clips called {name!r}")
        names.add(name)


def _refuse_unlike(clips: Sequence[tuple[str, int, np.ndarray]], path: Path) -> None:
    first, _, joints = clips[0]
    for name, _, others in clips:
        if others.shape[2:] != joints.shape[2:]:
            what = "clip {!r} has {} joints of {} coordinates".format
            raise DataError(f"{path}: {what(name, *others.shape[2:])}, {what(first, *joints.shape[2:])}")


def _sessions(parts: Mapping[str, Sequence[str]], split: str, path: Path) -> dict[str, str]:
    """Return the part of `split` for each clip, without the name of the split."""
    chosen = {part: names for part, names in parts.items() if part.startswith(f"{split}_")}
    if split and not chosen:
        raise DataError(f"{path}: has no split {split!r}; its parts are {listed(sorted(parts)) or 'none'}")
    part_of: dict[str, str] = {}
    for part, names in chosen.items():
        for name in names:
            if part_of.setdefault(name, part) != part:
                raise DataError(f"{path}: clip {name!r} is in both {part_of[name]} and {part}")
    return {name: part.removeprefix(f"{split}_") for name, part in part_of.items()}


def load_npz(path: Path, joints: int) -> list[CollectedClip]:
    """Read the clips of an archive with ``x_train``, ``y_train``, ``x_test`` and ``y_test``. The parts become sessions.

    Raises:
        DataError: If arrays are missing or their shapes do not match.
    """
    refuse_bomb(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("x_train", "y_train", "x_test", "y_test")}
    except Exception as error:  # damaged archives raise zip, value or key errors
        raise DataError(f"{path}: is not an archive of x_train, y_train, x_test and y_test ({error})") from error
    return [clip for part in ("train", "test") for clip in _part(part, arrays[f"x_{part}"], arrays[f"y_{part}"], joints, path)]


def _part(part: str, x: np.ndarray, y: np.ndarray, joints: int, path: Path) -> list[CollectedClip]:
    require_shape(x, (len(y), None, None), path, f"x_{part}")
    if x.shape[2] % (joints * 3):
        raise DataError(f"{path}: x_{part} has {x.shape[2]} numbers per frame, not a multiple of {joints} joints × 3")
    labels = y.argmax(axis=1) if y.ndim == 2 else y.astype(int)
    clips = []
    for number, (frames, label) in enumerate(zip(x, labels.tolist(), strict=True), start=1):
        used = np.flatnonzero(frames.any(axis=1))
        frames = frames[: used[-1] + 1] if len(used) else frames
        positions = frames.reshape(len(frames), -1, joints, 3).swapaxes(0, 1)
        clips.append(CollectedClip(f"{part}-{number}", label, part, positions))
    return clips

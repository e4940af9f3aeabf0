"""Simulated dataset ``synthetic-motion``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, Interval

from kdcore import DataError, Dataset, Sample, SampleKey, Signal
from kdcore_datasets.modalities import ACCELEROMETER, DEPTH, GYROSCOPE, KINECT_20, RGB
from kdcore_datasets.synthetic import camera, imu, render
from kdcore_datasets.synthetic.actions import ACTIONS
from kdcore_datasets.synthetic.motion import Motion, perform
from kdcore_datasets.synthetic.subjects import Subject, stream, subject

Number = tuple[int, int, int]
"""(subject, action, trial), starting at 1. Actions keep their number if only some are selected."""

_LATEST_START = 0.1


class SyntheticMotion(Dataset):
    """Simulated people: accelerometer, gyroscope, skeleton, colour and depth signals of the same motion.

    Nothing is stored on disk. Signals are computed from the options and the sample key when they are read. All modalities of a
    sample share a clock; each starts slightly later than the motion and has its own rate. The skeleton has the joints of
    UTD-MHAD in camera axes (left as seen by the camera, up, away).

    Args:
        subjects: Number of people.
        trials: Number of trials per subject and action.
        actions: Class names in the order of the labels; None for all.
        seed: Seed of the people and their performances.
        placement: Placement of the inertial sensor.
        imu_rate: Sampling rate of accelerometer and gyroscope in Hz.
        skeleton_rate: Frame rate of the skeleton in Hz.
        video_rate: Frame rate of rgb and depth in Hz.
        video_size: Height and width of rgb and depth in pixels.
        noise: Factor for the errors of all sensors. With 0, they are exact, except for the sensor's placement.
        misplacement: Factor for the misplacement of the inertial sensor.
        diversity: Factor for differences between subjects in build, tempo, posture and habits.
        variation: Factor for differences between the trials of a subject.
        viewpoint: Standard deviation of the camera's azimuth in degrees.
        left_handed: Share of left-handed subjects, whose movements are mirrored.

    Raises:
        DataError: If `actions` contains an unknown or repeated name.
    """

    version = "1"

    def __init__(
        self,
        *,
        subjects: Annotated[int, Gt(0)] = 8,
        trials: Annotated[int, Gt(0)] = 4,
        actions: list[str] | None = None,
        seed: int = 0,
        placement: imu.Placement = "dominant-wrist",
        imu_rate: Annotated[float, Gt(0)] = 50.0,
        skeleton_rate: Annotated[float, Gt(0)] = 30.0,
        video_rate: Annotated[float, Gt(0)] = 15.0,
        video_size: Annotated[int, Ge(16)] = 64,
        noise: Annotated[float, Ge(0)] = 1.0,
        misplacement: Annotated[float, Ge(0)] = 1.0,
        diversity: Annotated[float, Interval(ge=0, le=2)] = 1.0,
        variation: Annotated[float, Interval(ge=0, le=1.5)] = 1.0,
        viewpoint: Annotated[float, Interval(ge=0, le=90)] = 8.0,
        left_handed: Annotated[float, Interval(ge=0, le=1)] = 0.2,
    ):
        self.subjects = subjects
        self.trials = trials
        self.seed = seed
        self.placement: imu.Placement = placement
        self.video_size = video_size
        self.noise = noise
        self.misplacement = misplacement
        self.diversity = diversity
        self.variation = variation
        self.viewpoint = viewpoint
        self.left_handed = left_handed
        self.classes = _chosen(actions)
        self.modalities = {
            "accelerometer": ACCELEROMETER.renamed("accelerometer", rate=imu_rate, placement=placement),
            "gyroscope": GYROSCOPE.renamed("gyroscope", rate=imu_rate, placement=placement),
            "skeleton": KINECT_20.renamed("skeleton", rate=skeleton_rate),
            "rgb": RGB.renamed("rgb", rate=video_rate),
            "depth": DEPTH.renamed("depth", rate=video_rate),
        }
        self._readers = {
            "accelerometer": partial(self._inertial, "accelerometer"),
            "gyroscope": partial(self._inertial, "gyroscope"),
            "skeleton": self._skeleton,
            "rgb": self._rgb,
            "depth": self._depth,
        }

    def samples(self) -> Sequence[Sample]:
        """Return all samples, by subject, action and trial."""
        sources = dict.fromkeys(self.modalities, f"simulated with seed {self.seed}")
        names = [action.name for action in ACTIONS]
        return [
            Sample(SampleKey(str(person), str(names.index(name) + 1), str(trial)), label, sources)
            for person in range(1, self.subjects + 1)
            for label, name in enumerate(self.classes)
            for trial in range(1, self.trials + 1)
        ]

    def read(self, sample: Sample, modality: str) -> Signal:
        """Simulate a signal of a sample.

        Raises:
            DataError: If the sample or modality does not exist.
        """
        key = sample.key
        if not (key.subject.isdecimal() and key.action.isdecimal() and key.trial.isdecimal()):
            raise DataError(f"synthetic-motion has no sample of {key}; subject, action and trial are numbers")
        number = int(key.subject), int(key.action), int(key.trial)
        if min(number) < 1 or number[1] > len(ACTIONS):
            raise DataError(f"synthetic-motion has no sample of {key}; numbers start at 1 and there are {len(ACTIONS)} actions")
        if modality not in self._readers:
            raise DataError(f"synthetic-motion has no modality {modality!r} (known: {', '.join(self._readers)})")
        return self._readers[modality](number)

    def read_file(self, path: Path, modality: str) -> Signal:
        """Refuse a file: the recordings are simulated.

        Raises:
            DataError: Always.
        """
        raise DataError(f"{path}: synthetic-motion simulates its recordings; predict a .npy file, or a table with --rate")

    def motion(self, number: Number) -> Motion:
        """Return the motion of a sample, without sensor errors."""
        return _motion(self._scene, number)

    def mount(self, number: Number) -> imu.Mount:
        """Return the mounting of the inertial sensor in a sample."""
        return _mount(self._scene, number)

    def camera(self, number: Number) -> camera.Camera:
        """Return the camera of a sample, for its skeleton, rgb and depth."""
        return camera.setup(self._chance(number, "camera"), self.viewpoint)

    @property
    def _scene(self) -> _Scene:
        return _Scene(self.seed, self.diversity, self.variation, self.left_handed, self.placement, self.misplacement)

    def _chance(self, number: Number, purpose: str) -> np.random.Generator:
        return stream(self.seed, *number, purpose)

    def _clock(self, number: Number, modality: str) -> tuple[float, float, int]:
        """Return start, rate and length. Accelerometer and gyroscope are one device and start together."""
        device = "imu" if modality in ("accelerometer", "gyroscope") else modality
        start = float(self._chance(number, f"{device} clock").uniform(0, _LATEST_START))
        rate = self.modalities[modality].rate or 1.0
        return start, rate, int((self.motion(number).duration - start) * rate) + 1

    def _inertial(self, modality: str, number: Number) -> Signal:
        start, rate, length = self._clock(number, modality)
        force, spin = _readings(self._scene, number, start, rate, length)
        rng = self._chance(number, modality)
        if modality == "accelerometer":
            values = imu.measured(force, imu.ACCELEROMETER_ERRORS, self.noise, rng)
        else:
            values = imu.measured(spin, imu.GYROSCOPE_ERRORS, self.noise, rng)
        return Signal(values.astype(np.float32), rate, start)

    def _seen(self, number: Number, modality: str) -> tuple[np.ndarray, float, float]:
        start, rate, length = self._clock(number, modality)
        figure = self.motion(number)(_instants(start, rate, length))
        return self.camera(number).view(figure.joints), start, rate

    def _skeleton(self, number: Number) -> Signal:
        joints, start, rate = self._seen(number, "skeleton")
        joints = camera.tracked(joints, rate, self.noise, self._chance(number, "skeleton"))
        return Signal(joints.astype(np.float32)[..., None], rate, start)

    def _rgb(self, number: Number) -> Signal:
        joints, start, rate = self._seen(number, "rgb")
        look = _look(self.seed, number[0])
        rng = self._chance(number, "rgb")
        return Signal(render.rgb(joints, self.camera(number), look, self.video_size, self.noise, rng), rate, start)

    def _depth(self, number: Number) -> Signal:
        joints, start, rate = self._seen(number, "depth")
        rng = self._chance(number, "depth")
        return Signal(render.depth(joints, self.camera(number), self.video_size, self.noise, rng), rate, start)


@dataclass(frozen=True)
class _Scene:
    """Key of a sample's motion and mounting, without the number of the sample."""

    seed: int
    diversity: float
    variation: float
    left_handed: float
    placement: imu.Placement
    misplacement: float

    def subject(self, person: int) -> Subject:
        return subject(self.seed, person, diversity=self.diversity, left_handed=self.left_handed)


# The modalities of a sample are read one after another, and share most computations.


@lru_cache(maxsize=8)
def _motion(scene: _Scene, number: Number) -> Motion:
    person, action, trial = number
    who, what = scene.subject(person), ACTIONS[action - 1]
    return perform(scene.seed, person, who, what, trial, diversity=scene.diversity, variation=scene.variation)


@lru_cache(maxsize=8)
def _mount(scene: _Scene, number: Number) -> imu.Mount:
    wearer = scene.subject(number[0])
    lengths = {"forearm": wearer.body.forearm, "thigh": wearer.body.thigh}
    habit, chance = stream(scene.seed, "strap", number[0]), stream(scene.seed, *number, "strap")
    return imu.strap(scene.placement, wearer.dominant, lengths, habit, chance, scene.misplacement)


@lru_cache(maxsize=8)
def _readings(scene: _Scene, number: Number, start: float, rate: float, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return specific force and angular velocity of an ideal sensor."""
    return imu.readings(_motion(scene, number), _mount(scene, number), _instants(start, rate, length))


@lru_cache(maxsize=64)
def _look(seed: int, person: int) -> render.Look:
    return render.look(stream(seed, "look", person))


def _instants(start: float, rate: float, length: int) -> np.ndarray:
    return start + np.arange(length) / rate


def _chosen(actions: list[str] | None) -> tuple[str, ...]:
    known = [action.name for action in ACTIONS]
    for name in actions or ():
        if name not in known:
            near = get_close_matches(name, known, n=1)
            meant = f"; did you mean {near[0]!r}?" if near else ""
            raise DataError(f"synthetic-motion has no action {name!r}{meant} (known: {', '.join(known)})")
    if actions is not None and len(set(actions)) < len(actions):
        raise DataError(f"synthetic-motion: an action is repeated in {actions}")
    return tuple(known if actions is None else actions)

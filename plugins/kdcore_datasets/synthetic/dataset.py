"""The simulated dataset ``synthetic-motion``."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from functools import partial
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
"""(subject, action, trial), each from 1; actions keep their number when only some are chosen."""

_LATEST_START = 0.1


class SyntheticMotion(Dataset):
    """Simulated people: accelerometer, gyroscope, skeleton, colour and depth signals of the same motion.

    Nothing is on disk; every signal is computed when it is read, from the options and the sample's key alone. All modalities
    of a sample share a clock, on which each starts a little later than the motion and runs at its own rate. The skeleton has
    UTD-MHAD's joints in the camera's axes (left as the camera sees it, up, away).

    Args:
        subjects: How many people.
        trials: How often each performs every action.
        actions: Names of the classes, in the order of their labels; all if None.
        seed: Another seed is another set of people and performances.
        placement: Where the inertial sensor is strapped.
        imu_rate: Samples per second of accelerometer and gyroscope.
        skeleton_rate: Frames per second of the skeleton.
        video_rate: Frames per second of rgb and depth.
        video_size: Height and width of rgb and depth in pixels.
        noise: Scales the errors of all sensors; 0 makes them perfect, but for the sensor's placement.
        misplacement: Scales how far the inertial sensor sits from where it should.
        diversity: Scales how much subjects differ in build, tempo, posture and habits.
        variation: Scales how much the trials of one subject differ.
        viewpoint: Standard deviation in degrees of the camera's azimuth.
        left_handed: Share of left-handed subjects, whose movements are the mirror image.

    Raises:
        DataError: If there is no action of a name in `actions`, or one is named twice.
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
        """All samples, by subject, action and trial."""
        sources = dict.fromkeys(self.modalities, f"simulated with seed {self.seed}")
        names = [action.name for action in ACTIONS]
        return [
            Sample(SampleKey(str(person), str(names.index(name) + 1), str(trial)), label, sources)
            for person in range(1, self.subjects + 1)
            for label, name in enumerate(self.classes)
            for trial in range(1, self.trials + 1)
        ]

    def read(self, sample: Sample, modality: str) -> Signal:
        """Simulate one signal of a sample.

        Raises:
            DataError: If the sample is none of this dataset's, or there is no such modality.
        """
        key = sample.key
        if not (key.subject.isdecimal() and key.action.isdecimal() and key.trial.isdecimal()):
            raise DataError(f"synthetic-motion has no sample of {key}; it is computed and reads no files")
        number = int(key.subject), int(key.action), int(key.trial)
        if min(number) < 1 or number[1] > len(ACTIONS):
            raise DataError(f"synthetic-motion has no sample of {key}; numbers start at 1 and there are {len(ACTIONS)} actions")
        if modality not in self._readers:
            raise DataError(f"synthetic-motion has no modality {modality!r} (known: {', '.join(self._readers)})")
        return self._readers[modality](number)

    def motion(self, number: Number) -> Motion:
        """The motion behind a sample: the truth that its sensors report."""
        person, _, trial = number
        action, who = ACTIONS[number[1] - 1], self._subject(person)
        return perform(self.seed, person, who, action, trial, diversity=self.diversity, variation=self.variation)

    def mount(self, number: Number) -> imu.Mount:
        """The mounting of the inertial sensor in a sample."""
        wearer = self._subject(number[0])
        lengths = {"forearm": wearer.body.forearm, "thigh": wearer.body.thigh}
        habit = stream(self.seed, "strap", number[0])
        return imu.strap(self.placement, wearer.dominant, lengths, habit, self._chance(number, "strap"), self.misplacement)

    def camera(self, number: Number) -> camera.Camera:
        """The camera of a sample, which sees its skeleton, rgb and depth."""
        return camera.setup(self._chance(number, "camera"), self.viewpoint)

    def _subject(self, person: int) -> Subject:
        return subject(self.seed, person, diversity=self.diversity, left_handed=self.left_handed)

    def _chance(self, number: Number, purpose: str) -> np.random.Generator:
        return stream(self.seed, *number, purpose)

    def _clock(self, number: Number, modality: str, duration: float) -> tuple[np.ndarray, float, float]:
        """Instants, start and rate; accelerometer and gyroscope are one device and start together."""
        device = "imu" if modality in ("accelerometer", "gyroscope") else modality
        start = float(self._chance(number, f"{device} clock").uniform(0, _LATEST_START))
        rate = self.modalities[modality].rate or 1.0
        length = int((duration - start) * rate) + 1
        return start + np.arange(length) / rate, start, rate

    def _inertial(self, modality: str, number: Number) -> Signal:
        motion = self.motion(number)
        t, start, rate = self._clock(number, modality, motion.duration)
        force, spin = imu.readings(motion, self.mount(number), t)
        rng = self._chance(number, modality)
        if modality == "accelerometer":
            values = imu.measured(force, imu.ACCELEROMETER_ERRORS, self.noise, rng)
        else:
            values = imu.measured(spin, imu.GYROSCOPE_ERRORS, self.noise, rng)
        return Signal(values.astype(np.float32), rate, start)

    def _seen(self, number: Number, modality: str) -> tuple[np.ndarray, float, float]:
        motion = self.motion(number)
        t, start, rate = self._clock(number, modality, motion.duration)
        return self.camera(number).view(motion(t).joints), start, rate

    def _skeleton(self, number: Number) -> Signal:
        joints, start, rate = self._seen(number, "skeleton")
        joints = camera.tracked(joints, rate, self.noise, self._chance(number, "skeleton"))
        return Signal(joints.astype(np.float32)[..., None], rate, start)

    def _rgb(self, number: Number) -> Signal:
        joints, start, rate = self._seen(number, "rgb")
        look = render.look(stream(self.seed, "look", number[0]))
        rng = self._chance(number, "rgb")
        return Signal(render.rgb(joints, self.camera(number), look, self.video_size, self.noise, rng), rate, start)

    def _depth(self, number: Number) -> Signal:
        joints, start, rate = self._seen(number, "depth")
        rng = self._chance(number, "depth")
        return Signal(render.depth(joints, self.camera(number), self.video_size, self.noise, rng), rate, start)


def _chosen(actions: list[str] | None) -> tuple[str, ...]:
    known = [action.name for action in ACTIONS]
    for name in actions or ():
        if name not in known:
            near = get_close_matches(name, known, n=1)
            meant = f"; did you mean {near[0]!r}?" if near else ""
            raise DataError(f"synthetic-motion has no action {name!r}{meant} (known: {', '.join(known)})")
    if actions is not None and len(set(actions)) < len(actions):
        raise DataError(f"synthetic-motion: an action is named twice in {actions}")
    return tuple(known if actions is None else actions)

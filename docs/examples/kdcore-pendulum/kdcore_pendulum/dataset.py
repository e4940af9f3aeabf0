"""The dataset `pendulum`."""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt

from kdcore import Dataset, Modality, Sample, SampleKey, Signal

GRAVITY = 9.81
LENGTHS = {"short": 0.3, "medium": 0.6, "long": 1.2}

ANGLE = Modality("angle", ("time", "channel"), ("channel", "time"), "rad", channels=("angle",))
ACCELERATION = ANGLE.renamed("acceleration", units="m/s^2", channels=("along", "across"))


class Pendulums(Dataset):
    """Swings of pendulums. The classes are three lengths, which the angle shows more clearly than the acceleration.

    Args:
        pendulums: Number of pendulums, each with its own friction. They are the subjects.
        trials: Recordings of each pendulum at each length.
        seconds: Duration of a recording in seconds.
        rate: Sampling rate in Hz.
    """

    classes = tuple(LENGTHS)

    def __init__(
        self,
        *,
        pendulums: Annotated[int, Ge(2)] = 4,
        trials: Annotated[int, Ge(1)] = 3,
        seconds: Annotated[float, Gt(0)] = 3.0,
        rate: Annotated[float, Gt(0)] = 25.0,
    ):
        self.pendulums, self.trials, self.seconds = pendulums, trials, seconds
        self.modalities = {each.name: each.renamed(each.name, rate=rate) for each in (ANGLE, ACCELERATION)}

    def samples(self) -> Sequence[Sample]:
        """All trials of every pendulum at every length."""
        keys = [
            SampleKey(str(number), name, str(trial))
            for number in range(1, self.pendulums + 1)
            for name in self.classes
            for trial in range(1, self.trials + 1)
        ]
        return [Sample(key, self.classes.index(key.action), dict.fromkeys(self.modalities, key)) for key in keys]

    def read(self, sample: Sample, modality: str) -> Signal:
        """Simulate one sensor during a damped swing."""
        key, rate = sample.key, self.modalities[modality].rate or 1.0
        swing = np.random.default_rng((int(key.subject), self.classes.index(key.action), int(key.trial)))
        noise = np.random.default_rng((int(key.trial), list(self.modalities).index(modality)))
        length, friction = LENGTHS[key.action], 0.1 * int(key.subject)
        time = np.arange(round(self.seconds * rate)) / rate
        frequency, phase = np.sqrt(GRAVITY / length), swing.uniform(0, 2 * np.pi)
        size = swing.uniform(0.2, 0.4) * np.exp(-friction * time)
        angle, speed = size * np.cos(frequency * time + phase), -frequency * size * np.sin(frequency * time + phase)
        if modality == "angle":
            return Signal((angle + noise.normal(0, 0.01, time.shape))[:, None], rate)
        along, across = GRAVITY * np.cos(angle) + length * speed**2, -2 * friction * length * speed
        return Signal(np.stack([along, across], axis=1) + noise.normal(0, 0.2, (len(time), 2)), rate)

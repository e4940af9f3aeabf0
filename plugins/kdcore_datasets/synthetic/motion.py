"""One performance of an action by a subject, as a function from time to the pose of the body."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kdcore_datasets.synthetic.actions import TURN, Action, Beat
from kdcore_datasets.synthetic.skeleton import Figure, articulate
from kdcore_datasets.synthetic.subjects import Subject, spread, stream

_SCALED = (
    "arm.flexion", "arm.abduction", "arm.rotation", "arm.elbow", "arm.roll",
    "leg.flexion", "trunk.lean", "trunk.twist", "trunk.tilt", "root.rise",
)  # fmt: skip
_LIKE = {f"other_{name}": name for name in _SCALED} | dict.fromkeys(("leg.knee", "other_leg.knee"), "leg.flexion")
_BENT = ("arm.flexion", "arm.abduction", "arm.rotation", "arm.roll")
_SWAY = {
    "trunk.lean": 0.012,
    "trunk.tilt": 0.012,
    "trunk.twist": 0.015,
    "arm.flexion": 0.04,
    "other_arm.flexion": 0.04,
    "arm.roll": 0.06,
}


@dataclass(frozen=True)
class Motion:
    """The motion of a sample.

    Args:
        subject: The person.
        action: The action.
        repeats: Number of repetitions.
        tempo: Speed relative to the nominal one.
        onset: Duration of the rest before the action in seconds.
        duration: Total duration in seconds, including the rest after the action.
        factors: Relative amplitude by angle, equal on both sides and for hip and knee.
        bend: Offset of this person during the action, by angle.
        sway: (amplitude in rad, frequency in Hz, phase) of small continuous movements, by angle.
    """

    subject: Subject
    action: Action
    repeats: int
    tempo: float
    onset: float
    duration: float
    factors: dict[str, float]
    bend: dict[str, float]
    sway: dict[str, tuple[float, float, float]]

    def __call__(self, t: np.ndarray) -> Figure:
        """Return the body at the times `t` in seconds. The motion is defined at any time."""
        return articulate(self.subject.body, self.pose(t), self.subject.dominant, self.action.planted)

    def pose(self, t: np.ndarray) -> dict[str, np.ndarray]:
        """Return all joint angles at the times `t`."""
        outward = self.action.rightward * (1 if self.subject.dominant == "right" else -1)
        beat = Beat((t - self.onset) * self.tempo, self.action.lead, self.action.period, self.repeats, outward or 1)
        pose = {name: np.full(len(t), angle) for name, angle in self.subject.posture.items()}
        for name, angle in self.action.pose(beat).items():
            pose[name] = pose.get(name, 0.0) + self.factors[_LIKE.get(name, name)] * angle
        for name, angle in self.bend.items():
            pose[name] = pose.get(name, 0.0) + angle * beat.held
        for name, (amplitude, frequency, phase) in self.sway.items():
            pose[name] = pose.get(name, 0.0) + amplitude * np.sin(TURN * frequency * t + phase)
        return pose


def perform(
    seed: int, person: int, subject: Subject, action: Action, trial: int, *, diversity: float, variation: float
) -> Motion:
    """Return a trial, which combines the habits of the subject in this action and random variation.

    Args:
        seed: Seed of the dataset.
        person: Number of the subject.
        subject: The subject.
        action: The action.
        trial: Number of the trial.
        diversity: Factor for differences between the habits of subjects.
        variation: Factor for differences between the trials of a subject. With 0, they are equal and there is no sway.
    """
    habit = stream(seed, "habit", person, action.family or action.name)
    chance = stream(seed, "trial", person, action.name, trial)

    def vary(size: int, of_subject: float, of_trial: float) -> np.ndarray:
        return of_subject * diversity * spread(habit, size) + of_trial * variation * spread(chance, size)

    tempo = float(subject.tempo * np.exp(vary(1, 0.08, 0.08)[0]))
    factors = (subject.vigour * np.exp(vary(len(_SCALED), 0.16, 0.07))).clip(0.7, 1.3)
    bend = vary(len(_BENT), 0.1, 0.05)
    fewest, most = action.repeats
    repeats = int(chance.integers(fewest, most + 1)) if variation else fewest
    onset, after = 0.45 + 0.25 * variation * chance.uniform(-1, 1, 2)
    sizes, frequencies, phases = (
        spread(chance, len(_SWAY)),
        chance.uniform(0.2, 0.7, len(_SWAY)),
        chance.uniform(0, TURN, len(_SWAY)),
    )
    sway = {
        name: (variation * amplitude * float(size), float(frequency), float(phase))
        for (name, amplitude), size, frequency, phase in zip(_SWAY.items(), sizes, frequencies, phases, strict=True)
    }
    seconds = Beat(np.zeros(1), action.lead, action.period, repeats).seconds / tempo
    return Motion(
        subject,
        action,
        repeats,
        tempo,
        onset=float(onset),
        duration=float(onset + seconds + after),
        factors=dict(zip(_SCALED, factors.tolist(), strict=True)),
        bend=dict(zip(_BENT, bend.tolist(), strict=True)),
        sway=sway,
    )

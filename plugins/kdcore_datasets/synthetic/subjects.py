"""Simulated people: anthropometry, tempo, vigour, handedness and habits; and the random generators of the simulation."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from hashlib import sha256

import numpy as np

from kdcore_datasets.synthetic.skeleton import Body, Side

_REST = {
    "arm.abduction": (0.12, 0.04),
    "arm.flexion": (0.0, 0.06),
    "arm.elbow": (0.22, 0.08),
    "arm.roll": (0.2, 0.15),
    "trunk.lean": (0.02, 0.03),
}


@dataclass(frozen=True)
class Subject:
    """A person.

    Args:
        body: Bone lengths.
        dominant: Side of the dominant hand.
        tempo: Speed relative to the nominal one.
        vigour: Amplitude relative to the nominal one.
        posture: Joint angles at rest.
    """

    body: Body
    dominant: Side
    tempo: float
    vigour: float
    posture: dict[str, float]


@lru_cache(maxsize=64)
def subject(seed: int, number: int, *, diversity: float, left_handed: float) -> Subject:
    """Return the person with this number. With `diversity` 0, all are equal except for handedness."""
    rng = stream(seed, "subject", number)
    stature = 1 + 0.05 * diversity * spread(rng)
    proportions = 1 + 0.03 * diversity * spread(rng, len(fields(Body)))
    lengths = {name: float(length * stature * p) for (name, length), p in zip(asdict(Body()).items(), proportions, strict=True)}
    tempo, vigour = np.exp(np.array([0.16, 0.12]) * diversity * spread(rng, 2))
    posture = {name: mean + deviation * diversity * float(spread(rng)) for name, (mean, deviation) in _REST.items()}
    posture |= {f"other_{name}": value for name, value in posture.items() if name.startswith("arm.")}
    return Subject(Body(**lengths), _dominant(seed, number, left_handed), float(tempo), float(vigour), posture)


def _dominant(seed: int, number: int, left_handed: float) -> Side:
    """Return the dominant side. Left-handed people are evenly spaced, so that small groups contain some."""
    shift = stream(seed, "handedness").random()
    return "left" if int(number * left_handed + shift) > int((number - 1) * left_handed + shift) else "right"


def stream(*purpose: object) -> np.random.Generator:
    """Return a generator seeded by its purpose, e.g. ``stream(seed, "subject", 3)``, regardless of the order of calls."""
    digest = sha256("/".join(map(str, purpose)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def spread(rng: np.random.Generator, size: int | tuple[int, ...] | None = None) -> np.ndarray:
    """Return standard normal numbers truncated at ±2, so that joint angles stay plausible."""
    return np.clip(rng.standard_normal(size), -2.0, 2.0)

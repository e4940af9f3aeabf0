"""Random numbers that depend on what they are for and on nothing else."""

from __future__ import annotations

from hashlib import sha256

import numpy as np


def stream(*purpose: object) -> np.random.Generator:
    """A generator seeded by its purpose, e.g. ``stream(seed, "subject", 3)``; the order of calls never matters."""
    digest = sha256("/".join(map(str, purpose)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def spread(rng: np.random.Generator, size: int | tuple[int, ...] | None = None) -> np.ndarray:
    """Standard normal numbers cut off at ±2, so that no joint bends where joints do not."""
    return np.clip(rng.standard_normal(size), -2.0, 2.0)

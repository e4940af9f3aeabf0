"""Inputs for transforms under test, and their application."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kdcore.contracts.modality import Modality, Signal
from kdcore.contracts.sample_transform import SampleTransform
from kdcore.contracts.transform import Join
from kdcore.testing.case import skip_unless
from kdcore.testing.checks import Subject, seeded

Input = Signal | Tensor | tuple[Tensor, ...]
SAMPLES = 4


def recordings() -> list[Signal]:
    """Return an inertial sensor, a skeleton, a colour video and a depth video, as datasets return them."""
    rng = np.random.default_rng(3)
    colour = rng.integers(0, 256, (12, 24, 32, 3), dtype=np.uint8)
    depth = rng.integers(500, 4500, (12, 24, 32, 1), dtype=np.uint16)
    return [
        Signal(rng.normal(size=(50, 6)).astype(np.float32), 50.0),
        Signal(rng.normal(size=(20, 20, 3, 1)).astype(np.float32), 30.0),
        Signal(colour, 15.0),
        Signal(depth, 15.0),
    ]


def batches() -> list[Tensor]:
    """Return batches of sensor windows, skeletons, images, and clips of floats and of bytes, as pipelines return them."""
    generator = torch.Generator().manual_seed(3)
    shapes = ((6, 48), (3, 32, 20, 1), (3, 32, 32), (4, 3, 32, 32))
    floats = [torch.randn(SAMPLES, *shape, generator=generator) for shape in shapes]
    return [*floats, torch.randint(0, 256, (SAMPLES, 4, 3, 32, 32), generator=generator, dtype=torch.uint8)]


def joined() -> list[tuple[Tensor, ...]]:
    """Return inputs for joins: two sensors, and a skeleton with a sensor."""
    generator = torch.Generator().manual_seed(3)
    watch, phone, skeleton = (torch.randn(SAMPLES, *shape, generator=generator) for shape in ((3, 48), (6, 48), (3, 48, 20, 1)))
    return [(watch, phone), (skeleton, watch)]


def candidates(subject: Subject, transform: Any) -> Sequence[Input]:
    """Return the inputs of the case, or common inputs for the kind of transform."""
    given = subject.case.inputs
    if given is not None:
        return given if isinstance(given, list) else [given]
    if isinstance(transform, SampleTransform):
        return recordings()
    return joined() if isinstance(transform, Join) else batches()


def ready(subject: Subject, x: Input, training: bool = False) -> Any:
    """Construct a transform, and fit it on `x` if it has to be fitted."""
    transform = subject.made()
    if isinstance(transform, nn.Module):
        if getattr(transform, "fitted", False):
            transform.fit(copied(x))  # type: ignore[operator]
        transform.train(training or getattr(transform, "augmentation", False))
    return transform


def accepted(subject: Subject) -> list[Input]:
    """Return the inputs that the transform accepts.

    Raises:
        NotApplicable: If it accepts none, which the check `answers` reports.
    """

    def find() -> list[Input]:
        inputs = []
        for x in candidates(subject, subject.made()):
            try:
                transform = ready(subject, x)
                if isinstance(apply(transform, x), returned(transform)):
                    inputs.append(x)
            except Exception:
                continue
        skip_unless(inputs, "it accepts no input: see the check 'answers'")
        return inputs

    return subject.once("accepted", find)


_SERIES = (("time", "channel"), ("channel", "time"))
_IMAGE = (("channel", "height", "width"), ("channel", "height", "width"))
_SKELETON = (("time", "joint", "channel", "person"), ("channel", "time", "joint", "person"))
_VIDEO = (("time", "height", "width", "channel"), ("time", "channel", "height", "width"))
_READINGS = {2: [_SERIES], 3: [_IMAGE], 4: [_SKELETON, _VIDEO]}


def readings(x: Input) -> list[Any]:
    """Return the possible specs of an input, one per interpretation of its axes; for a join, a tuple of specs."""
    if isinstance(x, tuple):
        return [tuple(readings(part)[0] for part in x)]
    shape = x.values.shape if isinstance(x, Signal) else x.shape[1:]
    specs = []
    for axes, layout in _READINGS.get(len(shape), []):
        count = shape[(axes if isinstance(x, Signal) else layout).index("channel")]
        specs.append(Modality("input", axes, layout, "", channels=tuple(f"c{number}" for number in range(count))))
    return specs


def returned(transform: Any) -> type:
    """Return the type that a transform of this kind returns."""
    return Signal if isinstance(transform, SampleTransform) else Tensor


def apply(transform: Any, x: Input, seed: int = 0) -> Any:
    """Return `x` transformed, with random generators seeded with `seed`."""
    with seeded(seed), torch.no_grad():
        return transform(copied(x))


def values(x: Any) -> Any:
    """Return the array or tensor of a signal or batch; of a tuple, the first."""
    return values(x[0]) if isinstance(x, tuple) else x.values if isinstance(x, Signal) else x


def rows(x: Any) -> int:
    """Return the number of samples in a batch."""
    return len(values(x))


def copied(x: Any) -> Any:
    """Return a copy of an input."""
    if isinstance(x, tuple):
        return tuple(map(copied, x))
    if isinstance(x, Signal):
        return replace(x, values=x.values.copy(), times=None if x.times is None else x.times.copy())
    return x.clone()


def same(x: Any, value: float) -> Any:
    """Return an input of the same shape and type filled with one value."""
    if isinstance(x, tuple):
        return tuple(same(each, value) for each in x)
    if isinstance(x, Signal):
        return x.with_values(np.full_like(x.values, value))
    return torch.full_like(x, value)

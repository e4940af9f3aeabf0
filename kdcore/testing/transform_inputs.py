"""Inputs for transforms under test, and their application."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kdcore.contracts.modality import Modality, Signal
from kdcore.contracts.sample_transform import SampleTransform
from kdcore.contracts.transform import Join
from kdcore.testing.case import NotApplicable
from kdcore.testing.checks import Subject, seeded
from kdcore.testing.signals import batches, copied, joined, recordings

Input = Signal | Tensor | tuple[Tensor, ...]


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
        found = []
        for x in candidates(subject, subject.made()):
            try:
                transform = ready(subject, x)
                if isinstance(apply(transform, x), returned(transform)):
                    found.append(x)
            except Exception:
                continue
        if not found:
            raise NotApplicable("it accepts no input: see the check 'answers'")
        return found

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
    found = []
    for axes, layout in _READINGS.get(len(shape), []):
        count = shape[(axes if isinstance(x, Signal) else layout).index("channel")]
        found.append(Modality("input", axes, layout, "", channels=tuple(f"c{number}" for number in range(count))))
    return found


def returned(transform: Any) -> type:
    """Return the type that a transform of this kind returns."""
    return Signal if isinstance(transform, SampleTransform) else Tensor


def apply(transform: Any, x: Input, seed: int = 0) -> Any:
    """Return `x` transformed, with random generators seeded with `seed`."""
    with seeded(seed), torch.no_grad():
        return transform(copied(x))

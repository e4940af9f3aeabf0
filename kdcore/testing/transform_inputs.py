"""What transforms are given by the kit, and how they are applied to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kdcore.contracts.modality import Modality, Signal
from kdcore.contracts.transform import Join, SampleTransform
from kdcore.testing.case import NotApplicable
from kdcore.testing.checks import Subject, seeded
from kdcore.testing.signals import batches, copied, joined, recordings

Input = Signal | Tensor | tuple[Tensor, ...]


def candidates(subject: Subject, transform: Any) -> Sequence[Input]:
    """What the transform may be given: its case's inputs, or the usual ones."""
    given = subject.case.inputs
    if given is not None:
        return given if isinstance(given, list) else [given]
    if isinstance(transform, SampleTransform):
        return recordings()
    return joined() if isinstance(transform, Join) else batches()


def ready(subject: Subject, x: Input, training: bool = False) -> Any:
    """A fresh transform, fitted on `x` where it asks to be."""
    transform = subject.made()
    if isinstance(transform, nn.Module):
        if getattr(transform, "fitted", False):
            transform.fit(copied(x))  # type: ignore[operator]
        transform.train(training or getattr(transform, "augmentation", False))
    return transform


def accepted(subject: Subject) -> list[Input]:
    """The inputs that the transform reads.

    Raises:
        NotApplicable: If it reads none, which is the check `answers`'s to say.
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
            raise NotApplicable("it transforms nothing: see the check 'answers'")
        return found

    return subject.once("accepted", find)


_LAYOUTS = {
    2: ("channel", "time"),
    3: ("channel", "height", "width"),
    4: ("channel", "time", "joint", "person"),
}
_VIDEO = ("time", "channel", "height", "width")


def described(x: Input) -> Any:
    """The spec of an input of the kit: of each part where several are joined."""
    if isinstance(x, tuple):
        return tuple(described(part) for part in x)
    shape = x.values.shape if isinstance(x, Signal) else x.shape[1:]
    if isinstance(x, Signal):
        axes = {2: ("time", "channel"), 4: ("time", "joint", "channel", "person")}.get(len(shape))
        axes = ("time", "height", "width", "channel") if len(shape) == 4 and shape[-1] in (1, 3) and shape[2] != 3 else axes
        axes = layout = axes or ("time", *(f"axis{number}" for number in range(1, len(shape))))
    else:
        layout = _LAYOUTS.get(len(shape)) or tuple(f"axis{number}" for number in range(len(shape)))
        layout = _VIDEO if len(shape) == 4 and shape[1] in (1, 3) and shape[0] != 3 else layout
        axes = ("time", *(axis for axis in layout if axis != "time")) if "time" in layout else layout
    count = shape[(axes if isinstance(x, Signal) else layout).index("channel")] if "channel" in axes else 0
    return Modality("input", axes, layout, "", channels=tuple(f"c{number}" for number in range(count)))


def returned(transform: Any) -> type:
    """What a transform of this kind is to return."""
    return Signal if isinstance(transform, SampleTransform) else Tensor


def apply(transform: Any, x: Input, seed: int = 0) -> Any:
    """`x` transformed, with random numbers that follow from `seed`."""
    with seeded(seed), torch.no_grad():
        return transform(copied(x))

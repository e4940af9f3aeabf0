"""Inputs for encoders under test, and encoders made for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from kdcore.testing.case import ConformanceError, NotApplicable
from kdcore.testing.checks import Subject, seeded

LAYOUTS: Mapping[str, tuple[int, ...]] = {
    "(channel, time)": (6, 48),
    "(channel, height, width)": (3, 32, 32),
    "(channel, time, joint, person)": (3, 32, 20, 1),
    "(frame, channel, height, width)": (4, 3, 32, 32),
}
"""Inputs that kdcore's modalities and transforms give, each with a usual size."""

SMALL: Mapping[str, tuple[int, ...]] = {
    "(channel, time)": (1, 1),
    "(channel, height, width)": (1, 1, 1),
    "(channel, time, joint, person)": (3, 1, 20, 1),
    "(frame, channel, height, width)": (1, 1, 1, 1),
}
SAMPLES, CLASSES = 4, 5


def shapes(subject: Subject) -> list[tuple[int, ...]]:
    """Input shapes that the encoder reads: its case's, or those of the usual layouts that it accepts.

    Raises:
        ConformanceError: If it reads none of them.
    """
    return subject.once("shapes", lambda: _shapes(subject))


def _shapes(subject: Subject) -> list[tuple[int, ...]]:
    given = subject.case.inputs
    if given:
        return [tuple(given)] if isinstance(given[0], int) else [tuple(each) for each in given]
    found, refusals = [], []
    for shape in LAYOUTS.values():
        try:
            with seeded(), torch.no_grad():
                build(subject, shape).eval()(torch.randn(2, *shape))
            found.append(shape)
        except Exception as error:
            refusals.append(f"{shape}: {type(error).__name__}: {error}")
    if not found:
        told = "\n  ".join(refusals)
        raise ConformanceError(f"it reads none of the usual inputs; if it needs another, test it as Case(inputs=…)\n  {told}")
    return found


def build(subject: Subject, shape: Sequence[int], classes: int = CLASSES, seed: int = 0) -> nn.Module:
    """A fresh encoder, with whatever its constructor raises."""
    with seeded(seed):
        return subject.construct(given={"num_classes": classes, "in_shape": tuple(shape)})


def built(subject: Subject, seed: int = 0) -> tuple[nn.Module, Tensor]:
    """A fresh encoder in evaluation mode and a batch that it reads.

    Raises:
        NotApplicable: If it cannot be made, which is another check's to say.
    """
    subject.options  # noqa: B018 - may itself say that nothing can be tested here
    try:
        shape = shapes(subject)[0]
        encoder = build(subject, shape, seed=seed).eval()
        x = batch(shape)
        with torch.no_grad():
            encoder(x.clone())
    except Exception as error:
        raise NotApplicable(
            "it could not be constructed or reads nothing: see the checks 'constructed' and 'logits'"
        ) from error
    return encoder, x


def accepted(subject: Subject) -> list[tuple[int, ...]]:
    """The `shapes` that the encoder reads.

    Raises:
        NotApplicable: If it reads none, which is the check `constructed`'s to say.
    """
    try:
        return shapes(subject)
    except ConformanceError as error:
        raise NotApplicable("it reads no usual input: see the check 'constructed'") from error


def batch(shape: Sequence[int], samples: int = SAMPLES) -> Tensor:
    """Inputs of a usual size."""
    return torch.randn(samples, *shape, generator=torch.Generator().manual_seed(2))

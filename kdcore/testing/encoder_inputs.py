"""Inputs for encoders under test, and construction of encoders for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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
"""Layouts of inputs produced by kdcore's modalities and transforms, each with a common size."""

SMALL: Mapping[str, tuple[int, ...]] = {
    "(channel, time)": (1, 1),
    "(channel, height, width)": (1, 1, 1),
    "(channel, time, joint, person)": (3, 1, 20, 1),
    "(frame, channel, height, width)": (1, 1, 1, 1),
}
SAMPLES, CLASSES, EMBEDDING = 4, 5, 16


def shapes(subject: Subject) -> list[tuple[int, ...]]:
    """Return the input shapes of the case, or those of the common layouts that the encoder accepts.

    Raises:
        ConformanceError: If it accepts none of them.
    """
    return subject.once("shapes", lambda: _shapes(subject))


def _shapes(subject: Subject) -> list[tuple[int, ...]]:
    given = subject.case.inputs
    if given:
        return [tuple(given)] if isinstance(given[0], int) else [tuple(each) for each in given]
    accepted_shapes, refusals = [], []
    for shape in LAYOUTS.values():
        try:
            with seeded(), torch.no_grad():
                build(subject, shape).eval()(torch.randn(2, *shape))
            accepted_shapes.append(shape)
        except Exception as error:
            refusals.append(f"{shape}: {type(error).__name__}: {error}")
    if not accepted_shapes:
        details = "\n  ".join(refusals)
        raise ConformanceError(
            f"it accepts none of the common input shapes; if it needs another, test it with Case(inputs=…)\n  {details}"
        )
    return accepted_shapes


def build(subject: Subject, shape: Sequence[int], classes: int = CLASSES, seed: int = 0) -> nn.Module:
    """Construct an encoder. Exceptions of its constructor are not caught."""
    with seeded(seed):
        return subject.construct(given=given(shape, classes))


def given(shape: Sequence[int], classes: int = CLASSES) -> dict[str, Any]:
    """Return the constructor arguments of an encoder that are not options."""
    embeddings = torch.randn(classes, EMBEDDING, generator=torch.Generator().manual_seed(0))
    return {"num_classes": classes, "in_shape": tuple(shape), "class_embeddings": embeddings}


def built(subject: Subject, seed: int = 0) -> tuple[nn.Module, Tensor]:
    """Return a new encoder in evaluation mode and a batch that it accepts.

    Raises:
        NotApplicable: If it cannot be constructed, which the check `constructed` reports.
    """
    subject.options  # noqa: B018 - may raise NotApplicable
    try:
        shape = shapes(subject)[0]
        encoder = build(subject, shape, seed=seed).eval()
        x = batch(shape)
        with torch.no_grad():
            encoder(x.clone())
    except Exception as error:
        raise NotApplicable(
            "it could not be constructed or accepts no input: see the checks 'constructed' and 'logits'"
        ) from error
    return encoder, x


def accepted(subject: Subject) -> list[tuple[int, ...]]:
    """Return the `shapes` that the encoder accepts.

    Raises:
        NotApplicable: If it accepts none, which the check `constructed` reports.
    """
    try:
        return shapes(subject)
    except ConformanceError as error:
        raise NotApplicable("it accepts no common input: see the check 'constructed'") from error


def batch(shape: Sequence[int], samples: int = SAMPLES) -> Tensor:
    """Return a random batch of inputs, (samples, *shape)."""
    return torch.randn(samples, *shape, generator=torch.Generator().manual_seed(2))

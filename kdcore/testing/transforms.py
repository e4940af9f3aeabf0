"""Checks of transforms: of recordings, of batches, and joins."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from kdcore.contracts.modality import Modality, Signal
from kdcore.contracts.sample_transform import SampleTransform, output_spec
from kdcore.testing.case import ConformanceError, require, skip_unless
from kdcore.testing.checks import Subject, check, seeded
from kdcore.testing.gradients import agree
from kdcore.testing.transform_inputs import (
    accepted,
    apply,
    candidates,
    copied,
    readings,
    ready,
    returned,
    rows,
    same,
    values,
)
from kdcore.training.module_checks import unregistered

TRIES = 8


@check("transform")
def answers(subject: Subject) -> None:
    """It accepts at least one usual input (or all inputs of its case), and returns the type that transforms return."""
    first, refusals = subject.made(), []
    inputs = candidates(subject, first)
    for x in inputs:
        try:
            y = apply(ready(subject, x), x)
        except Exception as error:
            refusals.append(
                f"{type(x).__name__} of {values(x).dtype} {tuple(values(x).shape)}: {type(error).__name__}: {error}"
            )
            continue
        expected = returned(first)
        require(isinstance(y, expected), f"it returns a {type(y).__name__}, not a {expected.__name__}")
    if len(refusals) == len(inputs) or (refusals and subject.case.inputs is not None):
        raise ConformanceError("it accepts none of these inputs; set others with Case(inputs=…)\n  " + "\n  ".join(refusals))


@check("transform")
def finite(subject: Subject) -> None:
    """Finite inputs give finite outputs, also for an all-zero signal."""
    for x in accepted(subject):
        for each, what in ((x, ""), (same(x, 0), " for all zeros")):
            y = np.asarray(values(apply(ready(subject, x), each)), dtype=np.float64)
            require(np.isfinite(y).all(), f"its output is not finite{what}")


@check("transform")
def shape_consistent(subject: Subject) -> None:
    """The output's shape follows from the input's shape, not from its values; batches keep their number of samples."""
    for x in accepted(subject):
        transform = ready(subject, x)
        shape = tuple(values(apply(transform, x)).shape)
        for other, seed in ((same(x, 0), 0), (x, 1), (same(x, 1), 2)):
            other_shape = tuple(values(apply(transform, other, seed)).shape)
            require(other_shape == shape, f"inputs of the same shape give outputs {shape} and {other_shape}")
        if not isinstance(x, Signal):
            require(shape[0] == rows(x), f"a batch of {rows(x)} gives an output {shape}")
            single = tuple(values(apply(transform, _part(x, 0))).shape)
            require(single == (1, *shape[1:]), f"a batch of one gives an output {single}, a larger one {shape}")


@check("transform")
def spec_true(subject: Subject) -> None:
    """`output_spec` gives the axes and number of channels of the output, for at least one accepted kind of input."""
    differences = []
    for x in accepted(subject):
        transform = ready(subject, x)
        shape = tuple(values(apply(transform, x)).shape)
        for given in readings(x):
            spec = transform.output_spec(given) if isinstance(given, tuple) else output_spec(given, transform)
            differences.append(_spec_difference(spec, shape, isinstance(x, Signal)))
    require(not differences or not all(differences), f"its output_spec is wrong: {differences and differences[0]}")


def _spec_difference(spec: Modality, shape: tuple[int, ...], recorded: bool) -> str:
    """Describe how a spec differs from an output; empty if it does not."""
    axes = spec.axes if recorded else ("batch", *spec.layout)
    if len(shape) != len(axes):
        return f"it has the axes {axes}, but the output has shape {shape}"
    count = shape[axes.index("channel")] if "channel" in axes else 0
    if spec.channels and len(spec.channels) != count:
        return f"it has {len(spec.channels)} channels, but the output of shape {shape} has {count}"
    return ""


@check("transform")
def batch_independent(subject: Subject) -> None:
    """Unless it is an augmentation, a sample's output does not depend on the rest of the batch, so it can be cached."""
    skip_unless(not isinstance(subject.made(), SampleTransform), "it works on one recording at a time")
    skip_unless(not _random(subject.made()), "it is an augmentation")
    for x in accepted(subject):
        transform = ready(subject, x)
        alone = torch.cat([apply(transform, _part(x, row)) for row in range(rows(x))])
        agree(apply(transform, x), alone, "samples transformed together and one by one", 1e-4)


def _part(x: Any, row: int) -> Any:
    return tuple(_part(each, row) for each in x) if isinstance(x, tuple) else x[row : row + 1]


def _random(transform: Any) -> bool:
    return bool(getattr(transform, "augmentation", False))


@check("transform")
def deterministic(subject: Subject) -> None:
    """Constructed again, it returns the same output; for an augmentation, with the same torch seed."""
    for x in accepted(subject):
        modes = (False,) if getattr(subject.made(), "per_batch", False) else (False, True)
        for training in modes:
            random = _random(subject.made())
            first = apply(ready(subject, x, training), x)
            second = apply(ready(subject, x, training), x, seed=0 if random else 1)
            equal = np.array_equal(np.asarray(values(first)), np.asarray(values(second)))
            hint = "use only the random generators of torch" if random else "if that is intended, declare `augmentation = True`"
            require(equal, f"the same input gives a different output the second time; {hint}")


@check("transform")
def augmentation_varies(subject: Subject) -> None:
    """An augmentation changes its input, and not always in the same way."""
    skip_unless(_random(subject.made()), "it is not an augmentation")
    for x in accepted(subject):
        outputs = [np.asarray(values(apply(ready(subject, x), x, seed))) for seed in range(TRIES)]
        if any(not np.array_equal(outputs[0], each) for each in outputs[1:]):
            return
    raise ConformanceError(f"{TRIES} seeds give the same output; is it an augmentation?")


@check("transform")
def inputs_unmodified(subject: Subject) -> None:
    """It does not modify its input."""
    for x in accepted(subject):
        transform, given = ready(subject, x), copied(x)
        with seeded(), torch.no_grad():
            transform(given)
        pairs = zip(*(each if isinstance(each, tuple) else (values(each),) for each in (given, x)), strict=True)
        equal = all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in pairs)
        require(equal, "it changes its input in place; work on a copy")


@check("transform")
def clock_kept(subject: Subject) -> None:
    """A transformed recording has a positive rate and a time for every sample, in order."""
    skip_unless(isinstance(subject.made(), SampleTransform), "it works on batches, which have no clock")
    for x in accepted(subject):
        y = apply(ready(subject, x), x)
        require(y.rate > 0, f"its rate is {y.rate}")
        require(len(y.clock) == len(y.values), f"{len(y.values)} samples have {len(y.clock)} times")
        require((np.diff(y.clock) >= 0).all(), "its times are not in order")


@check("transform")
def state_registered(subject: Subject) -> None:
    """Its tensors are parameters or buffers, to be moved to the device and saved with a student."""
    skip_unless(not isinstance(subject.made(), SampleTransform), "it has no tensors")
    x = accepted(subject)[0]
    hidden = unregistered(ready(subject, x))
    require(not hidden, f"{', '.join(hidden)}: use register_buffer")


@check("transform")
def state_saved(subject: Subject) -> None:
    """`state_dict` holds everything fitted: a new instance that loads it returns the same output."""
    skip_unless(getattr(subject.made(), "fitted", False), "it is not fitted")
    for x in accepted(subject):
        fitted, fresh = ready(subject, x), subject.made()
        fresh.load_state_dict(fitted.state_dict())
        agree(apply(fresh, x), apply(fitted, x), "fitted, and loaded from its state_dict, it returns", 1e-6)


@check("transform")
def devices_agree(subject: Subject) -> None:
    """It returns the same output on a GPU as on the CPU, and on the same device."""
    skip_unless(not isinstance(subject.made(), SampleTransform), "it works on recordings, which are never on a GPU")
    skip_unless(torch.cuda.is_available(), "this machine has no GPU that torch can use")
    for x in accepted(subject):
        transform = ready(subject, x)
        cpu = apply(transform, x)
        moved = tuple(each.cuda() for each in x) if isinstance(x, tuple) else x.cuda()  # type: ignore[union-attr]
        gpu = apply(transform.cuda(), moved)
        require(gpu.is_cuda, "for a batch on the GPU, its output is not on the GPU")
        if not _random(transform):
            agree(gpu, cpu, "on GPU and CPU it gives", 1e-3)

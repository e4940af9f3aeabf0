"""Checks of encoders."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from kdcore.contracts.encoder import Participant
from kdcore.errors import KdcoreError
from kdcore.testing.case import ConformanceError, NotApplicable, require, skip_unless
from kdcore.testing.checks import Subject, check, seeded
from kdcore.testing.encoder_inputs import LAYOUTS, SAMPLES, SMALL, accepted, batch, build, built
from kdcore.testing.gradients import agree
from kdcore.training.module_checks import REGISTER, unregistered


@check("encoder")
def logits(subject: Subject) -> None:
    """For every accepted input shape and any number of classes and samples, it returns finite logits (B, classes)."""
    for shape in accepted(subject):
        for classes, samples in ((2, 3), (7, 1)):
            output = build(subject, shape, classes).eval()(batch(shape, samples))
            returned = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            require(returned == (samples, classes), f"for {samples} samples {shape}, {classes} classes, it returns {returned}")
            require(output.is_floating_point() and output.isfinite().all(), f"logits for inputs {shape} are not finite numbers")


@check("encoder")
def batch_independent(subject: Subject) -> None:
    """In evaluation, a sample's logits do not depend on the other samples of its batch."""
    encoder, x = built(subject)
    with torch.no_grad():
        together, alone = encoder(x), torch.cat([encoder(each[None]) for each in x])
    agree(together, alone, "logits of samples together and one by one", 1e-3, 1e-5)


@check("encoder")
def all_parameters_learn(subject: Subject) -> None:
    """Every parameter that requires a gradient gets a finite one, as training in several processes requires."""
    encoder, x = built(subject)
    before = set(dict(encoder.named_parameters()))
    with seeded():
        encoder.train()(x).square().sum().backward()
    late = set(dict(encoder.named_parameters())) - before
    require(not late, f"{', '.join(late)}: created during training, after the optimizer")
    parameters = {name: p for name, p in encoder.named_parameters() if p.requires_grad}
    require(parameters, "it has no trainable parameters")
    missing = [name for name, p in parameters.items() if p.grad is None]
    require(not missing, f"no gradient reaches {', '.join(missing)}; freeze or remove what is not used")
    wrong = [name for name, p in parameters.items() if p.grad is not None and not p.grad.isfinite().all()]
    require(not wrong, f"the gradient of {', '.join(wrong)} is not finite")


@check("encoder")
def state_registered(subject: Subject) -> None:
    """Its tensors and modules are registered as parameters, buffers or submodules, to be moved, trained and saved."""
    encoder, _ = built(subject)
    hidden = unregistered(encoder)
    require(not hidden, f"{', '.join(hidden)}: {REGISTER}")


@check("encoder")
def state_saved(subject: Subject) -> None:
    """`state_dict` holds everything learned: an instance with another seed that loads it returns the same logits."""
    trained, x = built(subject)
    other, _ = built(subject, seed=1)
    with seeded(), torch.no_grad():
        trained.train()(x + 1)  # moves running statistics
    other.load_state_dict({name: value.clone() for name, value in trained.state_dict().items()})
    with torch.no_grad():
        agree(other.eval()(x), trained.eval()(x), "logits of the trained one and of one that loaded its state_dict", 1e-5)


@check("encoder")
def deterministic(subject: Subject) -> None:
    """Constructed again with the same seed, it has the same weights and returns the same logits, also in training mode."""
    (first, x), (second, _) = built(subject), built(subject)
    again = second.state_dict()
    different = [name for name, value in first.state_dict().items() if not torch.equal(value, again[name])]
    require(not different, f"with the same seed {', '.join(different)} differ; take random numbers from torch alone")
    with torch.no_grad():
        for mode in ("evaluation", "training"):
            outputs = []
            for encoder in (first, second):
                with seeded():
                    outputs.append(encoder.train(mode == "training")(x))
            require(torch.equal(*outputs), f"in {mode} the same weights, seed and input give different logits")


@check("encoder")
def inputs_unmodified(subject: Subject) -> None:
    """It does not modify its input."""
    encoder, x = built(subject)
    before = x.clone()
    with torch.no_grad():
        encoder(x)
    require(torch.equal(x, before), "it changes its input in place; work on a copy")


@check("encoder")
def precisions_agree(subject: Subject) -> None:
    """Double, single and (under autocast) bfloat16 precision give the same logits, up to rounding."""
    encoder, x = built(subject)
    with torch.no_grad():
        single = encoder(x)
        half, repeated = _in_bfloat16(encoder, x), _in_bfloat16(encoder, x)
        double = encoder.double()(x.double())
        again = encoder.float()(x)
    agree(single, double, "logits in single and double precision", 1e-3, 1e-5)
    if half is None or repeated is None:
        return
    try:
        agree(half, double, "logits in bfloat16 and double precision", 0.15, 0.02)
    except ConformanceError as error:
        if torch.equal(single, again) and not torch.equal(half, repeated):
            raise NotApplicable("bfloat16 results on this processor differ when a pass is repeated") from error
        raise


def _in_bfloat16(encoder: nn.Module, x: Tensor) -> Tensor | None:
    """Return logits under autocast; None if this processor does not support it."""
    try:
        with torch.autocast("cpu", torch.bfloat16):
            return encoder(x)
    except RuntimeError as error:
        if "primitive" in str(error):  # oneDNN has no such operation for this processor
            return None
        raise


@check("encoder")
def devices_agree(subject: Subject) -> None:
    """It returns the same logits on a GPU as on the CPU."""
    skip_unless(torch.cuda.is_available(), "this machine has no GPU that torch can use")
    encoder, x = built(subject)
    with torch.no_grad():
        cpu = encoder(x)
        agree(encoder.to("cuda")(x.to("cuda")), cpu, "logits on GPU and CPU", 1e-2, 1e-4)


@check("encoder")
def tappable(subject: Subject) -> None:
    """At least one submodule can be tapped: it runs in every pass and returns a tensor with one or more rows per sample."""
    encoder, x = built(subject)
    named = {name: name for name, _ in encoder.named_modules() if name}
    require(named, "it has no submodules, so losses cannot tap it; make its layers attributes")
    with torch.no_grad():
        features = Participant("student", encoder, named)(x).features
    usable = [tap for tap, value in features.items() if _tapped(value)]
    require(usable, "no submodule returns a tensor with rows for every sample, so losses cannot tap it")


def _tapped(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim > 1 and len(value) % SAMPLES == 0


@check("encoder")
def stages_make_forward(subject: Subject) -> None:
    """If it has stages, running them in sequence gives the logits of `forward`."""
    encoder, x = built(subject)
    try:
        stages = encoder.stages()  # type: ignore[operator]
    except (AttributeError, NotImplementedError) as error:
        raise NotApplicable("it has no stages") from error
    with torch.no_grad():
        expected, y = encoder(x), x
        for stage in stages.values():
            y = stage(y)
    agree(y, expected, "its stages one after the other, and forward, give", 1e-5)


@check("encoder")
def refusals_clear(subject: Subject) -> None:
    """Its constructor raises a ValueError for inputs that it cannot read: another layout or too small a size."""
    readable = accepted(subject)
    small = [shape for layout, shape in SMALL.items() if any(len(LAYOUTS[layout]) == len(each) for each in readable)]
    for shape in dict.fromkeys([*LAYOUTS.values(), *small]):
        try:
            encoder = build(subject, shape)
        except (ValueError, KdcoreError) as error:
            require(str(error), f"the ValueError for in_shape {shape} has no message")
            continue
        except Exception as error:
            raised = f"{type(error).__name__}: {error}"
            raise ConformanceError(f"its constructor must raise a ValueError for in_shape {shape}, not {raised}") from error
        _run_or_refuse(encoder, shape)


def _run_or_refuse(encoder: nn.Module, shape: tuple[int, ...]) -> None:
    try:
        with torch.no_grad():
            encoder.eval()(batch(shape, 2))
    except Exception as error:
        raised = f"{type(error).__name__}: {error}"
        raise ConformanceError(
            f"its constructor accepts in_shape {shape}, but forward fails ({raised}); raise a ValueError in the constructor"
        ) from error

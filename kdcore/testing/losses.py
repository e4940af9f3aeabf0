"""Checks of losses: their values and gradients."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from kdcore.contracts.batch import LossContext
from kdcore.contracts.loss import DistillationLoss
from kdcore.contracts.needs import Needs
from kdcore.contracts.target import TargetKind
from kdcore.plugin.error_attribution import explained
from kdcore.plugin.option_schema import options_model
from kdcore.testing.case import ConformanceError, NotApplicable, require, skip_unless
from kdcore.testing.checks import Subject, check, seeded
from kdcore.testing.gradients import agree, descend, gradients
from kdcore.testing.loss_inputs import SAMPLES, Change, Shapes, cast, context, learning, mapped, plausible, ready, tensors
from kdcore.training.module_checks import not_a_scalar

TRIES = 4
LARGE, TINY = 1e4, 1e-12
ON_PURPOSE = "if it splits or mixes the batch on purpose, declare expected_failures = {%r: {'permutation_invariant': 'why'}}"
DRAWS, ERRORS = 400, 5
"""Random draws of a loss that are averaged, and the number of standard errors by which their means may differ."""


@dataclass(frozen=True)
class Bench:
    """A loss after its setup, with a context for it."""

    loss: DistillationLoss
    ctx: LossContext

    def value(self, ctx: LossContext | None = None, seed: int = 0, elsewhere: int = 0) -> Tensor:
        """Return the value of a copy of the loss, with seeded random numbers and a copy of the context.

        Args:
            ctx: Context for the loss. Default: the context of this bench.
            seed: Seed of torch's random generators.
            elsewhere: Seed of Python's and NumPy's random generators.
        """
        with seeded(seed, elsewhere):
            return deepcopy(self.loss)(mapped(ctx or self.ctx, lambda name, x: x))


def bench(subject: Subject, samples: int = SAMPLES, seed: int = 0, **options: Any) -> Bench:
    """Return the loss after its setup, in training mode, with a context in single precision.

    Raises:
        NotApplicable: If the loss cannot be constructed or fails, which other checks report.
    """
    needs, shapes = _declared(subject)
    return _bench(subject, needs, shapes, samples, seed, **options)


def warmed_up(subject: Subject, samples: int = SAMPLES, seed: int = 0, steps: int | None = None) -> Bench:
    """Return the loss after `steps`, by default those of its case, when a gradient reaches the student; see `bench`."""
    steps = subject.case.warmup_steps if steps is None else steps
    loss = bench(subject).loss
    for step in range(steps):
        train_step(loss, batch(subject, step, epoch=step))
    return Bench(loss, batch(subject, seed, samples, steps))


def train_step(loss: DistillationLoss, ctx: LossContext) -> None:
    """Train the parameters of a loss for one step."""
    with seeded():
        value = loss(ctx)
    if value.requires_grad:
        value.backward()
        descend(loss.parameters())
        loss.zero_grad()


def _target(subject: Subject) -> TargetKind:
    """Return the kind of target for the test."""
    targets = subject.once("targets", lambda: subject.made().targets)
    return "classes" if "classes" in targets else targets[0]


def batch(subject: Subject, seed: int = 0, samples: int = SAMPLES, epoch: int = 0) -> LossContext:
    """Return a context in single precision, as in `bench`."""
    return cast(context(*_declared(subject), samples, seed, _target(subject), epoch), torch.float32)


def _declared(subject: Subject) -> tuple[Needs, Shapes]:
    """Return the needs of the loss and shapes of taps that it accepts, which are computed once."""
    needs = subject.once("needs", lambda: subject.made().needs)
    return needs, subject.once("shapes", lambda: _shapes(subject, needs))


def _bench(subject: Subject, needs: Needs, shapes: Shapes, samples: int, seed: int, **options: Any) -> Bench:
    target = _target(subject)
    with seeded():
        loss = ready(lambda: subject.made(options), cast(context(needs, shapes, target=target), torch.float32))
    return Bench(loss.train(), cast(context(needs, shapes, samples, seed, target), torch.float32))


def _shapes(subject: Subject, needs: Needs) -> Shapes:
    for shapes in plausible(needs, subject.case.inputs or {}):
        try:
            _require_number(_bench(subject, needs, shapes, SAMPLES, 0).value())
        except Exception:  # a loss may raise anything for shapes that it does not accept; `answers` reports it
            continue
        return shapes
    raise NotApplicable("it returns no value: see the check 'answers'")


@check("loss")
def answers(subject: Subject) -> None:
    """Given only what its `needs` declare, it returns a finite scalar."""
    needs, failures = subject.made().needs, []
    for shapes in plausible(needs, subject.case.inputs or {}):
        try:
            value = _bench(subject, needs, shapes, SAMPLES, 0).value()
        except Exception as error:
            failures.append(explained(error) + (f" (taps {shapes})" if needs.student_taps else ""))
            continue
        _require_number(value)
        return
    hint = "\nIf its taps have other shapes, test it with Case(inputs={tap: shape})." if needs.student_taps else ""
    raise ConformanceError(f"given {needs}, it raises\n  " + "\n  ".join(failures) + hint)


def _require_number(value: Any) -> None:
    require(not (wrong := not_a_scalar(value)), wrong)
    require(value.is_floating_point() and value.isfinite(), f"its value is {value.detach()} of {value.dtype}")


@check("loss")
def student_gets_gradient(subject: Subject) -> None:
    """A finite gradient reaches the student: each of the taps in its `needs`, or the logits if there are none."""
    if (steps := subject.case.warmup_steps) and not _without_gradient(subject, bench):
        raise ConformanceError(f"its case sets warmup_steps={steps}, but a gradient reaches the student at once: remove it")
    missing = _without_gradient(subject, warmed_up)
    reason = f"after {steps} warm-up steps" if steps else "is a tensor detached, or a tap declared but not used?"
    for later in range(steps + 1, steps + 1 + TRIES) if missing else ():
        if not _without_gradient(subject, partial(warmed_up, steps=later)):
            reason = f"one does with Case(warmup_steps={later}), which is right if the loss starts later on purpose"
            break
    require(not missing, f"no gradient reaches {', '.join(missing)}: {reason}")


def _without_gradient(subject: Subject, make: Callable[..., Bench]) -> list[str]:
    """Return the taps, or the logits if there are none, that get no gradient from any of some batches."""
    taps = subject.made().needs.student_taps
    missing = [f"student.features.{tap}" for tap in taps] or ["student.logits"]
    for seed in range(TRIES):
        tested = make(subject, seed=seed)
        received = gradients(tested.value(), tested.ctx)
        broken = [name for name, gradient in received.items() if not gradient.isfinite().all()]
        require(not broken, f"the gradient of {', '.join(broken)} is not finite")
        missing = [name for name in missing if not received[name].any()]
        if not missing:
            break
    return missing


@check("loss")
def teachers_get_none(subject: Subject) -> None:
    """Only the student gets a gradient: teachers, peers, embeddings and the input get none."""
    tested = bench(subject)
    tested.value()
    requiring = [name for name, x in tensors(tested.ctx).items() if x.requires_grad and not name.startswith("student.")]
    require(not requiring, f"it makes {', '.join(requiring)} require a gradient; only the student may")


@check("loss")
def inputs_unmodified(subject: Subject) -> None:
    """It does not modify any tensor that it receives."""
    tested = bench(subject)
    # In a run, the student's tensors are not leaves. Leaves that require a gradient could not be changed in place.
    ctx = mapped(tested.ctx, lambda name, x: x * 1.0 if x.requires_grad else x)
    before = {name: x.detach().clone() for name, x in tensors(ctx).items()}
    with seeded():
        deepcopy(tested.loss)(ctx)
    after = tensors(ctx)
    added_or_removed = sorted(before.keys() ^ after.keys())
    require(not added_or_removed, f"it removes {', '.join(added_or_removed)} from its context, or adds it; work on a copy")
    changed = [name for name, x in after.items() if not torch.equal(x.detach(), before[name])]
    require(not changed, f"it changes {', '.join(changed)} in place; work on a copy")


@check("loss")
def no_backward(subject: Subject) -> None:
    """It does not call ``backward``, whose gradients a run would discard or add to its own."""
    tested = bench(subject)
    loss, ctx = deepcopy(tested.loss), mapped(tested.ctx, lambda name, x: x)
    with seeded():
        loss(ctx)
    left = [name for name, x in (*tensors(ctx).items(), *loss.named_parameters()) if x.is_leaf and x.grad is not None]
    require(not left, f"it calls backward, which leaves a gradient in {', '.join(left)}; use torch.autograd.grad")


@check("loss")
def deterministic(subject: Subject) -> None:
    """Constructed again with the same torch seed, it returns a bit-identical value and gradient."""
    first, second = warmed_up(subject), warmed_up(subject)
    values = first.value(), second.value(elsewhere=1)
    text = " and ".join(str(float(value.detach())) for value in values)
    require(torch.equal(*values), f"with the same seed its value is {text}; use only the random generators of torch")
    one, other = gradients(values[0], first.ctx), gradients(values[1], second.ctx)
    different = [name for name in one if not torch.equal(one[name], other[name])]
    require(not different, f"with the same seed the gradients of {', '.join(different)} differ")


@check("loss")
def permutation_invariant(subject: Subject) -> None:
    """The order of the samples in the batch does not matter."""
    tested = bench(subject)
    order = torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(1))
    shuffled = learning(mapped(tested.ctx, lambda name, x: x[order] if _by_sample(name, x) else x))
    try:
        _agree_on_average(subject, tested, shuffled, tested.ctx, "its value changes with the order of samples", 1e-4, 1e-5)
    except ConformanceError as error:
        raise ConformanceError(f"{error}; {ON_PURPOSE % subject.entry.name}") from error


def _agree_on_average(
    subject: Subject, tested: Bench, one: LossContext, other: LossContext, what: str, rtol: float, atol: float
) -> None:
    """Raise an error unless a loss has the same value in two contexts; on average over draws, if it is `random_per_sample`."""
    if not subject.case.random_per_sample:
        agree(tested.value(one), tested.value(other), what, rtol, atol)
        return
    values = torch.stack([torch.stack([tested.value(ctx, seed) for ctx in (one, other)]) for seed in range(DRAWS)])
    values = values.detach().double()
    require(values.std(dim=0).any(), "its case sets random_per_sample, but its value does not depend on the seed: remove it")
    difference = values[:, 0] - values[:, 1]
    error, mean = float(difference.std()) / DRAWS**0.5, float(difference.mean())
    text = f"{what}: over {DRAWS} draws, the mean difference is {mean:.3g} with a standard error of {error:.3g}"
    require(abs(mean) <= ERRORS * error + atol, text)


def _by_sample(name: str, x: Tensor) -> bool:
    return x.ndim > 0 and len(x) == SAMPLES and name != "class_embeddings"


@check("loss")
def weights_count_samples(subject: Subject) -> None:
    """With `sample_weights`, a weight of two counts a sample twice, and weights of one change nothing."""
    skip_unless(subject.made().sample_weights, "it does not declare sample_weights")
    tested = bench(subject)
    once, twice = torch.ones(SAMPLES), torch.arange(SAMPLES) % 2 + 1
    indices = torch.arange(SAMPLES).repeat_interleave(twice)
    repeated = learning(tested.ctx.select(indices))

    def weighted(weights: Tensor) -> LossContext:
        return replace(tested.ctx, batch=tested.ctx.batch.with_weights(weights))

    agree(tested.value(weighted(once)), tested.value(), "its value with weights of one and without weights", 1e-6, 1e-6)
    what = "its value with weights of two and with samples repeated"
    _agree_on_average(subject, tested, weighted(twice.float()), repeated, what, 1e-5, 1e-6)


@check("loss")
def unknown_labels_ignored(subject: Subject) -> None:
    """With `partial_labels`, labels that are NaN leave its value finite, and the student's logits for them have no effect."""
    skip_unless(subject.made().partial_labels, "it does not declare partial_labels")
    tested = bench(subject)
    labels = tested.ctx.labels.clone()
    labels[0, 0], labels[1:3, 1] = torch.nan, torch.nan
    ctx = replace(tested.ctx, batch=tested.ctx.batch.with_labels(labels))
    value = tested.value(ctx)
    _require_finite(value, ctx, "with unknown labels")
    slope = gradients(value, ctx)["student.logits"]
    require(not slope[labels.isnan()].any(), "the student's logits for unknown labels change its value")


@check("loss")
def optional_labels_may_be_unknown(subject: Subject) -> None:
    """With `Needs(labels="optional")`, its value and gradient are finite where no label of the batch is known."""
    skip_unless(subject.made().needs.labels == "optional", "its labels are not optional")
    tested = bench(subject)
    unknown = -1 if tested.ctx.labels.ndim == 1 else torch.nan
    ctx = replace(tested.ctx, batch=tested.ctx.batch.with_labels(torch.full_like(tested.ctx.labels, unknown)))
    _require_finite(tested.value(ctx), ctx, "without known labels")


@check("loss")
def batch_of_one(subject: Subject) -> None:
    """A batch of a single sample gives a finite value and gradient."""
    tested = warmed_up(subject, samples=1)
    _require_finite(tested.value(), tested.ctx, "for a batch of one")


@check("loss")
def temperature_scaling(subject: Subject) -> None:
    """Multiplying logits and temperature by c multiplies its value by c to the power of the declared `temperature_power`."""
    power = subject.made().temperature_power
    if power is None:
        raise NotApplicable("it declares no temperature_power")
    named = "temperature" in options_model(subject.entry).model_fields
    require(
        named, "it declares temperature_power, but has no option 'temperature'; rename the option, or remove temperature_power"
    )
    usual = bench(subject, temperature=1.5)
    for factor in (2.0, 3.0):
        hot = bench(subject, temperature=1.5 * factor)
        ctx = learning(mapped(hot.ctx, lambda name, x, c=factor: x * c if name.endswith("logits") else x))
        what = (
            f"with logits and temperature × {factor:g}, its value should be × {factor**power:g}; actual and expected values are"
        )
        agree(hot.value(ctx), usual.value() * factor**power, what)


@check("loss")
def precisions_agree(subject: Subject) -> None:
    """Double, single and (under autocast) bfloat16 precision give the same value and gradient, up to rounding."""
    single = warmed_up(subject)
    double = Bench(warmed_up(subject).loss.double(), cast(single.ctx, torch.float64))
    _compare(single, double, "single and double precision", 1e-3)
    half = cast(single.ctx, torch.bfloat16)
    rounded = Bench(double.loss, cast(half, torch.float64))
    with torch.autocast("cpu", torch.bfloat16):
        value = single.value(half)
    wanted = rounded.value()
    agree(value, wanted, "its value in bfloat16 and double precision", 0.1, 0.02)
    arrived, expected = gradients(value, half), gradients(wanted, rounded.ctx)
    for name, gradient in arrived.items():
        agree(gradient, expected[name], f"the gradient of {name} in bfloat16 and double precision", 0.25)


def _compare(tested: Bench, wanted: Bench, what: str, rtol: float) -> None:
    one, other = tested.value(), wanted.value()
    agree(one, other, f"its value in {what}", rtol, 1e-5)
    arrived, expected = gradients(one, tested.ctx), gradients(other, wanted.ctx)
    for name, gradient in arrived.items():
        agree(gradient, expected[name], f"the gradient of {name} in {what}", 10 * rtol, 1e-5)


@check("loss")
def devices_agree(subject: Subject) -> None:
    """It returns the same value and gradient on a GPU as on the CPU."""
    skip_unless(torch.cuda.is_available(), "this machine has no GPU that torch can use")
    cpu, other = warmed_up(subject), warmed_up(subject)
    gpu = Bench(other.loss.to("cuda"), cast(other.ctx, torch.float32, "cuda"))
    _compare(gpu, cpu, "on GPU and CPU", 1e-3)


def _check_with(subject: Subject, change: Change, when: str) -> None:
    tested = warmed_up(subject)
    ctx = learning(mapped(tested.ctx, lambda name, x: change(name, x.detach())))
    _require_finite(tested.value(ctx), ctx, when)


def _is_output(name: str) -> bool:
    return ".features." in name or name.endswith("logits")


@check("loss")
def finite_on_equal_outputs(subject: Subject) -> None:
    """Value and gradient are finite if all outputs are equal, as those of untrained networks nearly are."""

    def equal(name: str, x: Tensor) -> Tensor:
        return torch.full_like(x, 0.5) if _is_output(name) else x

    _check_with(subject, equal, "for equal logits and activations")


@check("loss")
def finite_on_extreme_logits(subject: Subject) -> None:
    """Value and gradient are finite for logits of 10,000, where softmax is exactly 0 and 1."""
    _check_with(subject, lambda name, x: x * LARGE if name.endswith("logits") else x, f"for logits of the order of {LARGE:g}")


@check("loss")
def finite_on_tiny_outputs(subject: Subject) -> None:
    """Value and gradient are finite for logits and activations close to zero, and for activations of zero."""
    _check_with(subject, lambda name, x: x * TINY if _is_output(name) else x, f"for outputs of the order of {TINY:g}")
    _check_with(subject, lambda name, x: x * 0 if ".features." in name else x, "for activations that are all zero")


def _require_finite(value: Tensor, ctx: LossContext, when: str) -> None:
    """Raise an error unless a value and its gradient for the student are finite."""
    require(value.isfinite().all(), f"its value {when} is {value.detach().cpu().numpy()}")
    wrong = [name for name, gradient in gradients(value, ctx).items() if not gradient.isfinite().all()]
    require(not wrong, f"the gradient of {', '.join(wrong)} {when} is not finite")

"""Checks of losses as modules: parameters, state, distributed training and compilation."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor

from kdcore.testing.case import require, skip_unless
from kdcore.testing.checks import Subject, check, seeded
from kdcore.testing.gradients import agree, gradients
from kdcore.testing.loss_inputs import learning, mapped, tensors
from kdcore.testing.losses import batch, bench, train_step, warmed_up
from kdcore.training.module_checks import MADE_LATE, REGISTER, unregistered


@check("loss")
def state_registered(subject: Subject) -> None:
    """Its tensors and modules are registered as parameters, buffers or submodules, to be moved, trained and saved."""
    tested = bench(subject)
    with seeded():
        tested.loss(tested.ctx)
    hidden = unregistered(tested.loss)
    require(not hidden, f"{', '.join(hidden)}: {REGISTER}")


@check("loss")
def parameters_trained(subject: Subject) -> None:
    """Its parameters exist before the first step, get a gradient, and change in a step."""
    tested = bench(subject)
    before = {name: p.detach().clone() for name, p in tested.loss.named_parameters()}
    with seeded():
        tested.loss(tested.ctx)
    made_late = [name for name, _ in tested.loss.named_parameters() if name not in before]
    require(not made_late, f"{', '.join(made_late)}: {MADE_LATE}")
    skip_unless(before, "it has no parameters")
    warmup = subject.case.warmup_steps
    for step in range(warmup + 3):
        train_step(tested.loss, batch(subject, step, epoch=min(step, warmup)))
    unchanged = [name for name, p in tested.loss.named_parameters() if p.requires_grad and torch.equal(p, before[name])]
    require(
        not unchanged,
        f"{', '.join(unchanged)}: training does not change these parameters; are they used, and do they get a gradient?",
    )


@check("loss")
def state_saved(subject: Subject) -> None:
    """`state_dict` holds everything learned: a new instance that loads it returns the same value."""
    trained, fresh = bench(subject), bench(subject)
    for seed in range(3):
        train_step(trained.loss, batch(subject, seed))
    saved = {name: x.clone() for name, x in trained.loss.state_dict().items()}
    fresh.loss.load_state_dict(saved)
    what = "after training, and loaded from its state_dict, it returns"
    agree(fresh.value(), trained.value(), what, 1e-5)


@check("loss")
def compiles(subject: Subject) -> None:
    """torch.compile does not change its value or gradient."""
    tested = warmed_up(subject)
    names = list(tensors(tested.ctx))

    expected, ctx, loss = tested.value(), learning(tested.ctx), deepcopy(tested.loss)

    def of_tensors(*given: Tensor) -> Tensor:
        lookup = dict(zip(names, given, strict=True))
        return loss(mapped(tested.ctx, lambda name, _: lookup[name]))

    torch._dynamo.reset()
    with seeded():
        value = torch.compile(of_tensors, backend="aot_eager")(*tensors(ctx).values())
    agree(value, expected, "compiled and not compiled it gives", 1e-4, 1e-5)
    compiled, plain = gradients(value, ctx), gradients(expected, tested.ctx)
    for name in plain:
        agree(compiled[name], plain[name], f"the gradient of {name}, compiled and not", 1e-3, 1e-5)


@check("loss")
def distributed(subject: Subject) -> None:
    """Two processes that share a batch, as under DDP, get the same value and gradients as one process."""
    skip_unless(torch.distributed.is_available(), "torch.distributed is not available")
    from kdcore.testing.processes import Share, in_two_processes

    alone, tested = warmed_up(subject), warmed_up(subject)
    skip_unless(alone.value().requires_grad, "it has no gradient: see the check 'student_gets_gradient'")
    share = Share(alone.loss, alone.ctx)
    expected = share.steps(1, lambda x: x)
    results = in_two_processes(Share(tested.loss, tested.ctx))
    for rank, result in enumerate(results):
        for name, value in expected.items():
            agree(result[name], value, f"{name} in process {rank} of two, and in a single process", 1e-3, 1e-5)

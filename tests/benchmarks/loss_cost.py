"""Time and memory that each loss adds to a student's step.

By hand: ``OMP_NUM_THREADS=1 python tests/benchmarks/loss_cost.py --batch 64 --classes 27 --only dkd,crd``

The student's own step is a ResNet-18 on 64 × 64 pixels: forward pass, cross-entropy, backward pass, one step of SGD. A loss's
step is its value and the gradients of the student's outputs and of its own parameters, on outputs that are there already.
Activations have `--width` channels: vectors, or maps of 4 × 4 for losses that compare positions. A loss that needs two teachers
has two. Memory is the most that a step holds at once beyond what was there before.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile
from torchvision.models import resnet18

from kdcore import Batch, Classifier, DistillationLoss, Entry, Example, LossContext, Outputs, plugin_manager
from kdcore.plugin.option_schema import make, options_model
from kdcore.testing.loss_inputs import MadeUpNetworks
from kdcore_losses.conformance import cases

MAP = (4, 4)
LIMIT = 0.1
"""A loss that takes more than this share of the student's step is marked."""


def losses(only: Sequence[str]) -> Iterator[tuple[str, DistillationLoss]]:
    """The losses of the plugin with the options of their conformance cases but without those that make them small."""
    for entry in plugin_manager().registry.entries("loss"):
        if entry.plugin == "losses" and (not only or entry.name in only):
            yield entry.name, make(entry, options(entry), None)


def options(entry: Entry) -> dict:
    """Options without which a loss cannot be made."""
    case = cases.get(entry.name)
    required = options_model(entry).model_fields
    first = case[0] if isinstance(case, list) else case
    return {key: value for key, value in (first.options if first else {}).items() if required[key].is_required()}


def context(loss: DistillationLoss, batch: int, classes: int, width: int, shape: Sequence[int], device: str) -> LossContext:
    """Outputs with everything that a loss needs."""
    torch.manual_seed(0)
    needs = loss.needs

    def outputs(taps: Sequence[str], learns: bool) -> Outputs:
        features = {tap: torch.randn(batch, width, *shape, device=device).requires_grad_(learns) for tap in taps}
        if needs.classifiers:
            weight, bias = torch.randn(classes, width, device=device), torch.zeros(classes, device=device)
            last = next(iter(features.values()), torch.randn(batch, width, device=device))
            logits = last.detach().reshape(batch, width, -1).mean(2) @ weight.T
            return Outputs(logits.requires_grad_(learns), features, classifier=Classifier(weight.requires_grad_(learns), bias))
        return Outputs(torch.randn(batch, classes, device=device).requires_grad_(learns), features)

    teachers = {f"teacher{number}": outputs(needs.teacher_taps, False) for number in range(needs.teachers)}
    labels = torch.randint(classes, (batch,), device=device)
    if "classes" not in loss.targets:
        numbers = torch.randn(batch, classes, device=device)
        labels = (numbers > 0).float() if "labels" in loss.targets else numbers
    own, names = outputs(needs.student_taps, True), ("student", *teachers) if needs.forward_passes else ()
    signals = {name: torch.randn(batch, 3, 64, device=device) for name in names}
    whole = Batch(torch.arange(batch, device=device), signals, labels)
    return LossContext(own, teachers, whole, networks=MadeUpNetworks(own, teachers, False))


def ready(loss: DistillationLoss, ctx: LossContext, classes: int, device: str) -> Callable[[], None]:
    """A step of a loss that is set up.

    Raises:
        ValueError: If it does not fit these activations.
    """
    loss.setup(Example(ctx.student.detach(), dict(ctx.teachers), classes))
    loss.to(device)
    learnt = [ctx.student.logits, *ctx.student.features.values(), *loss.parameters()]

    def step() -> None:
        torch.autograd.grad(loss(ctx), learnt, allow_unused=True)

    return step


def student_step(batch: int, classes: int, device: str) -> Callable[[], None]:
    """A step of the student without distillation."""
    network = resnet18(num_classes=classes).to(device)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    images = torch.randn(batch, 3, 64, 64, device=device)
    labels = torch.randint(classes, (batch,), device=device)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()

    return step


def seconds(step: Callable[[], None], device: str, repeats: int) -> float:
    """Median time of a step; CPU time of the process on a CPU, which other processes do not disturb."""
    now = time.perf_counter if device == "cuda" else time.process_time
    step()
    taken = []
    for _ in range(repeats):
        start = now()
        step()
        if device == "cuda":
            torch.cuda.synchronize()
        taken.append(now() - start)
    return statistics.median(taken)


def memory(step: Callable[[], None], device: str) -> float:
    """MiB that a step allocates at most at once."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        step()
    held = most = 0
    for event in found.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most / 2**20


def fitting(
    loss: DistillationLoss, batch: int, classes: int, width: int, device: str
) -> tuple[Callable[[], None], LossContext]:
    """A step on vectors, or on maps if a loss compares positions."""
    for shape in ((), MAP):
        ctx: LossContext = context(loss, batch, classes, width, shape, device)
        try:
            return ready(loss, ctx, classes, device), ctx
        except ValueError:
            if shape == MAP:
                raise
    raise AssertionError


def main() -> None:
    """Print one line per loss and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--classes", type=int, nargs="+", default=[27, 1000])
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--only", type=lambda text: text.split(","), default=[])
    given = parser.parse_args()
    for batch in given.batch:
        for classes in given.classes:
            own = student_step(batch, classes, given.device)
            whole, most = seconds(own, given.device, given.repeats), memory(own, given.device)
            print(f"\nbatch {batch}, {classes} classes, width {given.width}: step {1000 * whole:.1f} ms, {most:.0f} MiB")
            for name, loss in losses(given.only):
                step, ctx = fitting(loss, batch, classes, given.width, given.device)
                taken = seconds(step, given.device, given.repeats)
                shape = "×".join(map(str, next(iter(ctx.student.features.values()), ctx.student.logits).shape[1:]))
                mark = "  over 10 %" if taken > LIMIT * whole else ""
                used = memory(step, given.device)
                print(
                    f"{name:<24} {1000 * taken:8.2f} ms {100 * taken / whole:6.1f} % {used:8.1f} MiB  {shape}{mark}", flush=True
                )


if __name__ == "__main__":
    main()

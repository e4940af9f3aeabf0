"""Synthetic contexts for losses under test, with everything that a loss declares in its needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kdcore.contracts.batch import Batch, Classifier, LossContext, Outputs
from kdcore.contracts.dataset import SampleKey
from kdcore.contracts.loss import DistillationLoss, Example
from kdcore.contracts.needs import Needs
from kdcore.contracts.progress import Progress
from kdcore.contracts.target import TargetKind
from kdcore.functional import mean_over_positions
from kdcore.training.module_checks import set_up

SAMPLES, CLASSES, WIDTH = 6, 5, 8

Shape = tuple[int, ...]
Change = Callable[[str, Tensor], Tensor]


@dataclass(frozen=True)
class Shapes:
    """Shapes of activations without the batch axis, by tap, for the student and teachers."""

    student: Mapping[str, Shape]
    teacher: Mapping[str, Shape]


@dataclass(frozen=True)
class MadeUpNetworks:
    """Networks for losses that run them: a sample's outputs are the mean of the context's, scaled by a number of its input.

    So they keep what holds for classes, and depend on the student's tensors.

    Args:
        student: Outputs of the learner.
        others: Teacher or peer → its outputs.
        learner_only: Whether the loss may run the learner only.
    """

    student: Outputs
    others: Mapping[str, Outputs]
    learner_only: bool

    def input(self, name: str, batch: Batch) -> Tensor:
        """The input of a participant."""
        self._of(name)
        signal = batch.signals[name or "student"]
        assert isinstance(signal, Tensor)
        return signal

    def axes(self, name: str) -> tuple[str, ...]:
        """The axes of all inputs."""
        self._of(name)
        return ("channel", "time")

    def parameters(self, name: str) -> dict[str, Tensor]:
        """A factor of all outputs, with the precision and device of the logits."""
        return {
            "scale": torch.ones((), dtype=self._of(name).logits.dtype, device=self._of(name).logits.device).requires_grad_()
        }

    def forward(self, name: str, x: Tensor, parameters: Mapping[str, Tensor] | None = None) -> Outputs:
        """Outputs for `x`."""
        numbers = x.flatten(1)
        factors = 1 + torch.tanh(numbers @ torch.linspace(-1, 1, numbers.shape[1]).to(numbers))
        factors = factors * (parameters or {}).get("scale", 1)

        def scaled(value: Tensor) -> Tensor:
            mean = value.mean(dim=0)
            return factors.to(mean).reshape(-1, *[1] * mean.ndim) * mean

        given = self._of(name)
        return Outputs(scaled(given.logits), {tap: scaled(value) for tap, value in given.features.items()})

    def of_classes(self, classes: Tensor) -> MadeUpNetworks:
        """The same networks with outputs for `classes` only."""
        others = {name: each.of_classes(classes) for name, each in self.others.items()}
        return replace(self, student=self.student.of_classes(classes), others=others)

    def _of(self, name: str) -> Outputs:
        if name and self.learner_only:
            raise ValueError(f"the loss runs {name!r}, but does not declare Needs(forward_passes='all')")
        return self.others[name] if name else self.student


def plausible(needs: Needs, given: Mapping[str, Shape]) -> Iterator[Shapes]:
    """Yield shapes that the taps may have: the given ones, and vectors, maps or sequences for the others."""
    usual: tuple[Shape, ...] = ((WIDTH,), (WIDTH, 6, 6), (WIDTH, 12))
    free = [tap for tap in needs.student_taps if not _given(tap, "student", given)]
    free += [tap for tap in needs.teacher_taps if not _given(tap, "teacher", given)]
    for shape in usual if free else usual[:1]:
        yield Shapes(
            {tap: _given(tap, "student", given) or shape for tap in needs.student_taps},
            {tap: _given(tap, "teacher", given) or shape for tap in needs.teacher_taps},
        )


def _given(tap: str, side: str, given: Mapping[str, Shape]) -> Shape:
    return tuple(given.get(f"{side}/{tap}", given.get(tap, ())))


def context(
    needs: Needs, shapes: Shapes, samples: int = SAMPLES, seed: int = 0, target: TargetKind = "classes", epoch: int = 0
) -> LossContext:
    """Return a context with random outputs in float64. Those of the student require a gradient.

    It contains only what the loss declares, so that use of undeclared labels, taps or embeddings is detected. In its progress,
    an epoch has one step.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def outputs(taps: Mapping[str, Shape], rows: int) -> Outputs:
        return Outputs(2 * draw(rows, CLASSES), {tap: draw(rows, *shape) for tap, shape in taps.items()})

    def classified(unclassified: Outputs) -> Outputs:
        """Return outputs whose logits are computed by a classifier from the first tap, averaged over positions."""
        pooled = [mean_over_positions(x) for x in unclassified.features.values()]
        classifier = Classifier(draw(CLASSES, pooled[0].shape[1] if pooled else WIDTH), draw(CLASSES))
        logits = pooled[0] @ classifier.weight.T + classifier.bias if pooled else unclassified.logits
        return replace(unclassified, logits=logits, classifier=classifier)

    def participant(taps: Mapping[str, Shape], ablated_rows: int) -> Outputs:
        drawn = replace(outputs(taps, samples), ablated=outputs(taps, ablated_rows) if needs.ablated else None)
        return classified(drawn) if needs.classifiers else drawn

    of_peers = {**shapes.student, **{tap: shapes.student.get(tap, (WIDTH,)) for tap in needs.peer_taps}}
    ctx = LossContext(
        participant(shapes.student, samples if needs.ablated == "mixed" else 1),
        {f"teacher{n}": participant(shapes.teacher, 1) for n in range(needs.teachers)},
        replace(_batch(samples, labelled=bool(needs.labels), target=target), signals=signals(needs, samples, draw)),
        {f"peer{n}": participant(of_peers, 1) for n in range(needs.peers)},
        draw(CLASSES, WIDTH) if needs.class_embeddings else None,
        Progress("student", epoch, epoch, epoch + 10),
    )
    if needs.labels == "optional" and target == "classes" and samples > 1:
        ctx = replace(ctx, batch=ctx.batch.with_labels(ctx.labels.index_fill(0, torch.tensor([samples - 1]), -1)))
    if needs.forward_passes:
        ctx = replace(ctx, networks=MadeUpNetworks(ctx.student, {}, needs.forward_passes == "student"))
    return learning(ctx)


def signals(needs: Needs, samples: int, draw: Callable[..., Tensor]) -> dict[str, Tensor]:
    """Inputs of the participants: zeros of the student's only, unless the loss runs networks."""
    if not needs.forward_passes:
        return {"student": torch.zeros(samples, 3, 8)}
    names = ["student", *(f"teacher{n}" for n in range(needs.teachers)), *(f"peer{n}" for n in range(needs.peers))]
    return {name: draw(samples, 3, 8) for name in names}


def _batch(samples: int, labelled: bool, target: TargetKind) -> Batch:
    labels = torch.arange(samples) * 2 % CLASSES
    table = [SampleKey(f"subject {n % 2}", f"action {label}", str(n)) for n, label in enumerate(labels.tolist())]
    if target != "classes":
        pattern = (torch.arange(samples)[:, None] + torch.arange(CLASSES)) % 3
        labels = (pattern == 0).double() if target == "labels" else pattern.double() - 1
    return Batch(torch.arange(samples), {}, labels if labelled else None, table)


def mapped(ctx: LossContext, change: Change) -> LossContext:
    """Return the context with `change(name, tensor)` applied to every tensor, e.g. ``teachers.t.features.fc``."""

    def outputs(name: str, each: Outputs) -> Outputs:
        features = {tap: change(f"{name}.features.{tap}", value) for tap, value in each.features.items()}
        ablated = outputs(f"{name}.ablated", each.ablated) if each.ablated else None
        of, layer = f"{name}.classifier", each.classifier
        classifier = layer and Classifier(change(f"{of}.weight", layer.weight), change(f"{of}.bias", layer.bias))
        return Outputs(change(f"{name}.logits", each.logits), features, ablated, classifier)

    batch, networks = ctx.batch, ctx.networks
    student = outputs("student", ctx.student)
    teachers = {name: outputs(f"teachers.{name}", each) for name, each in ctx.teachers.items()}
    peers = {name: outputs(f"peers.{name}", each) for name, each in ctx.peers.items()}
    if isinstance(networks, MadeUpNetworks):
        networks = replace(networks, student=student, others={**teachers, **peers})
    return LossContext(
        student,
        teachers,
        replace(
            batch,
            rows=change("rows", batch.rows),
            labels=None if batch.labels is None else change("labels", batch.labels),
            signals={name: change(f"signals.{name}", x) for name, x in batch.signals.items()},  # type: ignore[arg-type]
        ),
        peers,
        None if ctx.class_embeddings is None else change("class_embeddings", ctx.class_embeddings),
        ctx.progress,
        networks,
    )


def tensors(ctx: LossContext) -> dict[str, Tensor]:
    """Return all tensors of a context by name."""
    result: dict[str, Tensor] = {}
    mapped(ctx, lambda name, x: result.setdefault(name, x))
    return result


def learning(ctx: LossContext) -> LossContext:
    """Return a copy of the context in which only the student's tensors require a gradient."""
    return mapped(ctx, lambda name, x: x.detach().clone().requires_grad_(name.startswith("student.")))


def cast(ctx: LossContext, dtype: torch.dtype, device: torch.device | str | None = None) -> LossContext:
    """Return a copy of the context in another precision and, optionally, on another device."""
    return learning(mapped(ctx, lambda name, x: x.to(device, dtype if x.is_floating_point() else None)))


def example(ctx: LossContext) -> Example:
    """Return the example that a loss is set up with before training, as in a run."""
    student = replace(ctx.student.detach(), ablated=None)
    teachers = {name: replace(each, ablated=None) for name, each in ctx.teachers.items()}
    peers = {name: replace(each, ablated=None) for name, each in ctx.peers.items()}
    names, counts = tuple(f"class {number}" for number in range(CLASSES)), torch.arange(1, CLASSES + 1)
    counts, samples = counts.to(student.logits.device), len(ctx.batch.table)
    shapes = {name: tuple(x.shape[1:]) for name, x in ctx.batch.signals.items() if isinstance(x, Tensor)}
    shapes[""] = shapes["student"]
    return Example(student, teachers, CLASSES, names, counts, int(counts.sum()), peers, samples, shapes, tuple(ctx.batch.table))


def ready(make: Callable[[], DistillationLoss], ctx: LossContext) -> DistillationLoss:
    """Return a loss that is set up with `ctx` as in a run, on the same device."""
    loss = make()
    set_up(loss, example(ctx))
    loss.to(ctx.student.logits.device)
    with torch.no_grad():
        loss.begin_epoch(iter([mapped(ctx, lambda name, x: x.detach())]))
    return loss

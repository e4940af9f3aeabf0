"""Schedules and fusions with one fault each. Those called `Plain…` have none."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from faults import caught_by, sound
from torch import Tensor, nn

from kdcore import Batch, Graph, Outputs, Participant, Schedule, Stage, TeacherFusion, Training


@sound("schedule")
class PlainSchedule(Schedule):
    """Teachers, then students; each after those that it learns from."""

    def stages(self, graph: Graph) -> Iterator[Stage]:
        for group in graph.generations(graph.teachers):
            yield Stage("teachers", group, Training(epochs=2), 2)
        for group in graph.generations(graph.students):
            yield Stage("students", group, Training(epochs=3), 3)


@caught_by("schedule", "stages_valid")
class Stranger(PlainSchedule):
    """Trains somebody who is not in the graph."""

    def stages(self, graph: Graph) -> Iterator[Stage]:
        for stage in super().stages(graph):
            yield replace(stage, learners=(*stage.learners, "somebody"))


@caught_by("schedule", "stages_valid")
class Endless(PlainSchedule):
    """Does not end."""

    def stages(self, graph: Graph) -> Iterator[Stage]:
        while True:
            yield from super().stages(graph)


@caught_by("schedule", "stages_valid")
class HeldOut(PlainSchedule):
    """Trains students on the test split."""

    def stages(self, graph: Graph) -> Iterator[Stage]:
        for stage in super().stages(graph):
            yield replace(stage, split="test" if stage.name == "students" else "train")


@caught_by("schedule", "order_follows_graph")
class Backwards(PlainSchedule):
    """Trains students before those that they learn from."""

    def stages(self, graph: Graph) -> Iterator[Stage]:
        yield from reversed(list(super().stages(graph)))


@caught_by("schedule", "everyone_learns")
class Favourite(PlainSchedule):
    """Trains the first student of each generation alone."""

    def stages(self, graph: Graph) -> Iterator[Stage]:
        for stage in super().stages(graph):
            yield replace(stage, learners=stage.learners[:1] if stage.name == "students" else stage.learners)


@caught_by("schedule", "epochs_add_up")
class Short(PlainSchedule):
    """Ends before learning rates do."""

    def stages(self, graph: Graph) -> Iterator[Stage]:
        for stage in super().stages(graph):
            yield replace(stage, epochs=1)


@caught_by("schedule", "repeatable")
class Counting(PlainSchedule):
    """Remembers how often it was asked."""

    def __init__(self):
        self.asked = 0

    def stages(self, graph: Graph) -> Iterator[Stage]:
        self.asked += 1
        for stage in super().stages(graph):
            yield replace(stage, name=f"{stage.name} {self.asked}")


@sound("fusion")
class PlainFusion(TeacherFusion):
    """Adds a learnt offset to the logits."""

    def setup(self, teachers: Mapping[str, Participant], batch: Batch) -> None:
        self.offset = nn.Parameter(torch.randn(5))

    def forward(self, teachers: Mapping[str, Participant], batch: Batch) -> dict[str, Outputs]:
        outputs = super().forward(teachers, batch)
        return {name: replace(each, logits=self.changed(each.logits) + self.offset) for name, each in outputs.items()}

    def changed(self, logits: Tensor) -> Tensor:
        return logits


@caught_by("fusion", "answers")
class Tapless(PlainFusion):
    """Loses what the taps recorded."""

    def forward(self, teachers: Mapping[str, Participant], batch: Batch) -> dict[str, Outputs]:
        return {name: Outputs(each.logits) for name, each in super().forward(teachers, batch).items()}


@caught_by("fusion", "batch_of_one")
class Unbiased(PlainFusion):
    """Divides by one less than the number of samples."""

    batch_dependent = True

    def changed(self, logits: Tensor) -> Tensor:
        return logits / (len(logits) - 1)


@caught_by("fusion", "batch_dependence_declared")
class Centring(PlainFusion):
    """Subtracts the batch's mean, and does not say so."""

    def changed(self, logits: Tensor) -> Tensor:
        return logits - logits.mean(dim=0)


@caught_by("fusion", "all_parameters_learn")
class Unused(PlainFusion):
    """Has a parameter that it does not use."""

    def setup(self, teachers: Mapping[str, Participant], batch: Batch) -> None:
        super().setup(teachers, batch)
        self.spare = nn.Parameter(torch.zeros(3))


@caught_by("fusion", "state_registered")
class Keeping(PlainFusion):
    """Keeps the teachers as its own."""

    def setup(self, teachers: Mapping[str, Participant], batch: Batch) -> None:
        super().setup(teachers, batch)
        self.teachers = nn.ModuleDict(teachers)


@caught_by("fusion", "state_saved")
class Projecting(PlainFusion):
    """Draws a projection that is not saved."""

    projection: Tensor

    def setup(self, teachers: Mapping[str, Participant], batch: Batch) -> None:
        super().setup(teachers, batch)
        self.register_buffer("projection", torch.randn(5, 5), persistent=False)

    def changed(self, logits: Tensor) -> Tensor:
        return logits @ self.projection


@caught_by("fusion", "deterministic")
class Random(PlainFusion):
    """Takes random numbers from elsewhere than torch."""

    def setup(self, teachers: Mapping[str, Participant], batch: Batch) -> None:
        self.offset = nn.Parameter(torch.full((5,), random.SystemRandom().random()))


@caught_by("fusion", "inputs_unmodified")
class InPlace(PlainFusion):
    """Cuts off peaks where they are."""

    def forward(self, teachers: Mapping[str, Participant], batch: Batch) -> dict[str, Outputs]:
        for signal in batch.signals.values():
            signal.clamp_(-1, 1)  # type: ignore[union-attr]
        return super().forward(teachers, batch)

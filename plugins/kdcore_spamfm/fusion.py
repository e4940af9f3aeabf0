"""Runs teachers stage by stage, with a fusion module after chosen stages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated

import torch
from annotated_types import Ge, MinLen
from torch import Tensor, nn

from kdcore import Batch, Outputs, Participant, TeacherFusion
from kdcore_spamfm.spamfm import Spamfm, Variant

Steps = Iterator[tuple[str, Callable[[Tensor], Tensor]]]
Meeting = Callable[[int, list[Tensor]], list[Tensor]]


class SpamfmFusion(TeacherFusion):
    """SPAMFM: several teachers trained together, whose activations are fused after each stage named in `at`.

    Between these stages, the teachers are independent, so their other stages need not correspond.

    The similarity of samples enters every fused activation, so what a teacher says of a sample depends on its batch, in
    evaluation too: such outputs are not cached, and evaluation uses the recipe's batch size. A batch of one works; its
    similarity is 1.

    A tap that records exactly what a fused stage returns gives the **recalibrated** activation, Ã: it is what the
    classifier builds on and what the published code hands to its losses, so ``gsdm`` maps and the semantic terms read Ã
    there. A tap further inside a stage gives what its module returned.

    Source: Liu et al., Semantics-aware Adaptive Knowledge Distillation (TIP 2021, https://arxiv.org/abs/2009.00210), Section
    III-C and Eq. (18).

    Args:
        at: Names of stages that every teacher's encoder has, in the order in which they run.
        variant: As printed (``paper``), or as in the published code (``official``).
        reduction: Bottleneck of the official form; twice the number of teachers by default.
        projection: Let teachers with unequal channel counts meet through a learned linear map.
    """

    batch_dependent = True

    def __init__(
        self,
        *,
        at: Annotated[tuple[str, ...], MinLen(1)],
        variant: Variant = "paper",
        reduction: Annotated[int, Ge(1)] | None = None,
        projection: bool = False,
    ):
        super().__init__()
        self.at = tuple(at)
        self.variant: Variant = variant
        self.reduction = reduction
        self.projection = projection
        self.names: tuple[str, ...] = ()
        self.layers = nn.ModuleList()

    def setup(self, teachers: Mapping[str, Participant], batch: Batch) -> None:
        """Create one module per fused stage, for the channels found there.

        Raises:
            ValueError: If an encoder has no stages or not those in `at`, or if activations cannot meet.
        """
        for name, teacher in teachers.items():
            self._check_stages(name, teacher)
        seen: list[list[Tensor]] = []
        with torch.no_grad():
            self._run(teachers, batch, lambda index, activations: seen.append(activations) or activations)
        self.names = tuple(teachers)
        self.layers = nn.ModuleList(self._layer(stage, each) for stage, each in zip(self.at, seen, strict=True))

    def forward(self, teachers: Mapping[str, Participant], batch: Batch) -> dict[str, Outputs]:
        """Outputs of every teacher for `batch`.

        Raises:
            ValueError: If these are not the teachers that were set up.
        """
        if tuple(teachers) != self.names:
            raise ValueError(f"spamfm fuses the teachers {', '.join(self.names)} together, not {', '.join(teachers)}")
        fused: list[tuple[Tensor, Tensor]] = []

        def meet(index: int, activations: list[Tensor]) -> list[Tensor]:
            recalibrated = self.layers[index](activations)
            fused.extend(zip(activations, recalibrated, strict=True))
            return recalibrated

        outputs = self._run(teachers, batch, meet)
        return {name: _with_fused(each, fused) for name, each in outputs.items()}

    def _run(self, teachers: Mapping[str, Participant], batch: Batch, meet: Meeting) -> dict[str, Outputs]:
        steps = [iter(_stages(name, teacher).items()) for name, teacher in teachers.items()]
        values = [teacher.input(batch.signals[name]) for name, teacher in teachers.items()]
        for index, stage in enumerate(self.at):
            values = meet(index, [_advance(each, x, stage) for each, x in zip(steps, values, strict=True)])
        logits = [_advance(each, x) for each, x in zip(steps, values, strict=True)]
        return {name: teacher.collect(each) for (name, teacher), each in zip(teachers.items(), logits, strict=True)}

    def _check_stages(self, name: str, teacher: Participant) -> None:
        known = list(_stages(name, teacher))
        missing = [stage for stage in self.at if stage not in known]
        if missing:
            raise ValueError(f"spamfm: teacher {name!r} has no stage {', '.join(missing)}; it has {', '.join(known)}")
        if [stage for stage in known if stage in self.at] != list(self.at):
            raise ValueError(f"spamfm: `at` must follow the order in which teacher {name!r} runs: {', '.join(known)}")

    def _layer(self, stage: str, activations: Sequence[Tensor]) -> Spamfm:
        rows = dict(zip(self.names, map(len, activations), strict=True))
        if len(set(rows.values())) > 1:
            raise ValueError(f"spamfm: after stage {stage!r} the teachers have different numbers of rows per batch: {rows}")
        channels = {name: each.shape[1] for name, each in zip(self.names, activations, strict=True)}
        if len(set(channels.values())) > 1 and not self.projection:
            raise ValueError(
                f"spamfm: after stage {stage!r} the teachers have different numbers of channels, so sum and Hadamard product "
                f"cannot join them: {channels}; set projection: true to project them to a common width"
            )
        return Spamfm(tuple(channels.values()), self.variant, self.reduction, self.projection).to(activations[0].device)


def _stages(name: str, teacher: Participant) -> Mapping[str, Callable[[Tensor], Tensor]]:
    try:
        return teacher.encoder.stages()  # type: ignore[operator]
    except (AttributeError, NotImplementedError) as error:
        encoder = type(teacher.encoder).__name__
        raise ValueError(f"spamfm: the encoder of teacher {name!r}, {encoder}, cannot be run in stages") from error


def _advance(steps: Steps, x: Tensor, stage: str | None = None) -> Tensor:
    """`x` after the steps up to and including `stage`, or after all that are left."""
    for name, step in steps:
        x = step(x)
        if name == stage:
            break
    return x


def _with_fused(outputs: Outputs, fused: Sequence[tuple[Tensor, Tensor]]) -> Outputs:
    after = {id(before): recalibrated for before, recalibrated in fused}
    return replace(outputs, features={tap: after.get(id(value), value) for tap, value in outputs.features.items()})

"""One step of a stage: from the rows of a batch to the weighted sum of all terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from kdcore.contracts.batch import Batch, LossContext, Outputs
from kdcore.contracts.loss import DistillationLoss
from kdcore.contracts.progress import Progress
from kdcore.data.table import Table
from kdcore.errors import TrainingError
from kdcore.recipe.graph import StagePlan
from kdcore.training.gradient_watch import GradientWatch, TermValue
from kdcore.training.module_checks import not_a_scalar
from kdcore.training.participants import Distiller, TermSpec
from kdcore.training.randomness import RandomStream
from kdcore.training.teacher_cache import CachedOutputs, sees_random_input


@dataclass(frozen=True)
class StepTerm:
    """A term of one learner as a step computes it.

    Args:
        learner: Whose objective it belongs to.
        spec: The term.
        loss: Its loss.
    """

    learner: str
    spec: TermSpec
    loss: DistillationLoss


class StageStep(nn.Module):
    """The objective of one stage as a function of rows: what is compiled, distributed and differentiated.

    Args:
        distiller: Everybody.
        stage: Learners, and those that they learn from.
        table: Where rows are looked up.
        labelled: Whether learners may see labels.
        cached: Outputs of frozen teachers, by name; teachers without are run live.
        gather: Makes one rank's outputs those of the whole batch; None in a single process.
    """

    def __init__(
        self,
        distiller: Distiller,
        stage: StagePlan,
        table: Table,
        labelled: bool,
        cached: Mapping[str, CachedOutputs] | None = None,
        gather: Callable[[Tensor], Tensor] | None = None,
    ):
        super().__init__()
        owned = [module for name in distiller.owners(stage.learners) for module in distiller.owned(name)]
        self.learning = nn.ModuleList(owned)
        self._distiller = [distiller]  # in a list, so that only what learns counts as this module's own
        self.stage, self.table, self.labelled, self.gather = stage, table, labelled, gather
        self.cached = {**distiller.stored, **(cached or {})}
        self.fused = [name for name in stage.learners if name in distiller.fused]
        self.teaching = [name for name in stage.learners if name in distiller.teachers]
        self.studying = [name for name in stage.learners if name in distiller.students]
        self.live_teachers = [name for name in stage.sources if name not in self.cached]
        self.inputs = [*self.teaching, *self.studying, *self.live_teachers]
        self.ablation = {name: _ablation(distiller.losses(name)) for name in stage.learners}
        self.terms = [
            StepTerm(name, spec, distiller.losses(name)[term])
            for name in stage.learners
            for term, spec in distiller.specs.get(name, {}).items()
        ]
        self.names = [f"{term.learner}/{term.spec.id}" for term in self.terms]
        self.watch = GradientWatch()
        self.progress = {name: Progress() for name in stage.learners}  # no argument: precision wrappers take tensors only
        self._partly_labelled = labelled and bool((table.train_labels[table.training_rows(stage.split)] < 0).any())
        self._blank: dict[str, Outputs] | None = None
        self.teacher_randomness = RandomStream() if self._needs_stream() else None

    @property
    def distiller(self) -> Distiller:
        """Everybody."""
        return self._distiller[0]

    def called(self, index: int) -> str:
        """``: term … of …`` for the term at this place of `names`; empty for the sum of all, which follows them."""
        if index >= len(self.terms):
            return ""
        return f": {self.distiller.called(self.terms[index].learner, self.terms[index].spec.id)}"

    def forward(self, rows: Tensor, local: Tensor) -> tuple[Tensor, Tensor]:
        """The weighted sum of all terms, and each term's value, detached, in the order of `names`.

        Args:
            rows: (B,) rows of the whole batch.
            local: (b,) those of them that this process puts through networks.
        """
        total, values, watched = None, [], []
        for term, context in self.contexts(rows, local):
            value = term.loss(context) if len(context.batch) else context.student.logits.sum() * 0.0
            self.refuse(term, value, context.student.logits)
            weight = context.progress.at(term.spec.weight)
            values.append(value.detach())
            if self.watch.looking and len(context.batch):
                watched.append(TermValue(f"{term.learner}/{term.spec.id}", value, weight, context.student))
            if weight:
                total = value * weight if total is None else total + value * weight
        self.watch.look(watched)
        if total is None:  # every weight is 0 at this epoch
            total = sum((parameter.sum() for parameter in self.parameters()), values[0]) * 0.0
        return total, torch.stack(values)

    def refuse(self, term: StepTerm, value: object, like: Tensor) -> None:
        """Raise a TrainingError if a loss returned anything but a scalar tensor where `like` is."""
        if wrong := not_a_scalar(value, like):
            raise TrainingError(f"{self.distiller.called(term.learner, term.spec.id)}: {wrong}")

    def contexts(self, rows: Tensor, local: Tensor) -> list[tuple[StepTerm, LossContext]]:
        """The context of each term for a batch; empty for a term that reads labels where no sample has one."""
        distiller = self.distiller
        batch = self.table.batch(local, self.inputs, self.labelled)
        whole = (
            replace(batch, rows=rows, labels=self.table.train_labels[rows] if self.labelled else None) if self.gather else batch
        )
        sources = self._sources(rows, batch)
        with self.teacher_randomness or nullcontext():
            outputs = self._gathered(distiller.run_teachers(self.fused, batch))
            outputs |= self._outputs([name for name in self.teaching if name not in outputs], batch)
        outputs |= self._outputs(self.studying, batch)
        read = {name: each.detach() for name, each in outputs.items()} if len(outputs) > 1 else {}
        read |= sources
        labelled = (whole.labels >= 0).nonzero().flatten() if self._partly_labelled and whole.labels is not None else None
        found = []
        for term in self.terms:
            context = LossContext(
                outputs[term.learner],
                {name: read[name] for name in term.spec.teachers},
                whole,
                {name: read[name] for name in term.spec.peers},
                distiller.class_embeddings,
                self.progress[term.learner],
            )
            if labelled is not None and term.loss.needs.labels:
                context = context.select(labelled)
            found.append((term, context))
        return found

    def _outputs(self, names: list[str], batch: Batch) -> dict[str, Outputs]:
        return self._gathered({name: self.distiller.forward(name, batch, self.ablation[name]) for name in names})

    def _sources(self, rows: Tensor, batch: Batch) -> dict[str, Outputs]:
        """Outputs of those that do not learn in this stage."""
        names = self.stage.sources
        found = {name: self.cached[name].at(rows) for name in names if name in self.cached}
        if self.live_teachers:
            with torch.no_grad(), self.teacher_randomness or nullcontext():
                found |= self._gathered(self.distiller.run_teachers(self.live_teachers, batch))
        if any(self.ablation.values()) and found:
            networks = [name for name in names if name not in self.distiller.stored]
            if self._blank is None or set(networks) & set(self.distiller.averages):
                self._blank = self.distiller.ablated_teachers(networks, self.table.batch(rows[:1], networks))
            found = {name: replace(each, ablated=self._blank.get(name)) for name, each in found.items()}
        return found

    def _needs_stream(self) -> bool:
        """True if teachers would draw random numbers between those of students, which the baseline trains without them."""
        random = [name for name in self.live_teachers if sees_random_input(self.distiller.participant(name))]
        return bool(self.studying) and bool(self.teaching or random)

    def _gathered(self, outputs: dict[str, Outputs]) -> dict[str, Outputs]:
        gather = self.gather
        if gather is None:
            return outputs
        return {name: _gather(each, gather, self.ablation.get(name) == "mixed") for name, each in outputs.items()}


def _gather(outputs: Outputs, gather: Callable[[Tensor], Tensor], mixed: bool) -> Outputs:
    """One rank's outputs made the whole batch's; a single ablated output is every rank's already."""
    ablated = _gather(outputs.ablated, gather, False) if outputs.ablated is not None and mixed else outputs.ablated
    return Outputs(gather(outputs.logits), {tap: gather(x) for tap, x in outputs.features.items()}, ablated)


def _ablation(losses: Mapping[str, DistillationLoss]) -> str | None:
    wanted = {loss.needs.ablated for loss in losses.values()} - {None}
    return "mixed" if "mixed" in wanted else "single" if wanted else None

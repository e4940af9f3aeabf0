"""One training step: from the rows of a batch to the weighted sum of all loss terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from kdcore.contracts.batch import Batch, LossContext, MixedBatch, Outputs
from kdcore.contracts.loss import DistillationLoss
from kdcore.contracts.progress import Progress
from kdcore.contracts.target import known
from kdcore.data.table import Table
from kdcore.errors import TrainingError
from kdcore.recipe.graph import StagePlan
from kdcore.training.distributed import gather_outputs
from kdcore.training.epoch_means import EpochMeans
from kdcore.training.forward_passes import passes_of, run_by, with_networks
from kdcore.training.gradient_watch import GradientWatch, TermValue
from kdcore.training.mixing import Mix, draw, is_mixed, label_parts
from kdcore.training.module_checks import not_a_scalar
from kdcore.training.participants import Distiller, TermSpec
from kdcore.training.phases import BATCHES, CHECKS, FORWARD, LOSSES, OWN, TEACHERS, TEACHERS_FORWARD, Phases
from kdcore.training.randomness import RandomStream, preserved_torch_state
from kdcore.training.sharding import sum_of_shards
from kdcore.training.teacher_cache import CachedOutputs, is_random

_NO_CONTEXT = nullcontext()


@dataclass(frozen=True)
class StepTerm:
    """A loss term of one learner.

    Args:
        learner: Name of the learner whose objective has the term.
        spec: The term's name, weight and participants.
        loss: The loss module.
    """

    learner: str
    spec: TermSpec
    loss: DistillationLoss


class StageStep(nn.Module):
    """The objective of one stage as a module: maps the rows of a batch to the total loss. DDP wraps this module.

    Args:
        distiller: All participants of the arm, with their losses.
        stage: The learners of the stage and their sources.
        table: Prepared samples, indexed by row.
        labelled: Whether losses may read labels.
        cached: Teacher → its cached outputs; other teachers run in every step.
        gather: Gathers a tensor from all ranks along its batch axis, differentiably; None in a single process.
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
        self.learning = nn.ModuleList(distiller.trained_modules(stage.learners))
        self._distiller = [distiller]  # in a list, which nn.Module does not register: DDP must see no frozen teachers
        self.stage, self.table, self.labelled, self.gather = stage, table, labelled, gather
        self.cached = {**distiller.stored, **(cached or {})}
        self.fused = [name for name in stage.learners if name in distiller.fused]
        self.teacher_learners = [name for name in stage.learners if name in distiller.teachers]
        self.student_learners = [name for name in stage.learners if name in distiller.students]
        self.live_teachers = [name for name in stage.sources if name not in self.cached]
        self.ablation = {name: distiller.ablation(name) for name in stage.learners}
        self._ablated = any(self.ablation.values())
        self.terms = [
            StepTerm(name, spec, distiller.losses(name)[term])
            for name in stage.learners
            for term, spec in distiller.specs.get(name, {}).items()
        ]
        rerun = [name for term in self.terms for name in run_by(distiller, term.learner, term.spec)]
        self.inputs = list(dict.fromkeys([*self.teacher_learners, *self.student_learners, *self.live_teachers, *rerun]))
        self._classes = [distiller.known_classes(term.learner, term.spec) for term in self.terms]
        self.names = [f"{term.learner}/{term.spec.id}" for term in self.terms]
        self.watch, self.phases = GradientWatch(), Phases()
        self.logged = EpochMeans()  # of learner/term/name
        self.progress = {name: Progress() for name in stage.learners}  # not an argument, which Fabric's wrapper would convert
        self._partly_labelled = labelled and table.is_partly_labelled(stage.split)
        self.balanced: dict[str, list[Tensor]] = {
            name: [] for name in stage.learners if stage.training[name].gradients != "sum"
        }  # learner → weighted term values of the last batch, for learners that combine gradients by another rule than the sum
        self.mix = table.mix if is_mixed(table.mix, stage, distiller) else None
        self.mix_seed: int | None = None  # seed of the next batch's mixup or cutmix
        self.present = self._present_rows(table)
        self._ablated_sources: dict[str, Outputs] | None = None
        self._mixing: Mix | None = None
        self.teacher_randomness = RandomStream() if self._needs_stream() else None
        # Random numbers drawn by a loss must not change those of the networks, because the baseline lacks some of the losses.
        self.streams = [RandomStream(f"loss {name}", torch.initial_seed()) for name in self.names]

    @property
    def distiller(self) -> Distiller:
        """All participants of the arm."""
        return self._distiller[0]

    def describe_column(self, index: int) -> str:
        """``: term … of …`` for the column `index` of the recorded values; empty for the last column, the total."""
        if index >= len(self.terms):
            return ""
        return f": {self.distiller.describe_term(self.terms[index].learner, self.terms[index].spec.id)}"

    @property
    def all_streams(self) -> list[RandomStream]:
        """The random streams of teachers and losses, whose states belong to a checkpoint."""
        return [*([self.teacher_randomness] if self.teacher_randomness else []), *self.streams]

    def forward(self, rows: Tensor, local: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Compute the weighted sum of all terms, and the detached value of each term in the order of `names`.

        Args:
            rows: (B,) int64, rows of the global batch.
            local: (b,) int64, the rows that this process runs through the networks; `rows` in a single process.
        """
        total, values, watched = None, [], []
        for held in self.balanced.values():
            held.clear()
        contexts = self.contexts(rows, local)
        for name, value, (term, context) in zip(self.names, self._values(contexts), contexts, strict=True):
            weight = context.progress.at(term.spec.weight)
            values.append(value.detach())
            self.logged.add(name, context.logged)
            if self.watch.checking and len(context.batch):
                watched.append(TermValue(name, value, weight, passes_of(context)))
            if weight:
                weighted = value if weight == 1 else value * weight
                total = weighted if total is None else total + weighted
                if term.learner in self.balanced and not self._is_empty(term, context):
                    self.balanced[term.learner].append(weighted)
        if watched:
            self.phases.mark(CHECKS)
            self.watch.check(watched)
            self.phases.mark(OWN)
        if total is None:  # every weight is 0 in this epoch, but backward, and DDP, still need a graph to all parameters
            total = sum_of_shards(self.parameters(), values[0]) * 0.0
        return total, values

    def _values(self, contexts: Sequence[tuple[StepTerm, LossContext]]) -> list[Tensor]:
        """The value of each term, computed with the random numbers of its stream."""
        self.phases.mark(LOSSES)
        values = []
        with preserved_torch_state():
            for stream, (term, context) in zip(self.streams, contexts, strict=True):
                stream.resume()
                values.append(self.value(term, context))
                stream.pause()
        self.phases.mark(OWN)
        return values

    def value(self, term: StepTerm, context: LossContext) -> Tensor:
        """The scalar value of a term: 0 for an empty batch; with mixed labels, the mean over both sets, weighted by share.

        Raises:
            TrainingError: If the loss returns anything but a scalar.
        """
        if self._mixing is None:
            value = term.loss(context) if len(context.batch) else context.student.logits.sum() * 0.0
            self._refuse_non_scalar(term, value, context.student.logits)
            return value
        parts = list(label_parts(self._mixing, term.loss.needs, context))
        values = [term.loss(part) if len(part.batch) else part.student.logits.sum() * 0.0 for _, part in parts]
        for value in values:
            self._refuse_non_scalar(term, value, context.student.logits)
        if len(parts) == 1:
            return values[0]
        return torch.stack([share * value for (share, _), value in zip(parts, values, strict=True)]).sum()

    def _is_empty(self, term: StepTerm, context: LossContext) -> bool:
        """True if a batch has no sample for a term. MGDA would take its gradient of 0 for a stationary point."""
        labels = context.batch.labels if self._mixing is not None and term.loss.needs.labelled else None
        return not len(context.batch) or (labels is not None and not bool(known(labels).any()))

    def _refuse_non_scalar(self, term: StepTerm, value: object, like: Tensor) -> None:
        """Raise a TrainingError if a loss returned anything but a scalar tensor on the device of `like`."""
        if wrong := not_a_scalar(value, like):
            raise TrainingError(f"{self.distiller.describe_term(term.learner, term.spec.id)}: {wrong}")

    def contexts(self, rows: Tensor, local: Tensor) -> list[tuple[StepTerm, LossContext]]:
        """Run the networks, and build the context of each term. Terms that read labels get only the labelled samples."""
        distiller, mark = self.distiller, self.phases.mark
        if self.present:
            return self._contexts_where_present(rows)
        mark(BATCHES)
        batch = self.table.batch(local, self.inputs, self.labelled)
        mark(OWN)
        if self.mix:
            self._mixing = draw(self.mix, len(rows), self.mix_seed, rows.device)
        mix, whole = self._mixing, self._global_batch(rows, batch)
        with distiller.mixed(mix) if mix else _NO_CONTEXT:
            mark(TEACHERS)
            sources = self._sources(rows, batch)
            outputs: dict[str, Outputs] = {}
            if self.teacher_learners:
                mark(TEACHERS_FORWARD)
                with self.teacher_randomness or _NO_CONTEXT:
                    outputs = self._gathered(distiller.run_teachers(self.fused, batch))
                    outputs |= self._outputs([name for name in self.teacher_learners if name not in outputs], batch)
            if self.student_learners:
                mark(FORWARD)
            outputs |= self._outputs(self.student_learners, batch)
            mark(OWN)
        if mix:
            whole = MixedBatch(len(whole), {}, whole.labels, whole.weights)
        read = ({name: each.detach() for name, each in outputs.items()} if len(outputs) > 1 else {}) | sources
        labelled = known(whole.labels).nonzero().flatten() if self._partly_labelled and whole.labels is not None else None
        some = labelled is not None and len(labelled) < len(whole)
        # A loss that does not declare that it reads labels gets none if other batches lack labels for some samples.
        undeclared = whole.with_labels(None) if mix or self._partly_labelled else whole
        found, embeddings = [], distiller.class_embeddings
        for term, classes in zip(self.terms, self._classes, strict=True):
            context = LossContext(
                outputs[term.learner],
                {name: read[name] for name in term.spec.teachers},
                self._batch_for(term, whole, undeclared),
                {name: read[name] for name in term.spec.peers},
                embeddings,
                self.progress[term.learner],
            )
            context = with_networks(distiller, term.learner, term.spec, term.loss.needs, context)
            if labelled is not None and some and term.loss.needs.labelled and not mix:
                context = context.select(labelled)
            if classes is not None:
                context = _of_classes(context, classes, term.loss.needs.labelled and not mix)
            found.append((term, context))
        return found

    def _batch_for(self, term: StepTerm, batch: Batch, undeclared: Batch) -> Batch:
        """The batch with the labels that a term may read: `undeclared` if its loss declares none."""
        if not term.loss.needs.labels:
            return undeclared
        if batch.labels is None and not term.loss.needs.labelled:
            return batch.with_labels(self.table.unknown_labels(len(batch)))
        return batch

    def _global_batch(self, rows: Tensor, batch: Batch) -> Batch:
        """The global batch of all processes, without inputs; `batch` itself in a single process."""
        if not self.gather:
            return batch
        weights = None if self.table.weights is None else self.table.weights[rows]
        labels = self.table.train_labels[rows] if self.labelled else None
        return replace(batch, rows=rows, signals={}, labels=labels, weights=weights)

    def _present_rows(self, table: Table) -> dict[str, Tensor]:
        """Participant → (N,) bool mask of the rows that have its signals. Participants that have all rows are left out."""
        found = {name: table.present[name] for name in self.inputs if name in table.present}
        for name in self.stage.sources:
            if name in table.present:
                found[name] = table.present[name]
            elif name in self.distiller.stored:
                rows = table.training_rows(self.stage.split)
                if not bool(self.distiller.stored[name].covers(rows).all()):
                    found[name] = self.distiller.stored[name].covers(torch.arange(len(table.keys), device=rows.device))
        return found

    def _contexts_where_present(self, rows: Tensor) -> list[tuple[StepTerm, LossContext]]:
        """Like `contexts`, for missing modalities.

        Each network runs on the rows that it has, and each term on the rows that all of its networks have.
        A learning teacher with fewer than two rows in a batch is skipped: batch normalisation cannot train on one sample.
        """
        self.phases.mark(BATCHES)
        distiller, batch = self.distiller, self.table.batch(rows, self.inputs, self.labelled, stand_ins=True)
        outputs, places = self._outputs_where_present(rows, batch)
        self.phases.mark(OWN)
        labelled = known(batch.labels) if self._partly_labelled and batch.labels is not None else None
        found = []
        for term, classes in zip(self.terms, self._classes, strict=True):
            names = (term.learner, *term.spec.teachers, *term.spec.peers)
            chosen = torch.ones_like(rows, dtype=torch.bool)
            for name in names:
                if name in places:
                    chosen = chosen & (places[name] >= 0)
            if labelled is not None and term.loss.needs.labelled:
                chosen = chosen & labelled
            index = chosen.nonzero().flatten()

            def of(name: str, index: Tensor = index) -> Outputs:
                return outputs[name].select(places[name][index] if name in places else index)

            inputs = {name: signal for name, signal in batch.signals.items() if name in names}
            undeclared = batch if labelled is None else batch.with_labels(None)
            context = LossContext(
                of(term.learner),
                {name: of(name).detach() for name in term.spec.teachers if name in outputs},
                replace(self._batch_for(term, batch, undeclared), signals=inputs).select(index),
                {name: of(name).detach() for name in term.spec.peers if name in outputs},
                distiller.class_embeddings,
                self.progress[term.learner],
            )
            context = with_networks(distiller, term.learner, term.spec, term.loss.needs, context)
            found.append((term, context if classes is None else _of_classes(context, classes, term.loss.needs.labelled)))
        return found

    def _outputs_where_present(self, rows: Tensor, batch: Batch) -> tuple[dict[str, Outputs], dict[str, Tensor]]:
        """Outputs of each participant for the rows it has, and participant → (B,) index of each row in them, -1 if missing."""
        distiller, outputs = self.distiller, dict[str, Outputs]()
        places: dict[str, Tensor] = {}
        self.phases.mark(TEACHERS)
        for group in distiller.independent_groups([*self.live_teachers]):
            with torch.no_grad(), self.teacher_randomness or _NO_CONTEXT:
                outputs |= self._run_present(
                    group, rows, batch, places, 1, lambda part, group=group: distiller.run_teachers(group, part)
                )
        for name in self.stage.sources:
            if name in self.cached:
                outputs |= self._run_present(
                    [name], rows, batch, places, 1, lambda part, name=name: {name: self.cached[name].at(part.rows)}
                )
        outputs = self._with_ablated(outputs, rows)
        self.phases.mark(TEACHERS_FORWARD)
        for group in distiller.independent_groups(self.teacher_learners):
            with self.teacher_randomness or _NO_CONTEXT:
                run = distiller.run_teachers if group == self.fused else self._outputs
                outputs |= self._run_present(group, rows, batch, places, 2, lambda part, run=run, group=group: run(group, part))
        self.phases.mark(FORWARD)
        return outputs | self._outputs(self.student_learners, batch), places

    def _run_present(
        self,
        group: list[str],
        rows: Tensor,
        batch: Batch,
        places: dict[str, Tensor],
        least: int,
        run: Callable[[Batch], Mapping[str, Outputs]],
    ) -> Mapping[str, Outputs]:
        """Run a group on the rows that all its members have, and note their indices in `places`; empty below `least` rows."""
        masks = [self.present[name][rows] for name in group if name in self.present]
        if not masks or bool((mask := torch.stack(masks).all(0)).all()):
            return run(batch)
        index = mask.nonzero().flatten()
        if len(index) < least:
            places |= dict.fromkeys(group, torch.full_like(rows, -1))
            return {name: self._empty_outputs(name) for name in group if name in self.stage.learners}
        place = torch.full_like(rows, -1)
        place[index] = torch.arange(len(index), device=rows.device)
        places |= dict.fromkeys(group, place)
        signals = {name: signal for name, signal in batch.signals.items() if name in group}
        return run(replace(batch, signals=signals).select(index))

    def _empty_outputs(self, name: str) -> Outputs:
        """Empty outputs of a learner, connected to its parameters: backward then gives them zero gradients instead of None."""
        zero = torch.zeros((), device=self.table.labels.device)
        for parameter in self.distiller.participant(name).parameters():
            zero = zero + parameter.sum() if parameter.requires_grad else zero
        return Outputs((zero * 0.0).expand(0, len(self.table.classes)))

    def _outputs(self, names: list[str], batch: Batch) -> dict[str, Outputs]:
        return self._gathered({name: self.distiller.forward(name, batch, self.ablation[name]) for name in names})

    def _sources(self, rows: Tensor, batch: Batch) -> dict[str, Outputs]:
        """Outputs of the participants that do not train in this stage, without a graph."""
        found = {name: self.cached[name].at(rows) for name in self.stage.sources if name in self.cached}
        if self.live_teachers:
            with torch.no_grad(), self.teacher_randomness or _NO_CONTEXT:
                found |= self._gathered(self.distiller.run_teachers(self.live_teachers, batch))
        return self._with_ablated(found, rows)

    def _with_ablated(self, found: dict[str, Outputs], rows: Tensor) -> dict[str, Outputs]:
        """Add the outputs for an all-zero input to those of the sources, if a loss reads them."""
        if self._ablated and found:
            names = self.stage.sources
            networks = [name for name in names if name not in self.distiller.stored]
            if self._ablated_sources is None or set(networks) & set(self.distiller.averages):
                shape = self.table.batch(rows[:1], networks, stand_ins=True)
                self._ablated_sources = self.distiller.ablated_teachers(networks, shape)
            found = {name: replace(each, ablated=self._ablated_sources.get(name)) for name, each in found.items()}
        return found

    def _needs_stream(self) -> bool:
        """True if teachers draw random numbers in students' steps; a stream of their own keeps both arms' draws the same."""
        random = [name for name in self.live_teachers if is_random(self.distiller.participant(name))]
        return bool(self.student_learners) and bool(self.teacher_learners or random)

    def _gathered(self, outputs: dict[str, Outputs]) -> dict[str, Outputs]:
        if (gather := self.gather) is None:
            return outputs
        return {name: gather_outputs(each, gather, self.ablation.get(name) == "mixed") for name, each in outputs.items()}


def _of_classes(context: LossContext, classes: Tensor, reads_labels: bool) -> LossContext:
    """Restrict a context to `classes`; if the loss reads labels, drop the samples of other classes."""
    context = context.of_classes(classes)
    if reads_labels and context.batch.labels is not None:
        context = context.select(known(context.labels).nonzero().flatten())
    return context

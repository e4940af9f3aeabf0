"""One training step: from the rows of a batch to the weighted sum of all loss terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from kdcore.contracts.batch import Batch, LossContext, MixedBatch
from kdcore.contracts.loss import DistillationLoss
from kdcore.contracts.progress import Progress
from kdcore.contracts.target import known
from kdcore.data.table import Table
from kdcore.errors import TrainingError
from kdcore.recipe.graph import StagePlan
from kdcore.training.epoch_means import NO_SAMPLES, EpochMeans
from kdcore.training.forward_passes import passes_of, run_by, with_networks
from kdcore.training.gradient_watch import GradientWatch, TermValue
from kdcore.training.mixing import Mix, draw, is_mixed, label_parts
from kdcore.training.module_checks import not_a_scalar
from kdcore.training.participants import Distiller, TermSpec
from kdcore.training.phases import BATCHES, CHECKS, LOSSES, OWN, Phases
from kdcore.training.randomness import GlobalGenerators, RandomStream
from kdcore.training.sharding import sum_of_shards
from kdcore.training.stage_networks import BatchOutputs, StageNetworks
from kdcore.training.teacher_cache import CachedOutputs


@dataclass(frozen=True)
class StepTerm:
    """A loss term of one learner.

    Args:
        learner: Name of the learner whose objective has the term.
        spec: The term's name, weight and participants.
        loss: The loss module.
        classes: (k,) int64, the classes that the term is restricted to, because its networks know no others; None for all.
        stream: Random numbers of the loss. They must not change those of the networks, because the baseline lacks some losses.
    """

    learner: str
    spec: TermSpec
    loss: DistillationLoss
    classes: Tensor | None
    stream: RandomStream


class StageStep(nn.Module):
    """The objective of one stage as a module: maps the rows of a batch to the total loss. DDP wraps this module.

    Args:
        distiller: All participants of the arm, with their losses.
        stage: The learners of the stage and their sources.
        table: Prepared samples, indexed by row.
        labelled: Whether losses may read labels.
        cached: Source → its cached outputs; other sources run in every step.
        gather: Gathers a tensor from all ranks along its batch axis, differentiably; None in a single process.
        watch: Checks the gradients of the terms at a few steps; a new one by default.
        phases: Timer of the training phases; a new one by default.

    Attributes:
        networks: Runs the participants; not a module, since DDP must see no frozen teachers.
        names: ``learner/term`` of all terms, in order.
        inputs: The participants whose signals a step reads.
        progress: Learner → its position in training, which losses read.
        logged: Means of the values that losses log, by ``learner/term/name``.
        balanced: Learner that combines the gradients of its terms by another rule than the sum → its weighted terms in the
            last batch.
        mix: Options of mixup or cutmix; None for neither.
        mix_seed: Seed of the next batch's mixup or cutmix.
    """

    def __init__(
        self,
        distiller: Distiller,
        stage: StagePlan,
        table: Table,
        labelled: bool,
        cached: Mapping[str, CachedOutputs] | None = None,
        gather: Callable[[Tensor], Tensor] | None = None,
        watch: GradientWatch | None = None,
        phases: Phases | None = None,
    ):
        super().__init__()
        self.learning = nn.ModuleList(distiller.trained_modules(stage.learners))
        self.stage, self.table, self.labelled, self.gather = stage, table, labelled, gather
        self.watch, self.phases = watch or GradientWatch(), phases or Phases()
        self.networks = StageNetworks(distiller, stage, table, cached or {}, gather, self.phases)
        self.terms = [self._term(name, spec) for name in stage.learners for spec in distiller.specs.get(name, {}).values()]
        self.names = [f"{term.learner}/{term.spec.id}" for term in self.terms]
        run_by_losses = [name for term in self.terms for name in run_by(distiller, term.learner, term.spec)]
        self.inputs = list(dict.fromkeys([*stage.learners, *self.networks.live, *run_by_losses]))
        self.progress = {name: Progress() for name in stage.learners}  # not an argument, which Fabric's wrapper would convert
        self.logged = EpochMeans()
        rules = {name: stage.training[name].gradients for name in stage.learners}
        self.balanced: dict[str, list[Tensor]] = {name: [] for name, rule in rules.items() if rule != "sum"}
        self.mix = table.mix if is_mixed(table.mix, stage, distiller) else None
        self.mix_seed: int | None = None
        self._mixing: Mix | None = None
        self._generators = GlobalGenerators(table.labels.device)
        self._partly_labelled = labelled and table.is_partly_labelled(stage.split)
        sources = {name for term in self.terms for name in (*term.spec.teachers, *term.spec.peers)}
        self._learning_sources = [name for name in stage.learners if name in sources]

    def _term(self, learner: str, spec: TermSpec) -> StepTerm:
        stream = RandomStream(f"loss {learner}/{spec.id}", self.table.labels.device, torch.initial_seed())
        classes = self.distiller.known_classes(learner, spec)
        return StepTerm(learner, spec, self.distiller.losses(learner)[spec.id], classes, stream)

    @property
    def distiller(self) -> Distiller:
        """All participants of the arm."""
        return self.networks.distiller

    def describe_column(self, index: int) -> str:
        """``: term … of …`` for the column `index` of the recorded values; empty for the last column, the total."""
        return f": {self._describe(self.terms[index])}" if index < len(self.terms) else ""

    def _describe(self, term: StepTerm) -> str:
        return self.distiller.describe_term(term.learner, term.spec.id)

    @property
    def streams(self) -> dict[str, RandomStream]:
        """Name → random stream of the teachers or of a loss, whose states belong to a checkpoint."""
        streams = [term.stream for term in self.terms] + ([self.networks.stream] if self.networks.stream else [])
        return {each.name: each for each in streams}

    def restart_streams(self, seed: int, states: Mapping[str, list[Tensor] | None]) -> None:
        """Restart the random streams for an epoch, or continue those in `states`.

        Args:
            seed: Seed of the losses' streams: equal in all processes, which must compute equal losses.
            states: Name → state.
        """
        for term in self.terms:
            term.stream.seed = seed
        for name, stream in self.streams.items():
            stream.state = states.get(name)

    def forward(self, rows: Tensor, local: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Compute the weighted sum of all terms, and the detached value of each term in the order of `names`.

        The value of a term that has no sample in the batch is `NO_SAMPLES`, which `term_means` leaves out.

        Args:
            rows: (B,) int64, rows of the global batch.
            local: (b,) int64, the rows that this process runs through the networks; `rows` in a single process.
        """
        for terms in self.balanced.values():
            terms.clear()
        contexts = self.contexts(rows, local)
        self.phases.mark(LOSSES)
        values = []
        with self._generators.preserved():
            for term, context in contexts:
                term.stream.resume()
                values.append(self.value(term, context))
                term.stream.pause()
        self.phases.mark(OWN)
        if self.watch.checking:
            self._check_gradients(contexts, values)
        total = None
        for name, value, (term, context) in zip(self.names, values, contexts, strict=True):
            self.logged.add(name, context.logged)
            weight = context.progress.at(term.spec.weight)
            if not weight:
                continue
            weighted = value if weight == 1 else value * weight
            total = weighted if total is None else total + weighted
            if term.learner in self.balanced and not self._is_empty(term, context):
                self.balanced[term.learner].append(weighted)
        if total is None:  # every weight is 0 in this epoch, but backward, and DDP, still need a graph to all parameters
            total = sum_of_shards(self.parameters(), values[0].detach()) * 0.0
        return total, [
            torch.full_like(value, NO_SAMPLES, dtype=torch.float32) if self._is_empty(term, context) else value.detach()
            for value, (term, context) in zip(values, contexts, strict=True)
        ]

    def _check_gradients(self, contexts: list[tuple[StepTerm, LossContext]], values: list[Tensor]) -> None:
        self.phases.mark(CHECKS)
        self.watch.check(
            [
                TermValue(name, value, context.progress.at(term.spec.weight), passes_of(context))
                for name, value, (term, context) in zip(self.names, values, contexts, strict=True)
                if len(context.batch)
            ]
        )
        self.phases.mark(OWN)

    def value(self, term: StepTerm, context: LossContext) -> Tensor:
        """The scalar value of a term: 0 for an empty batch; with mixed labels, the mean over both sets, weighted by share.

        Raises:
            TrainingError: If the loss returns anything but a scalar.
        """
        parts = label_parts(self._mixing, term.loss.needs, context)
        values = []
        for _, part in parts:
            logits = part.student.logits
            value = term.loss(part) if logits.shape[0] else logits.sum() * 0.0
            if wrong := not_a_scalar(value, logits):
                raise TrainingError(f"{self._describe(term)}: {wrong}")
            values.append(value)
        if len(values) == 1:
            return values[0]
        return torch.stack([share * value for (share, _), value in zip(parts, values, strict=True)]).sum()

    def _is_empty(self, term: StepTerm, context: LossContext) -> bool:
        """True if a batch has no sample for a term. MGDA would take its gradient of 0 for a stationary point."""
        may_lack_labels = self._partly_labelled or term.classes is not None  # samples of other classes count as unlabelled
        mixed = self._mixing is not None and may_lack_labels and term.loss.needs.labelled
        labels = context.batch.labels if mixed else None
        return not len(context.batch) or (labels is not None and not bool(known(labels).any()))

    def contexts(self, rows: Tensor, local: Tensor) -> list[tuple[StepTerm, LossContext]]:
        """Run the networks, and build the context of each term; the arguments are those of `forward`.

        A term gets the samples that all of its participants have; if its loss reads labels, only labelled ones.
        """
        self.phases.mark(BATCHES)
        batch = self.table.batch(local, self.inputs, self.labelled, stand_ins=bool(self.networks.present))
        self.phases.mark(OWN)
        if self.mix:
            self._mixing = draw(self.mix, len(rows), self.mix_seed, rows.device)
        with self.distiller.mixed(self._mixing) if self._mixing else nullcontext():
            results = self.networks.run(rows, batch)
        self.phases.mark(OWN)
        batch = self._loss_batch(rows, batch)
        labelled = known(batch.labels) if self._partly_labelled and batch.labels is not None and not self._mixing else None
        detached = {name: results.outputs[name].detach() for name in self._learning_sources}
        sources = replace(results, outputs=results.outputs | detached) if detached else results
        return [(term, self._context(term, results, sources, batch, labelled)) for term in self.terms]

    def _loss_batch(self, rows: Tensor, batch: Batch) -> Batch:
        """The batch that losses get: `batch` itself, unless it is mixed or the share of one of several processes."""
        if self.gather:
            weights = None if self.table.weights is None else self.table.weights[rows]
            labels = self.table.train_labels[rows] if self.labelled else None
            batch = replace(batch, rows=rows, signals={}, labels=labels, weights=weights)
        return MixedBatch(len(batch), {}, batch.labels, batch.weights) if self._mixing else batch

    def _context(
        self, term: StepTerm, results: BatchOutputs, sources: BatchOutputs, batch: Batch, labelled: Tensor | None
    ) -> LossContext:
        """The input of a term's loss.

        Args:
            term: The term.
            results: Outputs of all participants.
            sources: The same outputs without gradients.
            batch: The whole batch.
            labelled: (B,) bool mask of the labelled samples, if the loss may get only those.
        """
        spec, needs = term.spec, term.loss.needs
        names = (term.learner, *spec.teachers, *spec.peers)
        index = results.common_rows(names, labelled if needs.labelled else None)
        batch = self._with_permitted_labels(term, batch)
        if self.networks.present:  # signals of other participants may be placeholders
            batch = replace(batch, signals={name: batch.signals[name] for name in names if name in batch.signals})
        context = LossContext(
            results.select([term.learner], index)[term.learner],
            sources.select(spec.teachers, index),
            batch if index is None else batch.select(index),
            sources.select(spec.peers, index),
            self.distiller.class_embeddings,
            self.progress[term.learner],
        )
        context = with_networks(self.distiller, term.learner, spec, needs, context)
        if term.classes is None:
            return context
        context = context.of_classes(term.classes)
        if needs.labelled and not self._mixing and context.batch.labels is not None:
            context = context.select(known(context.labels).nonzero().flatten())  # samples of other classes are now unlabelled
        return context

    def _with_permitted_labels(self, term: StepTerm, batch: Batch) -> Batch:
        """The batch with the labels that a term may read."""
        needs = term.loss.needs
        if not needs.labels and (self._mixing or self._partly_labelled):
            return batch.with_labels(None)  # or an undeclared reader would get labels only in some batches
        if needs.labels == "optional" and batch.labels is None:
            return batch.with_labels(self.table.unknown_labels(len(batch)))
        return batch

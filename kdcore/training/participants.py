"""The participants of one arm: networks, their fusion, their terms, moving averages and stored outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from kdcore.contracts.batch import Batch, Outputs
from kdcore.contracts.encoder import Participant
from kdcore.contracts.fusion import TeacherFusion
from kdcore.contracts.loss import DistillationLoss, Example
from kdcore.contracts.progress import Ramp
from kdcore.contracts.training import MovingAverage
from kdcore.training.module_checks import set_up as set_up_loss
from kdcore.training.teacher_cache import CachedOutputs
from kdcore.training.weight_average import update_average


@dataclass(frozen=True)
class TermSpec:
    """One weighted loss term of a learner's objective.

    Args:
        id: Name in logs.
        weight: Constant weight, or a ramp over epochs.
        build: Constructs the loss.
        teachers: Names of the teachers whose outputs the loss reads.
        peers: Names of the peers whose outputs the loss reads.
        path: Path in the recipe, such as ``losses[2]``.
        loss: Description for messages, such as ``loss 'cosine' of plugin 'my-loss'``.
        every_class: Whether the loss reads all classes, even of networks that know only some.
    """

    id: str
    weight: float | Ramp
    build: Callable[[], DistillationLoss]
    teachers: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    path: str = ""
    loss: str = ""
    every_class: bool = False


@dataclass(frozen=True)
class Average:
    """A teacher whose weights are a moving average of a learner's.

    Args:
        follows: Name of the learner.
        rule: Momentum and warmup of the average.
    """

    follows: str
    rule: MovingAverage


class Distiller(nn.Module):
    """All participants of one arm of a run, with their losses.

    Args:
        teachers: Name → teacher with a network.
        students: Name → student.
        fusion: Runs the teachers together; by default each runs on its own.
        class_embeddings: (classes, D) float32, or None.
        averages: Teacher → the learner whose weights it averages; its network is among the teachers, too.
        stored: Teacher without a network → its stored outputs.

    Attributes:
        terms: Learner → its losses by term.
        specs: Learner → the specifications of its terms.
        fused: Names of the teachers that the fusion runs and trains with; empty if each runs on its own.
        reused: Learner → the teacher whose classifier it uses.
        origins: Learner → the participant whose trained weights it starts from.
    """

    class_embeddings: Tensor | None

    def __init__(
        self,
        teachers: Mapping[str, Participant],
        students: Mapping[str, Participant],
        fusion: TeacherFusion | None = None,
        class_embeddings: Tensor | None = None,
        averages: Mapping[str, Average] | None = None,
        stored: Mapping[str, CachedOutputs] | None = None,
    ):
        super().__init__()
        self.teachers = nn.ModuleDict(teachers)
        self.students = nn.ModuleDict(students)
        self.fusion = fusion or TeacherFusion()
        self.terms = nn.ModuleDict()
        self.specs: dict[str, dict[str, TermSpec]] = {}
        self.averages, self.stored = dict(averages or {}), dict(stored or {})
        self.reused: dict[str, str] = {}
        self.origins: dict[str, str] = {}
        self._members = {**students, **teachers}  # a dict, which nn.Module does not register: the two above already are
        self.fused = [] if type(self.fusion) is TeacherFusion else [name for name in teachers if name not in self.averages]
        self.register_buffer("class_embeddings", class_embeddings, persistent=False)

    @property
    def networks(self) -> list[str]:
        """Names of all participants with a network, teachers first."""
        return [*self.teachers, *self.students]

    def participant(self, name: str) -> Participant:
        """The teacher or student with the name `name`."""
        return self._members[name]

    def followers(self, name: str) -> list[str]:
        """The moving averages that follow a participant."""
        return [average for average, each in self.averages.items() if each.follows == name]

    def known_classes(self, learner: str, spec: TermSpec) -> Tensor | None:
        """Return the indices of the classes that a term reads, (k,) int64; None for all classes.

        These are the classes that `learner` and all networks of the term know.
        """
        if spec.every_class:
            return None
        networks = [name for name in (learner, *spec.teachers, *spec.peers) if name in self.networks]
        known = [each for name in networks if (each := self.participant(name).known_classes) is not None]
        if not known:
            return None
        return torch.tensor(sorted(set.intersection(*(set(each.tolist()) for each in known))), device=known[0].device)

    def add_terms(
        self,
        learner: str,
        specs: Sequence[TermSpec],
        example: Callable[[TermSpec], Example],
        set_up: Callable[[TermSpec, DistillationLoss, Example], None] = lambda spec, loss, example: set_up_loss(loss, example),
    ) -> None:
        """Construct and set up the losses of a learner.

        Args:
            learner: Name of the learner.
            specs: Its terms.
            example: Returns the example outputs from which a term's loss sizes its parameters.
            set_up: Sets up one loss.
        """
        losses = {spec.id: spec.build() for spec in specs}
        for spec in specs:
            set_up(spec, losses[spec.id], example(spec))
        self.terms[learner] = nn.ModuleDict(losses)
        self.specs[learner] = {spec.id: spec for spec in specs}

    def describe_term(self, learner: str, term: str) -> str:
        """Describe a term and its loss, for messages."""
        origin = self.specs[learner][term].loss
        return f"term {term!r} of {learner}" + (f" ({origin})" if origin else "")

    def losses(self, learner: str) -> dict[str, DistillationLoss]:
        """The learner's losses by term."""
        return dict(self.terms[learner].items()) if learner in self.terms else {}  # type: ignore[union-attr,arg-type]

    def ablation(self, learner: str) -> str | None:
        """The outputs for all-zero inputs that the learner's losses read, as for `forward`."""
        kinds = {loss.needs.ablated for loss in self.losses(learner).values()}
        return "mixed" if "mixed" in kinds else "single" if "single" in kinds else None

    def modules_of(self, learner: str) -> list[nn.Module]:
        """The modules whose parameters a learner trains: its network and its losses; for ``fusion``, the fusion."""
        if learner == FUSION:
            return [self.fusion]
        return [self.participant(learner), *([self.terms[learner]] if learner in self.terms else [])]

    def trained_modules(self, learners: Sequence[str]) -> list[nn.Module]:
        """The modules that train in a stage of `learners`: networks, losses and, with a fused teacher, the fusion."""
        return [module for name in self.with_fusion(learners) for module in self.modules_of(name)]

    def with_fusion(self, learners: Sequence[str]) -> list[str]:
        """`learners`, plus ``fusion`` if one of them is a fused teacher."""
        return [*learners, *([FUSION] if set(learners) & set(self.fused) else [])]

    def independent_groups(self, names: Sequence[str]) -> list[list[str]]:
        """Group participants that must run together: all fused teachers in one group, each of the others alone."""
        fused = [name for name in names if name in self.fused]
        return [*([fused] if fused else []), *([name] for name in names if name not in fused)]

    def run_teachers(self, names: Sequence[str], batch: Batch) -> dict[str, Outputs]:
        """Run the teachers `names`; fused ones run together through the fusion."""
        if not self.fused:
            return {name: self.forward(name, batch) for name in names}
        fused = [name for name in names if name in self.fused]
        outputs = self.fusion({name: self.teachers[name] for name in fused}, batch) if fused else {}
        return {name: outputs[name] if name in outputs else self.forward(name, batch) for name in names}

    def input(self, name: str, batch: Batch) -> Tensor | tuple[Tensor, ...]:
        """The input of a participant's network, without augmentation."""
        member = self.participant(name)
        with evaluating(member.batch_transforms):
            return member.input(batch.signals[name])

    def forward(self, name: str, batch: Batch, ablated: str | None = None) -> Outputs:
        """Run one participant.

        Args:
            name: Name of the participant.
            batch: Samples with the participant's signals.
            ablated: ``mixed`` to add outputs for all-zero inputs, one per sample, computed in the same pass; ``single`` to add
                the output for one all-zero input in evaluation mode; None for neither.
        """
        member = self.participant(name)
        x = member.input(batch.signals[name])
        if ablated == "mixed":
            both = member.collect(member.encoder(torch.cat([x, torch.zeros_like(x)])))
            return replace(_half(both, 0), ablated=_half(both, 1))
        outputs = member.collect(member.encoder(x))
        if ablated == "single":
            with evaluating(member.encoder):
                outputs = replace(outputs, ablated=member.collect(member.encoder(_zero_sample(x))))
        return outputs

    @torch.no_grad()
    def ablated_teachers(self, names: Sequence[str], batch: Batch) -> dict[str, Outputs]:
        """Outputs of the participants `names` for one all-zero input each. They are constant while the networks are frozen."""
        with self.mixed(None):
            zero = {name: _zero_sample(self.participant(name).input(batch.signals[name])) for name in names}
        with self.ready(names), self.mixed(None):
            return self.run_teachers(names, Batch(torch.zeros(1, dtype=torch.long), zero, None, batch.table))

    @contextmanager
    def ready(self, names: Sequence[str]) -> Iterator[None]:
        """Context in which the inputs of `names` bypass their batch transforms."""
        transforms = {name: self.participant(name).batch_transforms for name in names}
        try:
            for name in names:
                self.participant(name).batch_transforms = nn.Identity()
            yield
        finally:
            for name, module in transforms.items():
                self.participant(name).batch_transforms = module

    @contextmanager
    def mixed(self, mix: Callable[[Tensor, tuple[str, ...], str], Tensor] | None) -> Iterator[None]:
        """Context in which `mix` is applied to the inputs of all participants; None disables mixing."""
        members = [self.participant(name) for name in self.networks]
        before = [member.mix for member in members]
        try:
            for member in members:
                member.mix = mix
            yield
        finally:
            for member, each in zip(members, before, strict=True):
                member.mix = each

    def update_averages(self, learner: str, update: int) -> None:
        """Update the moving averages that follow `learner`, after its optimizer step `update`, counted from 0."""
        for name, average in self.averages.items():
            if average.follows == learner and name in self.teachers:
                update_average(self.participant(name).encoder, self.participant(learner).encoder, average.rule, update)


FUSION = "fusion"
"""Name of the fusion among learners; reserved, so no participant of a recipe has it."""


def _half(outputs: Outputs, which: int) -> Outputs:
    return Outputs(outputs.logits.chunk(2)[which], {tap: value.chunk(2)[which] for tap, value in outputs.features.items()})


def _zero_sample(x: Tensor) -> Tensor:
    """One all-zero sample like those of `x`, expanded from a scalar: stride 0 tells an encoder that all frames are equal."""
    return x.new_zeros(()).expand_as(x[:1])


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Context in which `module` is in evaluation mode; each submodule returns to its mode afterwards."""
    modes = [(each, each.training) for each in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for each, training in modes:
            each.training = training

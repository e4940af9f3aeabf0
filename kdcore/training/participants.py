"""The participants of one arm: networks, their fusion, their terms, moving averages and stored outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from kdcore.contracts.batch import Batch, Outputs
from kdcore.contracts.encoder import Participant
from kdcore.contracts.fusion import TeacherFusion
from kdcore.contracts.loss import DistillationLoss, Example
from kdcore.contracts.progress import Ramp
from kdcore.contracts.training import MovingAverage
from kdcore.training.module_checks import set_up
from kdcore.training.teacher_cache import CachedOutputs


@dataclass(frozen=True)
class TermSpec:
    """One weighted term of a learner's objective.

    Args:
        id: Its name in logs.
        weight: A number, or a ramp over epochs.
        build: Constructs the loss.
        teachers: Teachers that it reads.
        peers: Peers that it reads.
        path: Path in the recipe.
        loss: Description of the loss for messages: ``loss 'cosine' of plugin 'my-loss'``.
    """

    id: str
    weight: float | Ramp
    build: Callable[[], DistillationLoss]
    teachers: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    path: str = ""
    loss: str = ""


@dataclass(frozen=True)
class Average:
    """Settings of a participant that is the moving average of a learner.

    Args:
        follows: Name of the learner.
        rule: Momentum and warmup.
    """

    follows: str
    rule: MovingAverage


SetUp = Callable[[TermSpec, DistillationLoss, Example], None]


def _set_up(spec: TermSpec, loss: DistillationLoss, example: Example) -> None:
    set_up(loss, example)


@dataclass
class Sources:
    """Participants that are never trained.

    Args:
        averages: Moving average → its settings; the networks are among the teachers.
        stored: Teacher → its stored outputs.
    """

    averages: Mapping[str, Average] = field(default_factory=dict)
    stored: Mapping[str, CachedOutputs] = field(default_factory=dict)


class Distiller(nn.Module):
    """All participants of one arm, with their fusion and losses.

    Args:
        teachers: Teachers with a network, by name.
        students: Students by name.
        fusion: Exchanges features among the teachers.
        class_embeddings: (classes, D), or None.
        sources: Moving averages and stored outputs.

    Attributes:
        fused: Teachers that run through the fusion, which is trained with them; empty without a fusion.
        reused: Learner → teacher whose classifier it uses.
        origins: Learner → participant whose trained weights it starts from.
    """

    class_embeddings: Tensor | None

    def __init__(
        self,
        teachers: Mapping[str, Participant],
        students: Mapping[str, Participant],
        fusion: TeacherFusion | None = None,
        class_embeddings: Tensor | None = None,
        sources: Sources | None = None,
    ):
        super().__init__()
        self.teachers = nn.ModuleDict(teachers)
        self.students = nn.ModuleDict(students)
        self.fusion = fusion or TeacherFusion()
        self.terms = nn.ModuleDict()
        self.specs: dict[str, dict[str, TermSpec]] = {}
        sources = sources or Sources()
        self.averages = dict(sources.averages)
        self.stored = dict(sources.stored)
        self.reused: dict[str, str] = {}
        self.origins: dict[str, str] = {}
        self._members = {**students, **teachers}
        self.fused = [] if type(self.fusion) is TeacherFusion else [name for name in teachers if name not in self.averages]
        self.register_buffer("class_embeddings", class_embeddings, persistent=False)

    @property
    def networks(self) -> list[str]:
        """Names of all participants with a network, teachers first."""
        return [*self.teachers, *self.students]

    def participant(self, name: str) -> Participant:
        """The teacher or student called `name`."""
        return self._members[name]

    def followers(self, name: str) -> list[str]:
        """The moving averages that follow a participant."""
        return [average for average, each in self.averages.items() if each.follows == name]

    def known_classes(self, learner: str, spec: TermSpec) -> Tensor | None:
        """Classes that `learner` and all sources of a term know, (k,) int64; None for all classes."""
        networks = [name for name in (learner, *spec.teachers, *spec.peers) if name in self.networks]
        known = [each for name in networks if (each := self.participant(name).known_classes) is not None]
        if not known:
            return None
        return torch.tensor(sorted(set.intersection(*(set(each.tolist()) for each in known))), device=known[0].device)

    def add_terms(
        self, learner: str, specs: Sequence[TermSpec], example: Callable[[TermSpec], Example], how: SetUp = _set_up
    ) -> None:
        """Construct the losses of `learner`.

        Args:
            learner: Name of the learner.
            specs: Its terms.
            example: Returns the outputs that a loss is set up with.
            how: Sets up one loss.
        """
        losses = {spec.id: spec.build() for spec in specs}
        for spec in specs:
            how(spec, losses[spec.id], example(spec))
        self.terms[learner] = nn.ModuleDict(losses)
        self.specs[learner] = {spec.id: spec for spec in specs}

    def describe_term(self, learner: str, term: str) -> str:
        """Describe a term and its loss for a message."""
        origin = self.specs[learner][term].loss
        return f"term {term!r} of {learner}" + (f" ({origin})" if origin else "")

    def losses(self, learner: str) -> dict[str, DistillationLoss]:
        """The learner's losses by term."""
        return dict(self.terms[learner].items()) if learner in self.terms else {}  # type: ignore[union-attr,arg-type]

    def owned(self, learner: str) -> list[nn.Module]:
        """Modules that are trained with a learner: its network and its losses. The owner ``fusion`` has the fusion."""
        if learner == FUSION:
            return [self.fusion]
        return [self.participant(learner), *([self.terms[learner]] if learner in self.terms else [])]

    def owners(self, learners: Sequence[str]) -> list[str]:
        """Owners of what a stage trains: `learners`, and ``fusion`` if one of them is fused."""
        return [*learners, *([FUSION] if set(learners) & set(self.fused) else [])]

    def run_apart(self, names: Sequence[str]) -> list[list[str]]:
        """Groups of participants that run independently: the fused teachers, and each of the others."""
        fused = [name for name in names if name in self.fused]
        return [*([fused] if fused else []), *([name] for name in names if name not in fused)]

    def run_teachers(self, names: Sequence[str], batch: Batch) -> dict[str, Outputs]:
        """Outputs of the teachers `names`; fused teachers run together."""
        if not self.fused:
            return {name: self.forward(name, batch) for name in names}
        fused = [name for name in names if name in self.fused]
        found = self.fusion({name: self.teachers[name] for name in fused}, batch) if fused else {}
        return {name: found[name] if name in found else self.forward(name, batch) for name in names}

    def forward(self, name: str, batch: Batch, ablated: str | None = None) -> Outputs:
        """Outputs of one participant, with outputs for an all-zero input where a loss reads them."""
        member = self.participant(name)
        x = member.input(batch.signals[name])
        if ablated == "mixed":
            both = member.collect(member.encoder(torch.cat([x, torch.zeros_like(x)])))
            return replace(_half(both, 0), ablated=_half(both, 1))
        outputs = member.collect(member.encoder(x))
        if ablated == "single":
            with evaluating(member.encoder):
                outputs = replace(outputs, ablated=member.collect(member.encoder(_nothing(x))))
        return outputs

    @torch.no_grad()
    def ablated_teachers(self, names: Sequence[str], batch: Batch) -> dict[str, Outputs]:
        """Outputs of the participants `names` for an all-zero input; constant while they are frozen."""
        with self.mixed(None):
            zero = {name: _nothing(self.participant(name).input(batch.signals[name])) for name in names}
        with self.ready(names), self.mixed(None):
            return self.run_teachers(names, Batch(torch.zeros(1, dtype=torch.long), zero, None, batch.table))

    @contextmanager
    def ready(self, names: Sequence[str]) -> Iterator[None]:
        """Treat the signals of a batch as final inputs of the encoders of `names`, without transforms."""
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
        """Mix the inputs of all participants within the context; None for no mixing."""
        members = [self.participant(name) for name in self.networks]
        before = [member.mix for member in members]
        try:
            for member in members:
                member.mix = mix
            yield
        finally:
            for member, each in zip(members, before, strict=True):
                member.mix = each

    @torch.no_grad()
    def update_averages(self, learner: str, update: int) -> None:
        """Update the averages that follow `learner` after its optimizer step number `update`, counted from 0.

        Parameters are averaged; buffers, such as running statistics, are copied, as `torch.optim.swa_utils` does.
        """
        for name, average in self.averages.items():
            if average.follows == learner and name in self.teachers:
                mine, theirs = self.participant(name).encoder, self.participant(learner).encoder
                step = get_ema_multi_avg_fn(average.rule.decay(update))
                step(list(mine.parameters()), list(theirs.parameters()), update)
                for old, new in zip(mine.buffers(), theirs.buffers(), strict=True):
                    old.copy_(new)


FUSION = "fusion"
"""Names the fusion where learners are named; a recipe's participants cannot be called so."""


def _half(outputs: Outputs, which: int) -> Outputs:
    return Outputs(outputs.logits.chunk(2)[which], {tap: value.chunk(2)[which] for tap, value in outputs.features.items()})


def _nothing(x: Tensor) -> Tensor:
    """One all-zero sample shaped like those of `x`, expanded from one number, so that an encoder can detect equal frames."""
    return x.new_zeros(()).expand_as(x[:1])


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Set `module` to evaluation mode within the context, then restore the mode of each submodule."""
    training = [each for each in module.modules() if each.training]
    for each in training:
        each.training = False
    try:
        yield
    finally:
        for each in training:
            each.training = True

"""Forward passes for losses that run networks on inputs of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.func import functional_call

from kdcore.contracts.batch import Batch, LossContext, Outputs
from kdcore.contracts.encoder import Participant
from kdcore.contracts.needs import Needs
from kdcore.training.classifiers import with_classifiers
from kdcore.training.participants import Distiller, TermSpec, evaluating


@dataclass(frozen=True)
class TermNetworks:
    """The networks that a term may run, see `kdcore.LossContext.forward`.

    Args:
        distiller: All participants of the arm.
        learner: Name of the learner.
        others: Names of the teachers and peers that the term may run.
        classes: (k,) int64, classes to which outputs are restricted; None for all.
        passes: The learner's outputs of all passes so far.
    """

    distiller: Distiller
    learner: str
    others: Sequence[str] = ()
    classes: Tensor | None = None
    passes: list[Outputs] = field(default_factory=list)

    def input(self, name: str, batch: Batch) -> Tensor:
        """Compute a participant's input for a batch, without augmentation.

        Raises:
            ValueError: If the term cannot run that participant.
        """
        name = self._member(name).name
        x = self.distiller.input(name, batch)
        if not isinstance(x, Tensor):
            raise ValueError(f"the input of {name!r} is several tensors, which a loss cannot transform")
        return x

    def axes(self, name: str) -> tuple[str, ...]:
        """Axis names of a participant's input, without the batch axis; empty if unknown."""
        return self._member(name).layout

    def forward(self, name: str, x: Tensor) -> Outputs:
        """Run a participant on `x`: the learner with gradients, others in evaluation mode and without gradients of weights.

        Raises:
            ValueError: If the term cannot run that participant, or `x` requires a gradient that its network does not compute.
        """
        member = self._member(name)
        if member.name == self.learner:
            outputs = self._restricted(member.collect(member.encoder(x)))
            self.passes.append(outputs)
            return outputs
        with evaluating(member.encoder), torch.set_grad_enabled(torch.is_grad_enabled() and x.requires_grad):
            fixed = {key: parameter.detach() for key, parameter in member.encoder.named_parameters()}
            outputs = self._restricted(member.collect(functional_call(member.encoder, fixed, (x,))))
        if torch.is_grad_enabled() and x.requires_grad and not outputs.logits.requires_grad:
            raise ValueError(f"the inputs require a gradient, which the network of {name!r} does not compute")
        return outputs

    def of_classes(self, classes: Tensor) -> TermNetworks:
        """The same networks with outputs for `classes` only."""
        return replace(self, classes=classes if self.classes is None else self.classes[classes])

    def _member(self, name: str) -> Participant:
        name, known = name or self.learner, (self.learner, *self.others)
        if name not in known:
            hint = "declare Needs(forward_passes='all') to run teachers and peers"
            raise ValueError(f"the loss cannot run {name!r}, only {', '.join(map(repr, known))}; {hint}")
        return self.distiller.participant(name)

    def _restricted(self, outputs: Outputs) -> Outputs:
        return outputs if self.classes is None else outputs.of_classes(self.classes)


def run_by(distiller: Distiller, learner: str, spec: TermSpec) -> list[str]:
    """Names of the teachers and peers whose networks a term runs."""
    loss = distiller.losses(learner)[spec.id]
    names = (*spec.teachers, *spec.peers) if loss.needs.forward_passes == "all" else ()
    return [name for name in names if name in distiller.networks]


def with_networks(distiller: Distiller, learner: str, spec: TermSpec, needs: Needs, context: LossContext) -> LossContext:
    """Add the classifiers and networks that a term's loss needs to its context."""
    if needs.classifiers:
        context = with_classifiers(distiller, learner, context)
    if needs.forward_passes:
        context = replace(context, networks=TermNetworks(distiller, learner, run_by(distiller, learner, spec)))
    return context


def passes_of(context: LossContext) -> list[Outputs]:
    """The learner's outputs that a term has read: those of the batch, and those of its own passes."""
    networks = context.networks
    return [context.student, *(networks.passes if isinstance(networks, TermNetworks) else [])]

"""Forward passes for losses that run networks on inputs of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.func import functional_call

from kdcore.contracts.batch import Batch, LossContext, Outputs
from kdcore.contracts.encoder import Participant
from kdcore.contracts.needs import Needs
from kdcore.suggestions import did_you_mean
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

    def parameters(self, name: str) -> dict[str, Tensor]:
        """Parameters by name: the learner's own, and copies of those of others.

        Raises:
            ValueError: If the term cannot run that participant.
        """
        member = self._member(name)
        named = dict(member.encoder.named_parameters())
        if member.name == self.learner:
            return dict(named)
        return {key: parameter.detach().clone().requires_grad_() for key, parameter in named.items()}

    def forward(self, name: str, x: Tensor, parameters: Mapping[str, Tensor] | None = None) -> Outputs:
        """Run a participant on `x`: the learner with gradients, others in evaluation mode and without gradients of weights.

        Raises:
            ValueError: If the term cannot run that participant, `x` requires a gradient that its network does not compute, or
                it lacks one of the `parameters`.
        """
        member, given = self._member(name), dict(parameters or {})
        _refuse_other_parameters(member, given)
        if member.name == self.learner:
            logits = functional_call(member.encoder, given, (x,)) if given else member.encoder(x)
            outputs = self._restricted(member.collect(logits))
            self.passes.append(outputs)
            return outputs
        differentiable = x.requires_grad or any(each.requires_grad for each in given.values())
        with evaluating(member.encoder), torch.set_grad_enabled(torch.is_grad_enabled() and differentiable):
            fixed = {key: parameter.detach() for key, parameter in member.encoder.named_parameters()}
            outputs = self._restricted(member.collect(functional_call(member.encoder, fixed | given, (x,))))
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


def _refuse_other_parameters(member: Participant, given: Mapping[str, Tensor]) -> None:
    """Refuse parameters that the network lacks, which `functional_call` would ignore, and those of another shape."""
    own = dict(member.encoder.named_parameters()) if given else {}
    for key, value in given.items():
        if key not in own:
            raise ValueError(f"the network of {member.name!r} has no parameter {key!r} ({did_you_mean(key, own)})")
        if value.shape != own[key].shape:
            shapes = f"{tuple(own[key].shape)}, not {tuple(value.shape)}"
            raise ValueError(f"the parameter {key!r} of the network of {member.name!r} has the shape {shapes}")


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

"""Detects loss terms whose gradient vanishes during training."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor

from kdcore.contracts.batch import Outputs

NEGLIGIBLE = 1e-7
"""Share of the learner's largest gradient below which a term has no effect; float32 has seven digits."""

LOOKS = 4
"""Number of evenly spaced steps checked per epoch, and of consecutive checks after which a term counts as vanished."""

HALF_SCALE = 1024.0
"""Loss scale for gradients in float16, so that small ones do not underflow."""


@dataclass(frozen=True)
class TermValue:
    """A loss term at one step.

    Args:
        name: ``learner/term``.
        value: Unweighted scalar loss, with its graph.
        weight: Weight at this step.
        outputs: The learner's outputs that the loss read: those of the batch, and those of the loss's own forward passes.
    """

    name: str
    value: Tensor
    weight: float
    outputs: Sequence[Outputs]

    @property
    def learner(self) -> str:
        """Name of the learner."""
        return self.name.split("/")[0]


@dataclass
class GradientWatch:
    """Compares the gradients of a learner's terms at a few steps of each epoch. Training itself is not affected.

    Gradients are taken with respect to the learner's outputs, which is cheap: first the logits, and the features only for a
    term without a gradient on the logits.

    Args:
        taps: Also take gradients with respect to features. This runs part of the learner's backward pass twice, which a
            compiled module does not allow.
        checking: Whether the current step is checked.
        settled: ``learner/term`` of terms that need no further check in this epoch.
        negligible: ``learner/term`` → number of consecutive checks with a negligible gradient.
        seen: ``learner/term`` → last (gradient, largest gradient of the learner, term with the largest gradient).
        reported: Terms already reported as vanished.
        effective: Terms whose gradient was not negligible at some check.
    """

    taps: bool = True
    checking: bool = False
    settled: set[str] = field(default_factory=set)
    negligible: dict[str, int] = field(default_factory=dict)
    seen: dict[str, tuple[float, float, str]] = field(default_factory=dict)
    reported: list[str] = field(default_factory=list)
    effective: set[str] = field(default_factory=set)

    def begin_epoch(self) -> None:
        """Check all terms again in this epoch."""
        self.settled = set()

    def begin_step(self, step: int, steps: int, names: Iterable[str]) -> None:
        """Decide whether to check the next step.

        Args:
            step: Index of the step in the epoch, from 0.
            steps: Steps per epoch.
            names: ``learner/term`` of all terms.
        """
        self.checking = step in _due(steps) and not set(names) <= self.settled | set(self.reported)

    def check(self, terms: Sequence[TermValue]) -> None:
        """Compare the gradients of a step's terms, learner by learner.

        Args:
            terms: Terms for which the batch has samples.
        """
        for learner in dict.fromkeys(term.learner for term in terms):
            own = [term for term in terms if term.learner == learner]
            self.settled |= {term.name for term in own if not term.weight}
            if active := [term for term in own if term.weight]:
                self._compare(active)

    def _compare(self, terms: Sequence[TermValue]) -> None:
        norms = {term.name: term.weight * _norm(term.value, [each.logits for each in term.outputs]) for term in terms}
        for term in terms:
            features = [feature for each in term.outputs for feature in _features(each)]
            if features and norms[term.name] <= NEGLIGIBLE * max(norms.values()):
                if self.taps:
                    norms[term.name] = math.hypot(norms[term.name], term.weight * _norm(term.value, features))
                elif term.value.requires_grad:
                    self.settled.add(term.name)
        if not all(map(math.isfinite, norms.values())):
            return
        largest = max(norms, key=norms.__getitem__)
        for name, norm in norms.items():
            if name in self.settled:
                continue
            if norm > NEGLIGIBLE * norms[largest]:
                self.settled.add(name)
                self.effective.add(name)
                self.negligible[name] = 0
            else:
                self.negligible[name] = self.negligible.get(name, 0) + 1
                self.seen[name] = (norm, norms[largest], largest)

    def vanished(self) -> dict[str, tuple[float, float, str]]:
        """Terms whose gradient was negligible in the last `LOOKS` checks; each is returned once.

        Returns:
            ``learner/term`` → (weighted gradient norm at the last check, largest weighted gradient norm of the learner, name
            of the term with the largest).
        """
        new = [name for name, count in self.negligible.items() if count >= LOOKS and name not in self.reported]
        self.reported += new
        return {name: self.seen[name] for name in new}

    def state(self) -> dict[str, Any]:
        """The state as plain data for a checkpoint."""
        return {
            "settled": sorted(self.settled),
            "negligible": dict(self.negligible),
            "seen": {name: list(each) for name, each in self.seen.items()},
            "reported": list(self.reported),
            "effective": sorted(self.effective),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        self.settled, self.negligible = set(state["settled"]), dict(state["negligible"])
        self.seen, self.reported = {name: tuple(each) for name, each in state["seen"].items()}, list(state["reported"])
        self.effective = set(state["effective"])


@cache
def _due(steps: int) -> frozenset[int]:
    """Indices of the steps of an epoch that are checked."""
    return frozenset(max(0, steps * look // LOOKS - 1) for look in range(1, LOOKS + 1))


def _features(outputs: Outputs) -> list[Tensor]:
    ablated = outputs.ablated
    return [*outputs.features.values(), *([ablated.logits, *ablated.features.values()] if ablated else [])]


def _norm(value: Tensor, tensors: Sequence[Tensor]) -> float:
    """Norm of the gradient of `value` with respect to `tensors`."""
    tensors = [tensor for tensor in tensors if tensor.requires_grad]
    if not value.requires_grad or not tensors:
        return 0.0
    scale = HALF_SCALE if any(tensor.dtype == torch.float16 for tensor in tensors) else 1.0
    gradients = torch.autograd.grad(
        value, tensors, torch.full_like(value, scale), retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return float(torch.stack([each.float().norm() for each in gradients]).norm()) / scale

"""Watch for terms whose gradient vanishes while their learner is trained."""

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
"""Share of the largest gradient of a learner below which a term does not matter; float32 has seven digits."""

LOOKS = 4
"""Steps of an epoch that are looked at, evenly spaced, and looks in a row after which a term has vanished."""

HALF_SCALE = 1024.0
"""Factor on gradients in half precision, so that small ones are not rounded to 0."""


@dataclass(frozen=True)
class TermValue:
    """A term at one step.

    Args:
        name: ``learner/term``.
        value: Its value, with a graph.
        weight: At this step.
        outputs: The learner's outputs that it was given.
    """

    name: str
    value: Tensor
    weight: float
    outputs: Outputs

    @property
    def learner(self) -> str:
        """The participant it belongs to."""
        return self.name.split("/")[0]


@dataclass
class GradientWatch:
    """Compares the gradients of a learner's terms with one another at a few steps of each epoch.

    Gradients are taken with respect to the learner's outputs, which costs little: those of logits alone where that settles
    it. Nothing that training computes is changed.

    Args:
        taps: Whether gradients of features may be taken; they run part of the learner's backward pass a second time, which
            a compiled one does not allow.
    """

    taps: bool = True
    looking: bool = False
    settled: set[str] = field(default_factory=set)
    dry: dict[str, int] = field(default_factory=dict)
    seen: dict[str, tuple[float, float, str]] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)

    def begin_epoch(self) -> None:
        """Forget which terms were found to matter in the last epoch."""
        self.settled = set()

    def begin_step(self, step: int, steps: int, names: Iterable[str]) -> None:
        """Decide whether to look at the step that begins.

        Args:
            step: Step of the epoch, counted from 0.
            steps: Steps of an epoch.
            names: ``learner/term`` of all terms.
        """
        self.looking = step in _due(steps) and not set(names) <= self.settled | set(self.told)

    def look(self, terms: Sequence[TermValue]) -> None:
        """Compare the terms of a step, learner by learner.

        Args:
            terms: Those that the batch has samples for.
        """
        for learner in dict.fromkeys(term.learner for term in terms):
            mine = [term for term in terms if term.learner == learner]
            self.settled |= {term.name for term in mine if not term.weight}
            active = [term for term in mine if term.weight]
            if active:
                self._compare(active)

    def _compare(self, terms: Sequence[TermValue]) -> None:
        found = {term.name: term.weight * _norm(term.value, [term.outputs.logits]) for term in terms}
        for term in terms:
            others = _beside_logits(term.outputs)
            if others and found[term.name] <= NEGLIGIBLE * max(found.values()):
                if self.taps:
                    found[term.name] = math.hypot(found[term.name], term.weight * _norm(term.value, others))
                elif term.value.requires_grad:
                    self.settled.add(term.name)
        if not all(map(math.isfinite, found.values())):
            return
        largest = max(found, key=found.__getitem__)
        for name, gradient in found.items():
            if name in self.settled:
                continue
            if gradient > NEGLIGIBLE * found[largest]:
                self.settled.add(name)
                self.dry[name] = 0
            else:
                self.dry[name] = self.dry.get(name, 0) + 1
                self.seen[name] = (gradient, found[largest], largest)

    def vanished(self) -> dict[str, tuple[float, float, str]]:
        """Terms that did not matter throughout the epoch that ends, each returned once.

        Returns:
            ``learner/term`` → norm of its gradient with its weight when last looked at, that of the largest term of its
            learner, and the name of that term.
        """
        new = [name for name, count in self.dry.items() if count >= LOOKS and name not in self.told]
        self.told += new
        return {name: self.seen[name] for name in new}

    def state(self) -> dict[str, Any]:
        """All that later steps depend on, as plain data for a checkpoint."""
        seen = {name: list(each) for name, each in self.seen.items()}
        return {"settled": sorted(self.settled), "dry": dict(self.dry), "seen": seen, "told": list(self.told)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state`."""
        self.settled, self.dry, self.told = set(state["settled"]), dict(state["dry"]), list(state["told"])
        self.seen = {name: (each[0], each[1], each[2]) for name, each in state["seen"].items()}


@cache
def _due(steps: int) -> frozenset[int]:
    """The steps of an epoch that are looked at."""
    return frozenset(max(0, steps * look // LOOKS - 1) for look in range(1, LOOKS + 1))


def _beside_logits(outputs: Outputs) -> list[Tensor]:
    found = list(outputs.features.values())
    return found + ([outputs.ablated.logits, *outputs.ablated.features.values()] if outputs.ablated else [])


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

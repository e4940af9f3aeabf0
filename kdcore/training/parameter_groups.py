"""Parameter groups of a learner, with their own learning rate, weight decay or frozen epochs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from kdcore.contracts.encoder import Participant
from kdcore.contracts.training import ParameterGroup, Training

LOSSES = "losses."
"""Prefix of the paths of losses' parameters; the name of the term follows."""

NORMALISATION = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.LocalResponseNorm)
"""Layers whose parameters are scales and shifts, whatever their shape."""


@dataclass
class Frozen:
    """Parameters and modules that are frozen in a learner's first epochs.

    Args:
        epochs: Number of frozen epochs.
        parameters: Parameters that get no gradient.
        modules: Modules that stay in evaluation mode.
    """

    epochs: int
    parameters: list[nn.Parameter] = field(default_factory=list)
    modules: list[nn.Module] = field(default_factory=list)


@dataclass
class Groups:
    """The trainable parameters of a learner, for its optimizer.

    Args:
        optimized: The optimizer's first argument: a list of parameters, or of parameter groups.
        factors: Factor on the learning rate of each group.
        frozen: Groups that are frozen in the first epochs.
        decays: The recipe key that changes the weight decay of some groups; empty if none does.
    """

    optimized: list[Any]
    factors: list[float]
    frozen: list[Frozen]
    decays: str = ""


def matches(path: str, patterns: Iterable[str]) -> bool:
    """True if `path`, or a module that contains it, matches one of the glob `patterns`."""
    return any(fnmatchcase(path, each) or fnmatchcase(path, f"{each}.*") for each in patterns)


def _matches_any(path: str, patterns: Iterable[str]) -> bool:
    """Like `matches`, where ``*`` at the start of a pattern does not mean losses."""
    return matches(path, (each for each in patterns if each.startswith(LOSSES) or not path.startswith(LOSSES)))


def unmatched(modules: Sequence[nn.Module], training: Training) -> list[tuple[int, int, str]]:
    """Patterns that match no trainable parameter of a learner, as (group, index in the group, pattern)."""
    paths = [path for path, each in _parameters(modules) if each.requires_grad]
    return [
        (index, place, pattern)
        for index, group in enumerate(training.parameter_groups)
        for place, pattern in enumerate(group.modules)
        if not any(_matches_any(path, [pattern]) for path in paths)
    ]


def grouped(modules: Sequence[nn.Module], trainable: Sequence[nn.Parameter], training: Training) -> Groups:
    """Divide a learner's trainable parameters into groups.

    Args:
        modules: The learner's network and losses; patterns match parameters of its encoder, and of losses after ``losses.``.
        trainable: Its trainable parameters.
        training: Options of its training, with the groups.
    """
    if not training.parameter_groups and training.decay_norms_and_biases:
        return Groups(list(trainable), [1.0], [])
    group_of = dict(_assigned(modules, training.parameter_groups))
    spared = set() if training.decay_norms_and_biases else {id(each) for each in _undecayed(modules)}
    parts: dict[tuple[int | None, bool], list[nn.Parameter]] = {}
    for each in trainable:
        parts.setdefault((group_of.get(id(each)), id(each) in spared), []).append(each)
    base, optimized, factors = training.optimizer.get("lr", 1e-3), [], []
    for (index, undecayed), parameters in parts.items():
        group = training.parameter_groups[index] if index is not None else None
        factors.append(group.lr_factor if group else 1.0)
        entry: dict[str, Any] = {"params": parameters, "lr": base * factors[-1]}
        if undecayed:
            entry["weight_decay"] = 0.0
        elif group and group.weight_decay is not None:
            entry["weight_decay"] = group.weight_decay
        optimized.append(entry)
    own = any(group.weight_decay is not None for group in training.parameter_groups)
    decays = "" if training.decay_norms_and_biases else "decay_norms_and_biases: false"
    frozen = list(_frozen(modules, trainable, group_of, training.parameter_groups))
    return Groups(optimized, factors, frozen, "parameter_groups" if own else decays)


def _parts(modules: Sequence[nn.Module]) -> Iterator[tuple[str, nn.Module]]:
    """Yield (prefix of paths, module): the learner's encoder and, by term, its losses."""
    for module in modules:
        if isinstance(module, Participant):
            yield "", module.encoder
        elif isinstance(module, nn.ModuleDict):
            yield LOSSES, module


def _parameters(modules: Sequence[nn.Module]) -> Iterator[tuple[str, nn.Parameter]]:
    for prefix, part in _parts(modules):
        yield from ((prefix + path, parameter) for path, parameter in part.named_parameters())


def _assigned(modules: Sequence[nn.Module], groups: Sequence[ParameterGroup]) -> Iterator[tuple[int, int]]:
    """Yield (id of a parameter, index of the first group that it matches)."""
    for path, parameter in _parameters(modules):
        index = next((index for index, group in enumerate(groups) if _matches_any(path, group.modules)), None)
        if index is not None:
            yield id(parameter), index


def _undecayed(modules: Sequence[nn.Module]) -> Iterator[nn.Parameter]:
    for module in modules:
        for part in module.modules():
            own = part.parameters(recurse=False)
            yield from (each for each in own if each.ndim <= 1 or isinstance(part, NORMALISATION))


def _frozen(
    modules: Sequence[nn.Module], trainable: Sequence[nn.Parameter], group_of: dict[int, int], groups: Sequence[ParameterGroup]
) -> Iterator[Frozen]:
    for index, group in enumerate(groups):
        if group.frozen_epochs:
            parameters = [each for each in trainable if group_of.get(id(each)) == index]
            named = ((prefix + path, each) for prefix, part in _parts(modules) for path, each in part.named_modules() if path)
            below = [module for path, module in named if _matches_any(path, group.modules)]
            yield Frozen(group.frozen_epochs, parameters, below)

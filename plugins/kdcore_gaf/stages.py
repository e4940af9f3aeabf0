"""Cuts a timm backbone into steps that run one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import nn

Cut = Mapping[str, Sequence[str]]
"""Step → paths of the modules that make it up, in the order in which they run."""

REST = "head"
"""Name of what follows the last named feature map."""


def cut(backbone: nn.Module) -> Cut:
    """The steps of a backbone that runs its children in order: one up to each feature map that timm names, and the rest."""
    ends = [info["module"] for info in getattr(backbone, "feature_info", ())]
    steps: dict[str, list[str]] = {}
    waiting: list[str] = []
    for path in _leaves(backbone, ends):
        waiting.append(path)
        if path in ends:
            steps[path], waiting = waiting, []
    steps[REST] = waiting
    return steps


def step(backbone: nn.Module, paths: Sequence[str]) -> nn.Module:
    """The modules at `paths` as one; they stay the backbone's own."""
    return nn.Sequential(*(backbone.get_submodule(path) for path in paths))


def _leaves(module: nn.Module, ends: Sequence[str], prefix: str = "") -> Iterator[str]:
    """Paths of the largest modules that contain no inner end."""
    for name, child in module.named_children():
        path = prefix + name
        if any(end.startswith(path + ".") for end in ends):
            yield from _leaves(child, ends, path + ".")
        else:
            yield path

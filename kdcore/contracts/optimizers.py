"""Optimizers by name, from `torch.optim`."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from kdcore.spelling import or_meant

_CLASSES = {
    name.lower(): cls
    for name, cls in vars(torch.optim).items()
    if isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer) and cls is not torch.optim.Optimizer
}


def problem_with(options: Mapping[str, Any]) -> str:
    """What is wrong with an optimizer's description, or an empty string."""
    name = str(options.get("name", "adamw")).lower()
    if name not in _CLASSES:
        return f"no optimizer {name!r}{or_meant(name, _CLASSES)} (known: {', '.join(sorted(_CLASSES))})"
    known = set(inspect.signature(_CLASSES[name]).parameters) - {"params"}
    for option in sorted(set(options) - known - {"name"}):
        return f"optimizer {name!r} has no option {option!r}{or_meant(option, known)}"
    try:
        build_optimizer(options, [nn.Parameter(torch.zeros(1))])
    except (TypeError, ValueError, RuntimeError) as error:
        return f"optimizer {name!r}: {error}"
    return ""


def build_optimizer(options: Mapping[str, Any], parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer that `options` describe; a fused implementation where torch has one and nothing else is asked for."""
    chosen = {"lr": 1e-3, **{key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}}
    cls = _CLASSES[str(chosen.pop("name", "adamw")).lower()]
    if (
        "fused" in inspect.signature(cls).parameters
        and not {"fused", "foreach", "capturable", "differentiable"} & chosen.keys()
    ):
        chosen["fused"] = True
    return cls(list(parameters), **chosen)

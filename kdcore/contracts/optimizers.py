"""Optimizers by name, from `torch.optim`."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from kdcore.suggestions import or_meant

_UNFIT = {
    "lbfgs": "needs a closure, to compute the loss several times in one step; here a step computes it once",
    "muon": "takes matrices only, and networks have biases and kernels, too",
    "sparseadam": "wants sparse gradients, and those of networks are dense",
}
_CLASSES = {
    name.lower(): cls
    for name, cls in vars(torch.optim).items()
    if isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer) and cls is not torch.optim.Optimizer
    if name.lower() not in _UNFIT
}


def problem_with(options: Mapping[str, Any]) -> str:
    """What is wrong with an optimizer's description, or an empty string."""
    name = str(options.get("name", "adamw")).lower()
    if name in _UNFIT:
        return f"optimizer {name!r} cannot be used: it {_UNFIT[name]}"
    if name not in _CLASSES:
        return f"no optimizer {name!r}{or_meant(name, _CLASSES)} (known: {', '.join(sorted(_CLASSES))})"
    known = {key: each.default for key, each in inspect.signature(_CLASSES[name]).parameters.items() if key != "params"}
    for option in sorted(set(options) - set(known) - {"name"}):
        return f"optimizer {name!r} has no option {option!r}{or_meant(option, known)}"
    for option in sorted(known.keys() & options.keys()):
        if wanted := _wanted(known[option], options[option]):
            return f"optimizer {name!r}: option {option!r} must be {wanted}, not {options[option]!r}"
    try:
        build_optimizer(options, [nn.Parameter(torch.zeros(1))])
    except (TypeError, ValueError, RuntimeError) as error:
        return f"optimizer {name!r}: {error}"
    return ""


def _wanted(default: Any, value: Any) -> str:
    """What an option must be, if `value` is of another kind than its default; a default of None tells nothing."""
    if isinstance(default, bool):
        return "" if isinstance(value, bool) else "true or false"
    if isinstance(default, int | float):
        return "" if _is_number(value) else "a number"
    if isinstance(default, tuple):
        fits = isinstance(value, list | tuple) and len(value) == len(default)
        fits = fits and all(_is_number(each) or each is usual is None for each, usual in zip(value, default, strict=True))
        return "" if fits else f"a list of {len(default)} numbers"
    return ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


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

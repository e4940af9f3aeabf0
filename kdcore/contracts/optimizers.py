"""Optimizers by name, from `torch.optim`.

The results of checks are kept in the cache folder, so that a recipe is checked without importing torch.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdcore.cache import Answers, cache_folder
from kdcore.suggestions import or_meant

if TYPE_CHECKING:
    from torch.optim import Optimizer

LARGEST_RATE = 1e30
"""Largest learning rate; larger steps overflow in float32."""

_DECORATED = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")
"""Methods of optimizers that torch hides from its compiler."""

_UNFIT = {
    "lbfgs": "needs a closure that computes the loss several times per step, but a step of kdcore computes it once",
    "muon": "optimizes matrices only, but networks also have biases and convolution kernels",
    "sparseadam": "requires sparse gradients, but those of networks are dense",
}


def problem_with(options: Mapping[str, Any]) -> str:
    """Return what is wrong with an optimizer's name and options, or an empty string."""
    try:
        question, torch_version = json.dumps(options, sort_keys=True), _torch_version()
    except (TypeError, ValueError, PackageNotFoundError):
        return _problem_with(options)
    answers = _answers(cache_folder())
    problem = answers.get(question)
    if not isinstance(problem, str):
        problem = _problem_with(options)
        answers.put(question, problem, torch_version)
    return problem


@cache
def _torch_version() -> str:
    return version("torch")


@cache
def _answers(folder: Path) -> Answers:
    """The cached facts about optimizers in `folder`."""
    return Answers("optimizers", lambda stored: stored == _torch_version())


def _problem_with(options: Mapping[str, Any]) -> str:
    name = str(options.get("name", "adamw")).lower()
    if name in _UNFIT:
        return f"optimizer {name!r} cannot be used: it {_UNFIT[name]}"
    if name not in _classes():
        return f"no optimizer {name!r}{or_meant(name, _classes())} (known: {', '.join(sorted(_classes()))})"
    known = {key: each.default for key, each in inspect.signature(_classes()[name]).parameters.items() if key != "params"}
    for option in sorted(set(options) - set(known) - {"name"}):
        return f"optimizer {name!r} has no option {option!r}{or_meant(option, known)}"
    for option in sorted(known.keys() & options.keys()):
        if wanted := _wanted(known[option], options[option]):
            return f"optimizer {name!r}: option {option!r} must be {wanted}, not {options[option]!r}"
    if not 0 < options.get("lr", 1e-3) <= LARGEST_RATE:
        return f"optimizer {name!r}: option 'lr' must be a number above 0 and up to {LARGEST_RATE:g}, not {options['lr']!r}"
    try:
        _try(options)
    except (TypeError, ValueError, RuntimeError) as error:
        return f"optimizer {name!r}: {error}"
    return ""


def _wanted(default: Any, value: Any) -> str:
    """The expected type of an option, if `value` differs from the type of its default; empty if it fits or is unknown."""
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


@cache
def _classes() -> Mapping[str, type[Optimizer]]:
    """The optimizers that can be used, by name in lower case."""
    import torch

    return {
        name.lower(): cls
        for name, cls in vars(torch.optim).items()
        if isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer) and cls is not torch.optim.Optimizer
        if name.lower() not in _UNFIT
    }


def _try(options: Mapping[str, Any]) -> None:
    import torch

    cls, chosen = _chosen(options)
    _eager(cls)([torch.nn.Parameter(torch.zeros(1))], **chosen)


def build_optimizer(options: Mapping[str, Any], parameters: Iterable[Any], fused: bool = True) -> Optimizer:
    """Construct an optimizer.

    Args:
        options: ``name`` and options of the optimizer.
        parameters: Parameters, or parameter groups.
        fused: Use the fused implementation if PyTorch has one and the options choose no other.
    """
    cls, chosen = _chosen(options, fused)
    return (cls if chosen.get("differentiable") else _eager(cls))(list(parameters), **chosen)


def _eager(cls: type[Optimizer]) -> type[Optimizer]:
    """An optimizer class without the decorators for torch.compile and the profiler; the computation is the same.

    The decorators import the compiler, which takes as long as importing torch, and cost more than the step of a small network.
    Without them, a step cannot be compiled and runs no optimizer hooks.
    """
    import torch

    plain = inspect.unwrap(cls.step)

    def step(self: Optimizer, closure: Any = None) -> Any:
        with torch.no_grad():
            return plain(self, closure)

    step.hooked = True  # type: ignore[attr-defined]  # or the constructor would decorate it
    undecorated = {name: inspect.unwrap(getattr(cls, name)) for name in _DECORATED}
    return type(cls.__name__, (cls,), {**undecorated, "step": step, "__module__": cls.__module__})


def _chosen(options: Mapping[str, Any], fused: bool = True) -> tuple[type[Optimizer], dict[str, Any]]:
    chosen = {"lr": 1e-3, **{key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}}
    cls = _classes()[str(chosen.pop("name", "adamw")).lower()]
    implementations = {"fused", "foreach", "capturable", "differentiable"}
    if fused and "fused" in inspect.signature(cls).parameters and not implementations & chosen.keys():
        chosen["fused"] = True
    return cls, chosen

"""Checks for mistakes in plugin modules that would otherwise surface late or never."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator, Mapping
from inspect import isroutine
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kdcore.contracts.loss import DistillationLoss, Example
from kdcore.plugin.error_attribution import explained

REGISTER = "use nn.Parameter, register_buffer, nn.ModuleList or nn.ModuleDict"
MADE_LATE = "created during training, too late for the optimizer; create them in setup"
_METHODS = tuple(name for name, member in vars(DistillationLoss).items() if isroutine(member) and not name.startswith("_"))


def set_up(loss: DistillationLoss, example: Example) -> None:
    """Call a loss's `setup`, which creates its parameters.

    Raises:
        ValueError: If a tap or key is missing, or an attribute shadows a method of `DistillationLoss`.
        Exception: Any exception of the loss.
    """
    try:
        loss.setup(example)
    except KeyError as error:
        raise ValueError(explained(error)) from error
    registered = {*loss._parameters, *loss._buffers, *loss._modules}
    shadowed = [name for name in _METHODS if name in registered or not isroutine(getattr(loss, name))]
    if shadowed:
        raise ValueError(f"it has an attribute {shadowed[0]!r}, which is the name of a method of losses; rename it")


def reads_all_samples(loss: DistillationLoss) -> bool:
    """True if a loss defines `begin_epoch`."""
    return type(loss).begin_epoch is not DistillationLoss.begin_epoch


def not_a_scalar(value: object, like: Tensor | None = None) -> str:
    """Describe what is wrong with the return value of a loss; empty if it is a real scalar tensor.

    Args:
        value: The return value.
        like: A tensor on the device that the value must be on; None to skip that check.
    """
    if isinstance(value, Tensor) and value.shape == ():
        if like is not None and value.device != like.device:
            return f"it returned a tensor on {str(value.device)!r}, but was given tensors on {str(like.device)!r}"
        return "" if value.is_floating_point() else f"it must return a real number, not one of type {value.dtype}"
    shown = f"one of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
    return f"it must return a scalar tensor, not {shown}; average over the batch"


def unregistered(module: nn.Module) -> list[str]:
    """Names of tensors and modules in plain attributes, which `state_dict`, `to` and optimizers do not see."""
    return list(dict.fromkeys(name for name, _ in _unregistered(module)))


def unsaved_values(module: nn.Module) -> dict[str, list[object]]:
    """Copies of the values that `state_dict` does not contain, by attribute.

    These are numbers, text, tensors, arrays and the states of random generators and optimizers, also in containers, and buffers
    that are not persistent.
    """
    saved = {id(each) for each in module.state_dict(keep_vars=True).values()}
    values = {}
    for path, each in module.named_modules():
        plain = {name: value for name, value in vars(each).items() if name not in _OWN}
        for name, value in (plain | each._buffers).items():
            if id(value) not in saved:
                values[f"{path}.{name}" if path else name] = list(_leaves(value, saved, set()))
    return values


def changed_values(before: Mapping[str, list[object]], module: nn.Module) -> tuple[str, ...]:
    """Names of the `unsaved_values` that have changed since `before`."""

    def changed(values: list[object], others: list[object]) -> bool:
        return len(values) != len(others) or not all(map(equal_values, values, others))

    return tuple(name for name, values in unsaved_values(module).items() if changed(values, before.get(name, [])))


def equal_values(value: Any, other: Any) -> bool:
    """True for equal values, NaN included."""
    if type(value) is not type(other):
        return False
    if isinstance(value, Tensor | np.ndarray):
        return value.shape == other.shape and bool(((value == other) | (value != value)).all())
    return bool(value == other or value != value)


def _leaves(value: object, saved: set[int], entered: set[int]) -> Iterator[object]:
    """Copies of the values in `value`; of other objects, their type."""
    match value:
        case Tensor():
            yield None if id(value) in saved else value.detach().clone()
        case np.ndarray():
            yield value.copy()
        case None | bool() | int() | float() | complex() | str() | bytes():
            yield value
        case torch.Generator():
            yield value.get_state()
        case np.random.Generator():
            yield from _leaves(value.bit_generator.state, saved, entered)
        case np.random.RandomState():
            yield from _leaves(value.get_state(), saved, entered)
        case random.Random():
            yield from _leaves(value.getstate(), saved, entered)
        case torch.optim.Optimizer():
            yield from _leaves(value.state_dict(), saved, entered)
        case Mapping() | list() | tuple() | set() | deque() if id(value) not in entered:
            entered.add(id(value))
            yield len(value)
            for each in value.items() if isinstance(value, Mapping) else value:
                yield from _leaves(each, saved, entered)
        case _:
            yield type(value)


def never_trained(module: nn.Module) -> list[str]:
    """Names of the `unregistered` tensors and modules that require gradients, and so were meant to be trained."""
    known = {id(parameter) for parameter in module.parameters()}
    names = [name for name, held in _unregistered(module) if any(id(each) not in known for each in _trainable(held))]
    return list(dict.fromkeys(names))


def _unregistered(module: nn.Module) -> Iterator[tuple[str, Tensor | nn.Module]]:
    seen = {id(each) for each in (*module.modules(), *module.parameters(), *module.buffers())}
    for path, each in module.named_modules():
        for name, value in vars(each).items():
            if name not in _OWN:
                yield from ((f"{path}.{name}" if path else name, held) for held in _held(value, set()) if id(held) not in seen)


_OWN = frozenset(vars(nn.Module()))


def _held(value: object, entered: set[int]) -> Iterator[Tensor | nn.Module]:
    """Tensors and modules in `value`, including nested containers."""
    if isinstance(value, Tensor | nn.Module):
        yield value
    elif isinstance(value, Mapping | list | tuple | set) and id(value) not in entered:
        entered.add(id(value))
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _held(each, entered)


def _trainable(held: Tensor | nn.Module) -> list[Tensor]:
    tensors = [held] if isinstance(held, Tensor) else list(held.parameters())
    return [each for each in tensors if each.requires_grad and each.is_leaf]

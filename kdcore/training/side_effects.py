"""Detects side effects of a loss: changed settings of PyTorch, in-place changes of its inputs, and accumulated gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from kdcore.contracts.batch import LossContext, Outputs
from kdcore.errors import TrainingError


@contextmanager
def side_effects_refused(description: str, context: LossContext) -> Iterator[None]:
    """Context in which a loss is computed; refuses changes of PyTorch's global settings and of the loss's inputs.

    Args:
        description: Description of the term, for messages.
        context: The loss's input.

    Raises:
        TrainingError: If the loss changes either; the settings are restored.
    """
    before, inputs = _settings(), _tensors(context)
    copies = [tensor.detach().clone() for tensor in inputs.values()]
    try:
        yield
    finally:
        after = _settings()
        torch.set_grad_enabled(bool(before["whether gradients are recorded"]))
        torch.set_default_dtype(cast(torch.dtype, before["the default dtype"]))
    changed = [name for name in before if before[name] != after[name]]
    if changed:
        raise TrainingError(
            f"{description} changes {' and '.join(changed)}, which affects all other code; do not change torch's global "
            "settings, and draw random numbers from a torch.Generator of your own if they must be seeded"
        )
    for (name, tensor), copy in zip(inputs.items(), copies, strict=True):
        if not torch.equal(tensor.detach(), copy) and bool(torch.isfinite(copy).all()):
            raise TrainingError(
                f"{description} changes the {name} that it is given in place, and other terms read them too; clone them"
            )


def gradient_versions(module: nn.Module) -> dict[str, tuple[int, int] | None]:
    """Parameter → identity and version of its accumulated gradient, which change if backward is called; None without one."""
    return {
        name: None if each.grad is None else (id(each.grad), each.grad._version) for name, each in module.named_parameters()
    }


def _settings() -> dict[str, object]:
    return {
        "the seed of torch's random numbers": torch.initial_seed(),
        "whether gradients are recorded": torch.is_grad_enabled(),
        "the default dtype": torch.get_default_dtype(),
    }


def _tensors(context: LossContext) -> dict[str, Tensor]:
    """Description → input tensor of a loss."""
    outputs: dict[str, Outputs] = {"the student": context.student, **context.teachers, **context.peers}
    tensors = {} if context.batch.labels is None else {"labels": context.batch.labels}
    for name, each in outputs.items():
        tensors[f"logits of {name}"] = each.logits
        tensors |= {f"features {tap!r} of {name}": x for tap, x in each.features.items()}
        if each.classifier is not None:
            tensors[f"weights of the classifier of {name}"] = each.classifier.weight
            tensors[f"bias of the classifier of {name}"] = each.classifier.bias
    return tensors

"""Checks of a network's outputs for values that are not logits."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from kdcore.contracts.batch import Outputs
from kdcore.contracts.target import TargetKind
from kdcore.errors import TrainingError

_FEW = 16
"""Number of values below which logits of labels may lie between 0 and 1 by chance."""


def looks_like_probabilities(outputs: Tensor, kind: TargetKind) -> bool:
    """True if outputs that should be logits are probabilities, to which a loss would apply a softmax or sigmoid again.

    Args:
        outputs: (B, names), for several samples.
        kind: Kind of the target.
    """
    if kind == "values" or not outputs.numel() or bool((outputs < 0).any()):
        return False
    if kind == "labels":
        return outputs.numel() >= _FEW and bool((outputs <= 1).all())
    return outputs.shape[1] > 1 and bool(((outputs.float().sum(dim=1) - 1).abs() < 1e-3).all())


def refuse_probabilities(name: str, outputs: Tensor, kind: TargetKind, trained: bool) -> None:
    """Refuse probabilities instead of logits.

    Args:
        name: The network.
        outputs: (B, names), for several samples.
        kind: Kind of the target.
        trained: Whether the network is trained: its first logits of labels may all lie between 0 and 1.

    Raises:
        TrainingError: If the outputs look like probabilities.
    """
    if (kind == "classes" or not trained) and looks_like_probabilities(outputs, kind):
        layer, inverse = ("softmax", "torch.log") if kind == "classes" else ("sigmoid", "torch.logit")
        raise TrainingError(
            f"{name}: its outputs look like probabilities, but logits are expected: "
            f"remove the last {layer}, or return {inverse} of the probabilities"
        )


def not_finite(outputs: Mapping[str, Outputs]) -> str:
    """Name of the first network whose logits are NaN or infinite; empty if there is none. Masked classes are minus infinity."""
    wrong = (name for name, each in outputs.items() if bool((each.logits.isnan() | each.logits.isposinf()).any()))
    return next(wrong, "")

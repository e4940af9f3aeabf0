"""Logits without those of the true class."""

from __future__ import annotations

import torch
from torch import Tensor


def other_logits(logits: Tensor, labels: Tensor) -> Tensor:
    """Logits (B, C) → those of the classes other than each sample's label (B,), in order: (B, C - 1)."""
    classes = torch.arange(logits.shape[1] - 1, device=logits.device)
    return logits.gather(1, classes + (classes >= labels[:, None]).long())

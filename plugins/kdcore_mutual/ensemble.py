"""One prediction from several students."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor


def ensemble(logits: Sequence[Tensor], how: Literal["average", "max"] = "average") -> Tensor:
    """Class scores of several students taken together: the mean or the maximum of their probabilities.

    Thoker and Gall, ICIP 2019, section 3.3.

    Args:
        logits: (B, C) of each student.
        how: Mean, which gives probabilities, or maximum, which gives scores to be ranked.

    Returns:
        (B, C).
    """
    probabilities = torch.stack([each.softmax(dim=1) for each in logits])
    return probabilities.mean(dim=0) if how == "average" else probabilities.amax(dim=0)

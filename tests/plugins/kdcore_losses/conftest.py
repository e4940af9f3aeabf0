"""Contexts as losses see them in training."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor

from kdcore import Batch, LossContext, Outputs


@pytest.fixture(scope="session")
def context() -> Callable[..., LossContext]:
    """Makes a context from logits and features; tap ``features`` unless given by name."""

    def outputs(logits: Tensor | None, features: Tensor | Mapping[str, Tensor] | None, batch: int) -> Outputs:
        if features is None:
            features = {}
        elif isinstance(features, Tensor):
            features = {"features": features}
        return Outputs(torch.zeros(batch, 3, dtype=torch.float64) if logits is None else logits, features)

    def make(
        logits: Tensor | None = None,
        teachers: list[Tensor] | None = None,
        labels: Tensor | None = None,
        features: Tensor | Mapping[str, Tensor] | None = None,
        teacher_features: list | None = None,
        batch: int | None = None,
    ) -> LossContext:
        size = batch or len(logits if logits is not None else features)
        count = max(len(teachers or ()), len(teacher_features or ()))
        answers = {
            f"teacher{k}": outputs(teachers[k] if teachers else None, teacher_features[k] if teacher_features else None, size)
            for k in range(count)
        }
        signals: dict[str, Tensor] = {}
        return LossContext(outputs(logits, features, size), answers, Batch(torch.arange(size), signals, labels))

    return make

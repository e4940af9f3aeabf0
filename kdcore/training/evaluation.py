"""Predictions of trained participants: probabilities of classes or labels, or estimated values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from kdcore.contracts.target import Target
from kdcore.data.table import Table
from kdcore.errors import TrainingError
from kdcore.training.participants import Distiller, evaluating

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@torch.no_grad()
def predict(
    distiller: Distiller, names: Sequence[str], rows: Tensor, table: Table, batch_size: int, fabric: Fabric
) -> dict[str, np.ndarray]:
    """Predict `rows` with the participants `names`, in evaluation mode.

    Returns:
        Participant → (n, classes) array: class probabilities, label probabilities or values in their units, depending on the
        table's target. Rows without the participant's signals are NaN.

    Raises:
        TrainingError: If outputs are NaN or infinite, for example after diverged training.
    """
    fused = distiller.fused if set(names) & set(distiller.fused) and distiller.fusion.batch_dependent else []
    live = [*fused, *(name for name in names if name not in fused and name not in distiller.stored)]
    teachers = [name for name in live if name in distiller.teachers]
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    partial = table.complete(live, rows) is not None
    with evaluating(distiller), fabric.autocast():
        for piece in rows.split(batch_size):
            for group in distiller.independent_groups(live) if partial else [live]:
                there = table.complete(group, piece)
                own = piece if there is None else piece[there]
                batch = table.batch(own, group, labelled=False)
                asked = [name for name in teachers if name in group]
                outputs = distiller.run_teachers(asked, batch) if len(own) else {}
                for name in (each for each in names if each in group):
                    if not len(own):
                        part = torch.zeros(0, len(table.classes), device=piece.device)
                    else:
                        each = outputs[name] if name in outputs else distiller.participant(name)(batch.signals[name])
                        part = predictions(each.logits, table.target)
                    found[name].append(part if there is None else _scatter(part, there))
            for name in (each for each in names if each in distiller.stored):
                found[name].append(predictions(distiller.stored[name].at(piece).logits, table.target))
    probabilities = {name: torch.cat(pieces).cpu().numpy() for name, pieces in found.items()}
    for name, each in probabilities.items():
        there = table.complete([name], rows)
        own = each if there is None else each[there.cpu().numpy()]
        if not np.isfinite(own).all():
            raise TrainingError(f"{name}: its outputs are not finite numbers; try a smaller learning rate or gradient_clip")
    return probabilities


def predictions(logits: Tensor, target: Target) -> Tensor:
    """Turn logits (B, classes) into float32 predictions (B, classes): softmax, sigmoid, or values in their units."""
    if target.kind == "values":
        return target.in_units(logits.float())
    return logits.float().softmax(-1) if target.is_classes else logits.float().sigmoid()


def _scatter(values: Tensor, there: Tensor) -> Tensor:
    """Scatter (k, classes) to the k rows of a batch where `there` is True; the other rows are NaN."""
    whole = values.new_full((len(there), values.shape[1]), torch.nan)
    whole[there] = values
    return whole

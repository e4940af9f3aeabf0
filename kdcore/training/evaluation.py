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
    stored = [name for name in names if name in distiller.stored]
    live = [name for name in names if name not in stored]
    if distiller.fusion.batch_dependent and set(names) & set(distiller.fused):
        live = list(dict.fromkeys([*distiller.fused, *live]))
    parts: dict[str, list[Tensor]] = {name: [] for name in (*live, *stored)}
    with evaluating(distiller), fabric.autocast():
        for batch_rows in rows.split(batch_size):
            for group in distiller.independent_groups(live):
                present = table.complete(group, batch_rows)
                for name, logits in _logits(distiller, group, table, batch_rows, present).items():
                    part = predictions(logits, table.target)
                    parts[name].append(part if present is None else _scatter(part, present))
            for name in stored:
                parts[name].append(predictions(distiller.stored[name].at(batch_rows).logits, table.target))
    arrays = {name: torch.cat(parts[name]).cpu().numpy() for name in names}
    for name, array in arrays.items():
        present = table.complete([name], rows)
        if not np.isfinite(array if present is None else array[present.cpu().numpy()]).all():
            raise TrainingError(f"{name}: its outputs are not finite numbers; try a smaller learning rate or gradient_clip")
    return arrays


def _logits(
    distiller: Distiller, group: Sequence[str], table: Table, rows: Tensor, present: Tensor | None
) -> dict[str, Tensor]:
    """Logits of the participants of a group, for the rows where `present` is True."""
    own = rows if present is None else rows[present]
    if not len(own):
        return dict.fromkeys(group, torch.zeros(0, len(table.classes), device=rows.device))
    outputs = distiller.run_teachers(group, table.batch(own, group, labelled=False))
    return {name: each.logits for name, each in outputs.items()}


def predictions(logits: Tensor, target: Target) -> Tensor:
    """Turn logits (B, classes) into float32 predictions (B, classes): softmax, sigmoid, or values in their units."""
    if target.kind == "values":
        return target.in_units(logits.float())
    return logits.float().softmax(-1) if target.is_classes else logits.float().sigmoid()


def _scatter(values: Tensor, present: Tensor) -> Tensor:
    """Scatter (k, classes) to the k rows of a batch where `present` is True; the other rows are NaN."""
    scattered = values.new_full((len(present), values.shape[1]), torch.nan)
    scattered[present] = values
    return scattered

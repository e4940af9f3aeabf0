"""Class probabilities of trained participants."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from kdcore.data.table import Table
from kdcore.errors import TrainingError
from kdcore.training.participants import Distiller


@torch.no_grad()
def predict(
    distiller: Distiller, names: Sequence[str], rows: Tensor, table: Table, batch_size: int, fabric: Fabric
) -> dict[str, np.ndarray]:
    """Class probabilities (n, classes) of participants `names` for `rows`, in batches of `batch_size` in that order.

    Raises:
        TrainingError: If outputs are not finite numbers, as after training that diverged.
    """
    modes = [(module, module.training) for module in distiller.modules()]
    distiller.eval()
    fused = distiller.fused if set(names) & set(distiller.fused) and distiller.fusion.batch_dependent else []
    live = [*fused, *(name for name in names if name not in fused and name not in distiller.stored)]
    teachers = [name for name in live if name in distiller.teachers]
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    for piece in rows.split(batch_size):
        with fabric.autocast():
            batch = table.batch(piece, live, labelled=False)
            outputs = distiller.run_teachers(teachers, batch)
            for name in names:
                if name in distiller.stored:
                    each = distiller.stored[name].at(piece)
                else:
                    each = outputs[name] if name in outputs else distiller.participant(name)(batch.signals[name])
                found[name].append(each.logits.float().softmax(-1))
    for module, training in modes:
        module.training = training
    probabilities = {name: torch.cat(pieces).cpu().numpy() for name, pieces in found.items()}
    for name, each in probabilities.items():
        if not np.isfinite(each).all():
            raise TrainingError(f"{name}: its outputs are not finite numbers; try a smaller learning rate or gradient_clip")
    return probabilities

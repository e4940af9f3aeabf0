"""What participants answer to rows of a table, asked without learning."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from kdcore.contracts.encoder import Participant
from kdcore.data.table import Table
from kdcore.errors import TrainingError
from kdcore.training.distiller import CachedOutputs, Distiller


@torch.no_grad()
def predict(
    distiller: Distiller, names: Sequence[str], rows: Tensor, table: Table, batch_size: int, fabric: Fabric
) -> dict[str, np.ndarray]:
    """Class probabilities (n, classes) of participants `names` for `rows`, in batches of `batch_size` in that order.

    Raises:
        TrainingError: If answers are not finite numbers, as after training that diverged.
    """
    modes = [(module, module.training) for module in distiller.modules()]
    distiller.eval()
    teachers = [name for name in names if name in distiller.teachers]
    fused = list(distiller.teachers) if teachers and distiller.fusion.batch_dependent else teachers
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    for piece in rows.split(batch_size):
        with fabric.autocast():
            batch = table.batch(piece, [*fused, *(name for name in names if name not in teachers)], labelled=False)
            taught = distiller.teach(fused, batch)
            for name in names:
                outputs = taught[name] if name in taught else distiller.participant(name)(batch.signals[name])
                found[name].append(outputs.logits.float().softmax(-1))
    for module, training in modes:
        module.training = training
    answers = {name: torch.cat(pieces).cpu().numpy() for name, pieces in found.items()}
    for name, each in answers.items():
        if not np.isfinite(each).all():
            raise TrainingError(f"{name}: its answers are not finite numbers; try a smaller learning rate or gradient_clip")
    return answers


@torch.no_grad()
def cache_teachers(
    distiller: Distiller, names: Sequence[str], rows: Tensor, table: Table, batch_size: int, limit: int, fabric: Fabric
) -> dict[str, CachedOutputs]:
    """Frozen teachers' answers to all `rows`; empty if they would take more than `limit` bytes."""
    outputs, sizes, taken = [], [], 0
    for piece in rows.split(batch_size) if names else ():
        with fabric.autocast():
            answers = distiller.teach(names, table.batch(piece, names, labelled=False))
        tensors = [tensor for each in answers.values() for tensor in (each.logits, *each.features.values())]
        taken += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        outputs.append(answers)
        sizes.append(len(piece))
        if taken / sum(sizes) * len(rows) > limit:
            return {}
    return {name: CachedOutputs(rows, [each[name] for each in outputs], sizes, len(table.keys)) for name in names}


def sees_random_input(participant: Participant) -> bool:
    """Whether a participant that is not learning is still shown augmented inputs."""
    return participant.augment_frozen and any(getattr(module, "augmentation", False) for module in participant.live.modules())

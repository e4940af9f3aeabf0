"""The weights that a run keeps, and its participants made again from them."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from kdcore.data.table import Table
from kdcore.deploy.bundle import WEIGHTS
from kdcore.errors import CheckpointError
from kdcore.training.assembly import DISTILLED, Assembly
from kdcore.training.checkpoint import load_weights, save_weights
from kdcore.training.participants import Distiller
from kdcore.training.randomness import random_state, restore_random_state


def teacher_file(folder: Path, seed: int, name: str) -> Path:
    """Where a run's folder has the weights of a teacher."""
    return folder / "teachers" / f"seed-{seed}" / f"{name}.safetensors"


def student_folder(folder: Path, seed: int, name: str) -> Path:
    """Where it has a student."""
    return folder / "students" / f"seed-{seed}" / name


def baseline_file(folder: Path, seed: int, name: str) -> Path:
    """Where it has the weights of a student that learned without distillation; the first seed's alone are kept."""
    return folder / "baseline" / f"seed-{seed}" / f"{name}.safetensors"


def fusion_file(folder: Path, seed: int) -> Path:
    """Where it has the weights of the fusion of teachers, if that has any."""
    return folder / "fusion" / f"seed-{seed}.safetensors"


def save_fusion(folder: Path, distiller: Distiller, seed: int) -> None:
    """Write the fusion's weights, if there are any: without them, its teachers are not whole."""
    if weights := distiller.fusion.state_dict():
        save_weights(fusion_file(folder, seed), weights)


def trained(assembly: Assembly, table: Table, folder: Path, seed: int, arm: str) -> Distiller:
    """Everybody of an arm as they were when it ended, in evaluation mode. No generator of random numbers moves.

    Raises:
        CheckpointError: If the folder lacks somebody's weights, or they do not fit.
    """
    before = random_state()
    try:
        distiller = assembly.distiller(table, seed, arm, table.labels.device)
    finally:
        restore_random_state(before)
    files = {name: teacher_file(folder, seed, name) for name in distiller.teachers}
    for name in distiller.students:
        whole = student_folder(folder, seed, name) / WEIGHTS
        files[name] = whole if arm == DISTILLED else baseline_file(folder, seed, name)
    try:
        for name, path in files.items():
            distiller.participant(name).encoder.load_state_dict(_encoder(load_weights(path)))
        if distiller.fusion.state_dict():
            distiller.fusion.load_state_dict(load_weights(fusion_file(folder, seed)))
    except RuntimeError as error:
        raise CheckpointError(f"{folder}: {error}") from error
    return distiller.eval()


def _encoder(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    prefix = "encoder."
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}

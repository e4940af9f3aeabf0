"""Saved students, found by folder, run or recipe; importing this module does not import the evaluation of runs."""

from __future__ import annotations

from pathlib import Path

from kdcore.deploy.saved_student import DESCRIPTION, member_folders
from kdcore.deploy.shipped_models import find_model, list_models
from kdcore.errors import CheckpointError
from kdcore.runs.paths import find_run, runs_of


def find_student(where: str | Path, seed: int | None = None) -> Path:
    """Find the folder of a saved student, or of all students of a seed, which form an ensemble.

    Args:
        where: That folder; a run's id, folder or recipe's name (its latest run); or the name of a shipped model. A folder
            without a student, such as one of recordings, does not hide the runs of a recipe of the same name.
        seed: Of a run; its first by default.

    Raises:
        CheckpointError: If there is none.
    """
    path = Path(where)
    if (path / DESCRIPTION).exists() or any(path.glob(f"*/{DESCRIPTION}")):
        return path
    if path.is_file() and path.suffix not in (".yaml", ".yml"):
        raise CheckpointError(f"{path}: a file that no plugin opens as a student; give the folder of a saved student, or a run")
    if path.is_dir() and not (path / "recipe.yaml").exists() and not runs_of(str(where)):
        raise CheckpointError(f"{path}: holds no saved student")
    if str(where) in list_models():
        return find_model(str(where))
    seeds = saved_seeds(find_run(str(where)))
    if seed is not None and seed not in seeds:
        raise CheckpointError(f"{where}: no student of seed {seed} (there are: {', '.join(map(str, seeds))})")
    folder = seeds[min(seeds) if seed is None else seed]
    inside = member_folders(folder)
    return inside[0] if len(inside) == 1 else folder


def saved_seeds(run: Path) -> dict[int, Path]:
    """Seed → folder of its saved students.

    Raises:
        CheckpointError: If a run has saved none.
    """
    folders = {path.parent.parent for path in (run / "students").glob(f"seed-*/*/{DESCRIPTION}")}
    if not folders:
        raise CheckpointError(f"{run} holds no saved student")
    return dict(sorted((int(folder.name.removeprefix("seed-")), folder) for folder in folders))

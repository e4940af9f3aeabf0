"""Folders of runs."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from pathlib import Path

from kdcore.errors import CheckpointError, UnknownRunError


def runs_folder() -> Path:
    """``$KDCORE_RUNS``, else ``kdcore-runs`` in the current folder."""
    return Path(os.environ.get("KDCORE_RUNS", "kdcore-runs")).absolute()


def new_run_id(name: str, digest: str, now: datetime) -> str:
    """A run's name: when it began in UTC, its recipe's name, and a piece of the recipe's hash.

    Ids of UTC sort by age in every time zone, and when clocks are put back in autumn.
    """
    base = f"{now.astimezone(UTC):%Y%m%d-%H%M%S}-{name}-{digest[:6]}"
    taken = runs_folder()
    return next(each for n in range(1, 1000) if not (taken / (each := base if n == 1 else f"{base}-{n}")).exists())


def recipe_name(run_id: str) -> str:
    """The recipe's name in a run's id as `new_run_id` makes it; empty in any other text."""
    match = re.fullmatch(r"\d{8}-\d{6}-(.+)-[0-9a-f]{6}(-\d+)?", run_id)
    return match[1] if match else ""


def began(run_id: str) -> datetime | None:
    """The time in UTC at which a run began, by its id; None if it is no id that `new_run_id` makes."""
    try:
        return datetime.strptime(run_id[:15], "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None


def age_order(run_id: str) -> tuple[str, int, str]:
    """Key that sorts ids of runs, oldest first: the second in which a run began, and its number among those of one name."""
    number = re.search(r"-[0-9a-f]{6}-(\d+)$", run_id)
    return run_id[:15], int(number[1]) if number else 1, run_id


def runs_of(recipe: str) -> list[str]:
    """Ids of a recipe's runs, oldest first.

    Args:
        recipe: Its name or its file.
    """
    name = Path(recipe).with_suffix("").as_posix() if recipe.endswith((".yaml", ".yml")) else recipe
    return [each for each in known_runs() if recipe_name(each) in (name, name.replace("/", "-"))]


def known_runs() -> list[str]:
    """Ids of all runs, oldest first."""
    folder = runs_folder()
    names = [each.name for each in folder.glob("[!.]*") if (each / "recipe.yaml").exists()] if folder.is_dir() else []
    return sorted(names, key=age_order)


def find_run(run_id: str) -> Path:
    """The folder of a run, by its path, its id, an unambiguous beginning or end of it, or its recipe's name.

    Of several runs of a recipe, the latest is taken. A recipe in a folder, such as ``utd-mhad/pskd``, is found by that name and
    by the name that it gives itself, ``utd-mhad-pskd``.

    Raises:
        UnknownRunError: If there is none.
        CheckpointError: If a part of an id fits several runs.
    """
    path = Path(run_id)
    if (path / "recipe.yaml").exists():
        return path.absolute()
    folder, known = runs_folder(), known_runs()
    matches = (
        [name for name in known if name == run_id]
        or runs_of(run_id)[-1:]
        or [name for name in known if run_id and (name.startswith(run_id) or name.endswith(run_id))]
    )
    if not matches:
        raise UnknownRunError(f"no run {run_id!r} in {folder}" + (f" (latest runs: {', '.join(known[-5:])})" if known else ""))
    if len(matches) > 1:
        raise CheckpointError(f"several runs match {run_id!r}: {', '.join(matches)}")
    return folder / matches[0]

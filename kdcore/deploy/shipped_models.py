"""The trained students that come with kdcore: weights, preprocessing and classes, each in a folder with its model card."""

from __future__ import annotations

import json
from pathlib import Path

import kdcore
from kdcore.errors import CheckpointError
from kdcore.suggestions import did_you_mean

CARD, DESCRIPTION = "README.md", "student.json"


def _folder() -> Path:
    return Path(kdcore.__file__).resolve().parent / "_models"


def list_models() -> dict[str, str]:
    """Names of the shipped models, such as ``utd-mhad/accelerometer``, with a line on what each classifies."""
    folder = _folder()
    files = {file.parent.relative_to(folder).as_posix(): file for file in folder.rglob(DESCRIPTION)}
    return {name: _summary(files[name]) for name in sorted(files)}


def find_model(name: str) -> Path:
    """The folder of a shipped model, for `kdcore.load_student`.

    Args:
        name: As in `list_models`.

    Raises:
        CheckpointError: If there is none of that name; the nearest one is named.
    """
    known = list_models()
    if name not in known:
        raise CheckpointError(f"there is no shipped model {name!r}; {did_you_mean(name, known, 'shipped are')}")
    return _folder() / name


def _summary(file: Path) -> str:
    description = json.loads(file.read_text(encoding="utf-8"))
    signals = " and ".join(each["name"] for each in description["modalities"])
    return f"{signals}, {len(description['classes'])} classes"

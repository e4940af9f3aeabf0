"""Reads weights files of kdcore, PyTorch and Hugging Face, without executing code."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from kdcore.contracts.dataset import SampleKey
from kdcore.contracts.target import Target, read_target
from kdcore.errors import CheckpointError
from kdcore.training.checkpoint import ABOUT, load_state, load_weights

WEIGHTS_IN_FOLDERS = (
    "model.safetensors.index.json",
    "model.safetensors",
    "weights.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
)
"""File names of weights in a folder, in search order: those of Hugging Face and of a saved student."""

DESCRIPTION = "student.json"
_COMPILED = "_orig_mod."

MOST_RECORDINGS = 100_000
"""Number of recordings up to which weights files list those that the network was trained on, so that the files stay small."""


@dataclass(frozen=True)
class WeightFile:
    """The content of a weights file or folder.

    Args:
        path: Path in the recipe.
        tensors: Name → tensor. Keys of nested mappings are joined by dots; ``_orig_mod.`` of compiled modules is removed.
        classes: Class names in the order of the head's outputs; empty if unknown.
        transforms: Transforms from the recipe of the run that wrote the file; empty if unknown.
        versions: Package → version of kdcore and its plugins that wrote the file; empty for other files.
        notes: Changes made while reading.
        modalities: Modality → units of the network's inputs; empty if unknown.
        target: Target that the network was trained for, with the statistics of values; None if unknown.
        dataset: Dataset that the network was trained on; empty if unknown.
        trained_on: Keys of the recordings that it, and the networks it learned from, were trained on; empty if unknown.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    classes: tuple[str, ...] = ()
    transforms: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    modalities: Mapping[str, str] = field(default_factory=dict)
    target: Target | None = None
    dataset: str = ""
    trained_on: frozenset[SampleKey] = frozenset()

    @property
    def statistics(self) -> dict[str, Tensor]:
        """Fitted preprocessing statistics, by their names in the batch transforms; empty if kdcore did not write the file."""
        prefix = "batch_transforms."
        if not self.versions or not all(name.startswith((prefix, "encoder.")) for name in self.tensors):
            return {}
        return {name.removeprefix(prefix): each for name, each in self.tensors.items() if name.startswith(prefix)}


def read_weight_file(path: Path) -> WeightFile:
    """Read a safetensors file, a PyTorch file that holds data only, or a folder with either.

    Args:
        path: A ``.safetensors`` file; a file with any other suffix, read by `torch.load` with ``weights_only=True``; a folder
            in Hugging Face's layout (one file, or shards with an index); or the folder of a saved student.

    Raises:
        CheckpointError: If it is missing or damaged, holds code or no tensors, or has a NaN or infinite weight.
    """
    file, notes = _inside(path) if path.is_dir() else path, []
    if file.name.endswith(".index.json"):
        tensors, about = _shards(file), {}
    elif file.suffix == ".safetensors":
        tensors, about = load_weights(file), _about(file)
    else:
        tensors, about = _from_pickle(file)
    if any(_COMPILED in name for name in tensors):
        tensors = {name.replace(_COMPILED, ""): each for name, each in tensors.items()}
        notes.append(f"removed {_COMPILED!r} of a compiled module")
    if not tensors:
        raise CheckpointError(f"{file}: holds no tensors")
    _refuse_infinite(file, tensors)
    if path.is_dir():
        about |= _description(path)
    versions = {"kdcore": str(about["kdcore"]), **about.get("plugins", {})} if about.get("kdcore") else {}
    classes = tuple(map(str, about.get("classes", ())))
    chains, target = about.get("transforms", {}), _target(file, about) if versions else None
    dataset, trained_on = _trained_on(file, about)
    return WeightFile(path, tensors, classes, chains, versions, tuple(notes), _modalities(about), target, dataset, trained_on)


def _target(file: Path, about: Mapping[str, Any]) -> Target:
    """The target that kdcore trained the network for."""
    try:
        return read_target(about.get("target"))
    except ValueError as error:
        raise CheckpointError(f"{file}: its metadata is damaged: target: {error}") from error


def recordings_as_json(dataset: str, keys: Iterable[SampleKey]) -> dict[str, Any]:
    """The recordings that a network was trained on, as a weights file stores them; none if more than `MOST_RECORDINGS`.

    Args:
        dataset: Name of the dataset.
        keys: Keys of the samples.
    """
    recordings = {replace(key, window=0) for key in keys}
    if len(recordings) > MOST_RECORDINGS:
        return {"dataset": dataset, "recordings": []}
    return {"dataset": dataset, "recordings": [_fields(key) for key in sorted(recordings, key=astuple)]}


def _fields(recording: SampleKey) -> list[str]:
    """The fields of a key without its window: subject, action, trial, and others up to the last one that is not empty."""
    fields = astuple(recording)[:-1]
    return list(fields[: max(number for number, field in enumerate(fields, 1) if field or number <= 3)])


def _trained_on(file: Path, about: Mapping[str, Any]) -> tuple[str, frozenset[SampleKey]]:
    """The dataset and the recordings that kdcore trained the network on; empty if unknown."""
    stored = about.get("trained_on", {"dataset": "", "recordings": []})
    try:
        return str(stored["dataset"]), frozenset(SampleKey(*key) for key in stored["recordings"])
    except (TypeError, KeyError) as error:
        raise CheckpointError(f"{file}: its metadata is damaged: trained_on: {error}") from error


def _modalities(about: Mapping[str, Any]) -> dict[str, str]:
    """Modality → units, of a saved student's description."""
    modalities = about.get("modalities")
    if not isinstance(modalities, list) or not all(isinstance(each, dict) for each in modalities):
        return {}
    return {str(each["name"]): str(each.get("units", "")) for each in modalities if "name" in each}


def _inside(folder: Path) -> Path:
    for name in WEIGHTS_IN_FOLDERS:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(f"{folder}: holds none of {', '.join(WEIGHTS_IN_FOLDERS)}")


def _description(folder: Path) -> Mapping[str, Any]:
    """The description of a saved student; empty for any other folder."""
    path = folder / DESCRIPTION
    if not path.is_file():
        return {}
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged: not JSON ({error})") from error
    return description if isinstance(description, dict) else {}


def _shards(index: Path) -> dict[str, Tensor]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index}: not an index of shards: {error}") from error
    tensors: dict[str, Tensor] = {}
    for name in names:
        if Path(name).name != name:  # an index must not make kdcore read files outside the folder
            raise CheckpointError(f"{index}: refused: the shard {name!r} is not a file next to it")
        shard = index.with_name(name)
        tensors |= load_weights(shard) if shard.suffix == ".safetensors" else _from_pickle(shard)[0]
    return tensors


def _about(file: Path) -> dict[str, Any]:
    """The metadata that kdcore writes into a safetensors file; empty for any other file."""
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
        about = json.loads(next((metadata[key] for key in ABOUT if key in metadata), "{}"))
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{file}: its metadata is damaged: {error}") from error
    return about if isinstance(about, dict) else {}


def _from_pickle(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a PyTorch file, and its class names under ``classes``, if it has them."""
    try:
        state = load_state(file)
    except CheckpointError as error:
        if "more than data" not in str(error):
            raise
        raise CheckpointError(
            f"{error}. Load it where you trust it, and save its tensors alone: torch.save(model.state_dict(), ...)"
        ) from error
    if not isinstance(state, Mapping):
        raise CheckpointError(f"{file}: holds {type(state).__name__}, not a mapping of names to tensors")
    classes = state.get("classes", ())
    named = isinstance(classes, Sequence) and not isinstance(classes, str) and all(isinstance(each, str) for each in classes)
    return dict(_flat(state)), {"classes": list(classes)} if named else {}


def _flat(values: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    for key, value in values.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{key}", value.detach()
        elif isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")


def _refuse_infinite(file: Path, tensors: Mapping[str, Tensor]) -> None:
    bad = [name for name, each in tensors.items() if each.is_floating_point() and not torch.isfinite(each).all()]
    if bad:
        count = int((~torch.isfinite(tensors[bad[0]])).sum())
        more = f", and in {len(bad) - 1} more tensors" if len(bad) > 1 else ""
        raise CheckpointError(f"{file}: {count} values of {bad[0]!r} are NaN or infinite{more}; these weights cannot be used")

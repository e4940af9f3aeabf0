"""A trained student as a folder: weights, preprocessing and classes, and nothing of what taught it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from kdcore.contracts.modality import Modality, Signal
from kdcore.contracts.transform import SampleTransform
from kdcore.errors import CheckpointError, DataError, PluginError
from kdcore.plugin.manager import PluginManager, plugin_manager
from kdcore.plugin.schema import make
from kdcore.training.checkpoint import load_weights, save_weights, write_file
from kdcore.training.columns import Span, as_array, cut, windows
from kdcore.training.pipeline import Branch, Pipeline, bare

FORMAT = 1
WEIGHTS, DESCRIPTION = "weights.safetensors", "student.json"


@dataclass
class Student:
    """A trained student, ready for raw signals.

    Args:
        branches: Per modality, how a recording becomes a tensor.
        model: Tensors of the branches → logits.
        description: What the folder says about it.
    """

    branches: list[Branch]
    model: nn.Module
    description: Mapping[str, Any]

    @property
    def classes(self) -> list[str]:
        """Class names, in the order of the probabilities."""
        return list(self.description["classes"])

    @property
    def modalities(self) -> list[str]:
        """What it reads, in order."""
        return [branch.modality.name for branch in self.branches]

    @torch.no_grad()
    def predict(self, signals: Mapping[str, Signal]) -> np.ndarray:
        """Class probabilities, (windows, classes); one window unless the student was trained on windows.

        Args:
            signals: Modality → recording.

        Raises:
            DataError: If a modality is absent or its recording unfit.
        """
        for name in self.modalities:
            if name not in signals:
                raise DataError(f"the student needs {name}; given: {', '.join(signals) or 'nothing'}")
        try:
            spans = self._spans([signals[name] for name in self.modalities])
            tensors = tuple(
                torch.from_numpy(_stacked(signals[branch.modality.name], spans, branch)) for branch in self.branches
            )
        except ValueError as error:
            raise DataError(str(error)) from error
        return self.model(bare(tensors)).softmax(-1).numpy()

    def _spans(self, signals: Sequence[Signal]) -> Sequence[Span | None]:
        window = self.description.get("window")
        if not window:
            return [None]
        spans = windows(signals, window["length"], window["hop"] or window["length"])
        if not spans:
            raise DataError(f"the recording is shorter than a window of {window['length']} s")
        return spans


def _stacked(signal: Signal, spans: Sequence[Span | None], branch: Branch) -> np.ndarray:
    return np.stack([as_array(cut(signal, span) if span else signal, branch) for span in spans])


class Model(nn.Module):
    """A student's transforms on batches and its encoder, as one module."""

    def __init__(self, live: nn.Module, encoder: nn.Module):
        super().__init__()
        self.live = live
        self.encoder = encoder

    def forward(self, signal: torch.Tensor | tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Logits (B, classes)."""
        return self.encoder(self.live(signal))


def save_student(folder: Path, pipeline: Pipeline, encoder: nn.Module, description: Mapping[str, Any]) -> Path:
    """Write a student's folder.

    Args:
        folder: Made if absent.
        pipeline: Its transforms, fitted.
        encoder: Its network.
        description: ``classes``, ``encoder``, ``transforms``, ``in_shape``, ``plugins`` …: what `load_student` needs.
    """
    weights = Model(pipeline.whole(), encoder).state_dict()
    modalities = [asdict(branch.modality) for branch in pipeline.branches]
    save_weights(folder / WEIGHTS, weights)
    write_file(
        folder / DESCRIPTION,
        json.dumps({"format": FORMAT, "modalities": modalities, **description}, indent=1, default=str).encode(),
    )
    return folder


def load_student(folder: Path, plugins: PluginManager | None = None) -> Student:
    """A saved student; needs the plugins of its own encoder and transforms, and no others.

    Raises:
        CheckpointError: If the folder holds no student, or a damaged one.
        PluginError: If a plugin it is made of is not installed.
    """
    try:
        description = json.loads((folder / DESCRIPTION).read_text())
        branches, model = _described(description, plugins or plugin_manager())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder}: no saved student: {type(error).__name__}: {error}") from error
    try:
        model.load_state_dict(load_weights(folder / WEIGHTS))
    except RuntimeError as error:
        raise CheckpointError(f"{folder / WEIGHTS}: does not fit the encoder that {DESCRIPTION} describes: {error}") from error
    return Student(branches, model.eval(), description)


def _described(description: Mapping[str, Any], plugins: PluginManager) -> tuple[list[Branch], Model]:
    transforms = description["transforms"]
    modalities = [Modality(**_tuples(each)) for each in description["modalities"]]
    branches = [_branch(modality, transforms[modality.name], plugins) for modality in modalities]
    trunk = [_component(plugins, "transform", spec) for spec in transforms.get("joined", [])]
    given = {"num_classes": len(description["classes"]), "in_shape": tuple(description["in_shape"])}
    encoder = _component(plugins, "encoder", description["encoder"], given)
    return branches, Model(Pipeline(branches, trunk).whole(), encoder)


def _branch(modality: Modality, specs: Sequence[Mapping[str, Any]], plugins: PluginManager) -> Branch:
    made = [_component(plugins, "transform", spec) for spec in specs]
    on_samples = [each for each in made if isinstance(each, SampleTransform)]
    return Branch(modality, on_samples, [each for each in made if not isinstance(each, SampleTransform)])


def _component(plugins: PluginManager, kind: str, spec: Mapping[str, Any], given: Mapping[str, Any] | None = None) -> Any:
    entry = plugins.registry.get(kind, str(spec["name"]))
    try:
        return make(entry, {key: value for key, value in spec.items() if key != "name"}, given)
    except Exception as error:
        raise PluginError(f"{kind} {spec['name']!r} of plugin {entry.plugin!r} cannot be made: {error}") from error


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}

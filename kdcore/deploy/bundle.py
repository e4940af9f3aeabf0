"""A trained student as a folder: weights, preprocessing and classes, and nothing of what taught it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from kdcore.contracts.modality import Modality
from kdcore.contracts.transform import Join, SampleTransform, concatenated, output_spec
from kdcore.data.pipeline import Branch, Pipeline
from kdcore.deploy.predictor import Ensemble, Model, Predictor, Rule, Student
from kdcore.errors import CheckpointError, PluginError, UnknownComponentError
from kdcore.plugin.manager import PluginManager, plugin_manager
from kdcore.plugin.option_schema import make
from kdcore.training.checkpoint import load_weights, save_weights, write_file

FORMAT = 1
WEIGHTS, DESCRIPTION = "weights.safetensors", "student.json"


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
    content = {"format": FORMAT, "modalities": modalities, "input": asdict(pipeline.spec), **description}
    write_file(folder / DESCRIPTION, json.dumps(content, indent=1, default=str).encode())
    return folder


def load_student(folder: Path, plugins: PluginManager | None = None) -> Student:
    """A saved student; needs the plugins of its own encoder and transforms, and no others.

    Raises:
        CheckpointError: If the folder holds no student, or a damaged one.
        PluginError: If a plugin it is made of is not installed.
    """
    try:
        description = json.loads((folder / DESCRIPTION).read_text())
        try:
            branches, model = _described(description, plugins or plugin_manager())
        except UnknownComponentError as error:
            used = ", ".join(f"{name} {version}" for name, version in description.get("plugins", {}).items())
            raise PluginError(
                f"{folder}: {error}; the run used the plugins {used}: install what is missing, or name a file with --plugin"
            ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder}: no saved student: {type(error).__name__}: {error}") from error
    try:
        model.load_state_dict(load_weights(folder / WEIGHTS))
    except RuntimeError as error:
        raise CheckpointError(f"{folder / WEIGHTS}: does not fit the encoder that {DESCRIPTION} describes: {error}") from error
    return Student(branches, model.eval(), description)


def load_predictor(folder: Path, rule: Rule = "average", plugins: PluginManager | None = None) -> Predictor:
    """A saved student, or the ensemble of all students that a folder holds, such as a seed's folder of a run.

    Args:
        folder: A student's folder, or one with several of them.
        rule: How an ensemble's probabilities are taken together.
        plugins: Who provides encoders and transforms; those that are installed by default.

    Raises:
        CheckpointError: If there is no student, or a damaged one.
        PluginError: If a plugin one is made of is not installed.
        DataError: If there is no such rule, or the students do not fit together.
    """
    inside = sorted(path.parent for path in folder.glob(f"*/{DESCRIPTION}"))
    if (folder / DESCRIPTION).exists() or not inside:
        return load_student(folder, plugins)
    members = {path.name: load_student(path, plugins) for path in inside}
    return Ensemble(members, rule) if len(members) > 1 else members[inside[0].name]


def _described(description: Mapping[str, Any], plugins: PluginManager) -> tuple[list[Branch], Model]:
    transforms = description["transforms"]
    modalities = [Modality(**_tuples(each)) for each in description["modalities"]]
    branches = [_branch(modality, transforms[modality.name], plugins) for modality in modalities]
    joined = tuple(branch.spec for branch in branches)
    pipeline = Pipeline(branches, _chain(transforms.get("joined", []), joined, plugins))
    shape = tuple(description["in_shape"])
    given = {"num_classes": len(description["classes"]), "in_shape": shape, "spec": pipeline.spec.matching(shape)}
    return branches, Model(pipeline.whole(), _component(plugins, "encoder", description["encoder"], given))


def _chain(specs: Sequence[Mapping[str, Any]], signals: tuple[Modality, ...], plugins: PluginManager) -> list[Any]:
    """Transforms in order, each told what its input is."""
    made, signal = [], concatenated(signals)
    for spec in specs:
        each = _component(plugins, "transform", spec, {"spec": signal})
        joins = isinstance(each, Join) and len(signals) > 1 and not made
        signal = each.output_spec(signals) if joins else output_spec(each, signal)
        made.append(each)
    return made


def _branch(modality: Modality, specs: Sequence[Mapping[str, Any]], plugins: PluginManager) -> Branch:
    made = _chain(specs, (modality,), plugins)
    on_samples = [each for each in made if isinstance(each, SampleTransform)]
    return Branch(modality, on_samples, [each for each in made if not isinstance(each, SampleTransform)])


def _component(plugins: PluginManager, kind: str, spec: Mapping[str, Any], given: Mapping[str, Any] | None = None) -> Any:
    entry = plugins.registry.get(kind, str(spec["name"]))
    try:
        return make(entry, {key: value for key, value in spec.items() if key != "name"}, given)
    except Exception as error:
        raise PluginError(f"could not construct {kind} {spec['name']!r} of plugin {entry.plugin!r}: {error}") from error


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _tuple(value) for key, value in values.items()}


def _tuple(value: Any) -> Any:
    return tuple(map(_tuple, value)) if isinstance(value, list) else value

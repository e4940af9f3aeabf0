"""Saved students: a folder with weights, preprocessing, classes and versions, and nothing of the teachers.

Loading one executes nothing but installed plugins: the description is JSON, the weights are safetensors. An encoder that is a
factory of another module is code that the folder names, so it is refused unless the caller trusts the folder. A folder that is
damaged, or whose two files contradict each other, is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, field_validator, model_validator
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from kdcore import __version__
from kdcore.contracts.modality import Modality
from kdcore.contracts.sample_transform import SampleTransform, output_spec
from kdcore.contracts.target import read_target
from kdcore.contracts.transform import Join, concatenated
from kdcore.data.branch import Branch
from kdcore.data.pipeline import Pipeline
from kdcore.deploy.predictor import Predictor
from kdcore.deploy.student import Ensemble, Model, Rule, Student
from kdcore.errors import CheckpointError, PluginError, UnknownComponentError, one_line
from kdcore.plugin.manager import PluginManager, plugin_manager
from kdcore.plugin.option_schema import is_path, make, options_model
from kdcore.training.checkpoint import write_file
from kdcore.trust import TRUST, trusts_code

FORMAT = 1
WEIGHTS, DESCRIPTION = "weights.safetensors", "student.json"
LARGEST_DESCRIPTION, LARGEST_WEIGHTS = 16 << 20, 16 << 30
"""Bytes above which a file is not read."""

AGREED = ("classes", "in_shape", "target")
"""Parts of the description that the weights file repeats."""

METADATA = "student"
"""Key of the weights file's metadata that has them, as JSON."""


class _Window(BaseModel):
    length: float = Field(gt=0)
    hop: float | None = Field(default=None, gt=0)


class _Component(BaseModel):
    model_config = ConfigDict(extra="allow")
    name: str = Field(min_length=1)


class _Description(BaseModel):
    """The parts of ``student.json`` that loading depends on."""

    model_config = ConfigDict(extra="allow")
    format: Literal[1]
    kdcore: str = ""
    plugins: dict[str, str] = {}
    classes: list[str] = Field(min_length=1)
    in_shape: list[PositiveInt] = Field(min_length=1)
    modalities: list[dict[str, Any]] = Field(min_length=1)
    encoder: _Component
    transforms: dict[str, list[_Component]]
    recorded: dict[str, dict[str, Any]] = {}
    window: _Window | None = None
    target: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _fitting(self) -> _Description:
        target = read_target(self.target)
        for numbers in (target.mean, target.units) if target.kind == "values" else ():
            if len(numbers) not in ((len(self.classes),) if numbers is target.mean else (0, len(self.classes))):
                raise ValueError(f"target: it has {len(self.classes)} values, but {len(numbers)} statistics or units")
        return self

    @field_validator("classes")
    @classmethod
    def _distinct(cls, value: list[str]) -> list[str]:
        if len(set(value)) < len(value):
            raise ValueError("two classes have the same name")
        return value


def save_student(folder: Path, pipeline: Pipeline, encoder: nn.Module, description: Mapping[str, Any]) -> Path:
    """Write a student's folder.

    The weights include fitted preprocessing statistics. Class names and input shape are written into both files, so that files
    of two students cannot be mixed up.

    Args:
        folder: Folder to write; created if missing.
        pipeline: The student's fitted transforms.
        encoder: The student's network.
        description: ``classes``, ``encoder``, ``transforms``, ``in_shape``, ``plugins`` …: what `load_student` needs.
    """
    weights = {name: each.detach().cpu().contiguous() for name, each in Model(pipeline.whole(), encoder).state_dict().items()}
    modalities = [asdict(branch.modality) for branch in pipeline.branches]
    content = {"format": FORMAT, "kdcore": __version__, "modalities": modalities, "input": asdict(pipeline.spec), **description}
    about = ("kdcore", *AGREED, "trained_on")  # the last one for runs that are given this file alone as `weights`
    agreed = json.dumps({key: content[key] for key in about if key in content}, default=list)
    metadata = {METADATA: agreed}  # a single key: safetensors writes several in any order, and equal students are equal files
    write_file(folder / WEIGHTS, save_tensors({name: each.clone() for name, each in weights.items()}, metadata))
    write_file(folder / DESCRIPTION, json.dumps(content, indent=1, default=str).encode())
    return folder


def load_student(folder: str | Path, plugins: PluginManager | None = None, *, trust_code: bool = False) -> Student:
    """Load a saved student; the plugins of its encoder and transforms must be installed, and no others.

    Args:
        folder: Such as ``kdcore-runs/RUN/students/seed-0/student``, or a copy of it.
        plugins: Plugins to take encoders and transforms from; the installed ones by default.
        trust_code: Import the module of an encoder that is written ``package.module:factory``. It runs code that the folder
            chooses, so do this only with folders of people you trust. ``KDCORE_TRUST_CODE=1`` in the environment does the same.

    Returns:
        A `torch.nn.Module` in evaluation mode with ``predict`` and ``preprocess``.

    Raises:
        CheckpointError: If the folder holds no student, or a damaged one, or description and weights disagree.
        PluginError: If a plugin it needs is not installed, or its encoder is code that is not trusted.

    Example:
        >>> import kdcore
        >>> student = kdcore.load_student("student")
        >>> student.classes
        ['sit', 'stand', 'walk']
        >>> student.training
        False
    """
    folder = Path(folder)
    description, checked = _read_description(folder)
    if not (trust_code or trusts_code()):
        _refuse_factories(folder, description)
    weights, metadata = _read_weights(folder)
    for key in AGREED:
        if metadata and metadata.get(key) != description.get(key):
            raise CheckpointError(
                f"{folder}: {DESCRIPTION} and {WEIGHTS} disagree about {key}; they belong to different students"
            )
    try:
        with torch.random.fork_rng(devices=[]):  # making a network draws random numbers; loading one must not
            branches, model = _build(description, plugins or plugin_manager(), weights)
    except UnknownComponentError as error:
        used = ", ".join(f"{name} {version}" for name, version in checked.plugins.items())
        raise PluginError(
            f"{folder}: {error}; the run used the plugins {used}: install what is missing, or name a file with --plugin"
        ) from error
    except _MismatchError as error:
        raise CheckpointError(f"{folder / WEIGHTS}: does not fit the encoder that {DESCRIPTION} describes: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{folder / DESCRIPTION}: damaged: {one_line(error)}") from error
    return Student(branches, model.eval(), description)


def load_predictor(
    folder: str | Path, rule: Rule = "average", plugins: PluginManager | None = None, *, trust_code: bool = False
) -> Predictor:
    """Load a saved student, or all students of a folder as an ensemble, such as those of a run's seed.

    A student from which another one there starts is an earlier phase of that one, and no member of the ensemble.

    Args:
        folder: A student's folder, or one with several of them.
        rule: ``average`` or ``max`` of the students' probabilities, for an ensemble.
        plugins: Plugins to take encoders and transforms from; the installed ones by default.
        trust_code: As for `load_student`.

    Raises:
        CheckpointError: If there is no student, or a damaged one.
        PluginError: If a plugin one needs is not installed.
        DataError: If there is no such rule, or the students do not fit together.
    """
    folder = Path(folder)
    inside = member_folders(folder)
    if (folder / DESCRIPTION).exists() or not inside:
        return load_student(folder, plugins, trust_code=trust_code)
    members = {path.name: load_student(path, plugins, trust_code=trust_code) for path in inside}
    return Ensemble(members, rule) if len(members) > 1 else members[inside[0].name]


def member_folders(folder: Path) -> list[Path]:
    """The students' folders in `folder`, without those of students from which another one there starts."""
    inside = {path.parent.name: path.parent for path in sorted(folder.glob(f"*/{DESCRIPTION}"))}
    return [path for path in inside.values() if len(inside) < 2 or not _continued_by(path) & set(inside)]


def _continued_by(folder: Path) -> set[str]:
    """Names of the students that start from the weights of this one."""
    try:
        return set(json.loads(_content(folder, DESCRIPTION, LARGEST_DESCRIPTION)).get("continued_by", ()))
    except (CheckpointError, ValueError, AttributeError, TypeError):  # `load_student` reports what is wrong
        return set()


def _refuse_factories(folder: Path, description: Mapping[str, Any]) -> None:
    """Refuse to import a module because a file says so; plugins are installed by the user, and this is not."""
    named = str(description["encoder"]["name"])
    if ":" in named:
        raise PluginError(
            f"{folder}: its encoder is {named!r}, which is not from a plugin; if you trust the source of this student, load it "
            f"with trust_code=True, or set {TRUST}=1"
        )


def _content(folder: Path, name: str, limit: int) -> bytes:
    """A file of the folder, not of any other place, and not larger than `limit`."""
    path = folder / name
    try:
        if not path.resolve(strict=True).is_relative_to(folder.resolve()):
            raise CheckpointError(f"{path}: refused: it is a link to a file outside the folder")
        if not path.is_file():
            raise CheckpointError(f"{path}: not a file")
        if (size := path.stat().st_size) > limit:
            raise CheckpointError(f"{path}: refused: {size:,} bytes, more than the limit of {limit:,}")
        return path.read_bytes()
    except (OSError, RuntimeError) as error:
        if not folder.exists():
            hint = "kdcore.find_student finds the student of a run"
            raise CheckpointError(f"{folder}: no such folder ({hint})") from error
        if name == DESCRIPTION and not path.exists():
            inside = "".join(f"; it holds {each}" for each in _students_below(folder))
            raise CheckpointError(f"{folder}: holds no saved student: there is no {DESCRIPTION}{inside}") from error
        raise CheckpointError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _students_below(folder: Path) -> Iterator[Path]:
    """The first student in a folder of several, or in a run's folder."""
    patterns = [f"{each}/{DESCRIPTION}" for each in ("*", "*/*", "students/*/*")]
    yield from sorted(path.parent for pattern in patterns for path in folder.glob(pattern))[:1]


def _read_description(folder: Path) -> tuple[dict[str, Any], _Description]:
    path = folder / DESCRIPTION
    content = _content(folder, DESCRIPTION, LARGEST_DESCRIPTION)
    try:
        description = json.loads(content)
        if isinstance(description, dict) and isinstance(number := description.get("format"), int) and number > FORMAT:
            raise CheckpointError(f"{path}: written by kdcore {description.get('kdcore', '?')}, which is newer than this one")
        return description, _Description.model_validate(description)
    except ValidationError as error:
        first, *others = error.errors(include_url=False)
        where = ".".join(map(str, first["loc"]))
        more = f" (and {len(others)} more)" if others else ""
        problem = f"{where}: {first['msg']}" if where else first["msg"]
        raise CheckpointError(f"{path}: not the description of a student: {problem}{more}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged: not JSON ({one_line(error)})") from error


def _read_weights(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    path = folder / WEIGHTS
    content = _content(folder, WEIGHTS, LARGEST_WEIGHTS)
    try:
        weights = load_tensors(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        metadata = json.loads(header.get("__metadata__", {}).get(METADATA, "{}"))
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file: {error}") from error
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise CheckpointError(f"{path}: damaged: {name} has values that are not finite")
    return weights, metadata


class _MismatchError(Exception):
    """Weights that are not those of the described encoder."""


def _build(description: Mapping[str, Any], plugins: PluginManager, weights: Mapping[str, Tensor]) -> tuple[list[Branch], Model]:
    transforms = description["transforms"]
    modalities = [Modality(**{key: _tuple(value) for key, value in each.items()}) for each in description["modalities"]]
    branches = [_branch(modality, transforms[modality.name], plugins) for modality in modalities]
    joined = tuple(branch.spec for branch in branches)
    pipeline = Pipeline(branches, _chain(transforms.get("joined", []), joined, plugins))
    shape = tuple(description["in_shape"])
    given = {"num_classes": len(description["classes"]), "in_shape": shape, "spec": pipeline.spec.matching(shape)}
    if (embeddings := weights.get("encoder.class_embeddings")) is not None:
        given["class_embeddings"] = embeddings
    plugins.registry.get("encoder", str(description["encoder"]["name"]))
    _refuse_other_shapes(description["encoder"], plugins, given, weights)
    model = Model(pipeline.whole(), _component(plugins, "encoder", description["encoder"], given))
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise _MismatchError(one_line(error)) from error
    return branches, model


def _refuse_other_shapes(
    spec: Mapping[str, Any], plugins: PluginManager, given: Mapping[str, Any], weights: Mapping[str, Tensor]
) -> None:
    """Compare the encoder's shapes with the weights' before any memory is taken: a description may ask for terabytes."""
    try:
        with torch.device("meta"):
            shapes = {
                f"encoder.{name}": each.shape for name, each in _component(plugins, "encoder", spec, given).state_dict().items()
            }
    except Exception:
        return  # an encoder that cannot be built without memory; what is wrong with it, building it tells
    for name in (*shapes, *(each for each in weights if each.startswith("encoder."))):
        here, saved = shapes.get(name), weights[name].shape if name in weights else None
        if here != saved:
            shown = ["nothing" if shape is None else tuple(shape) for shape in (here, saved)]
            raise _MismatchError(f"{name} is {shown[0]} there and {shown[1]} in the file")


def _chain(specs: Sequence[Mapping[str, Any]], signals: tuple[Modality, ...], plugins: PluginManager) -> list[Any]:
    """Transforms in order, each told what its input is."""
    made, signal = [], concatenated(signals)
    for spec in specs:
        each = _component(plugins, "transform", spec, {"spec": signal})
        joins = isinstance(each, Join) and len(signals) > 1 and not made
        signal = each.output_spec(signals) if joins else output_spec(signal, each)
        made.append(each)
    return made


def _branch(modality: Modality, specs: Sequence[Mapping[str, Any]], plugins: PluginManager) -> Branch:
    made = _chain(specs, (modality,), plugins)
    on_samples = [each for each in made if isinstance(each, SampleTransform)]
    return Branch(modality, on_samples, [each for each in made if not isinstance(each, SampleTransform)])


def _component(plugins: PluginManager, kind: str, spec: Mapping[str, Any], given: Mapping[str, Any] | None = None) -> Any:
    entry = plugins.registry.get(kind, str(spec["name"]))
    try:
        fields = options_model(entry).model_fields
        options = {key: value for key, value in spec.items() if key != "name"}
        for key in [each for each in options if each in fields and options[each] and is_path(fields[each].annotation)]:
            if fields[key].is_required() or kind != "encoder":
                raise ValueError(f"option {key!r} names a file outside the student's folder")
            del options[key]  # where the first weights came from; the saved ones replace them
        if kind == "encoder" and "pretrained" in fields and not fields["pretrained"].is_required():
            options.pop("pretrained", None)  # likewise; nothing is downloaded to be overwritten
        return make(entry, options, given)
    except Exception as error:
        raise PluginError(f"could not construct {entry.described}: {_said(error)}") from error


def _said(error: Exception) -> str:
    """The text of an error in a line; of wrong options, the first."""
    if not isinstance(error, ValidationError):
        return one_line(error)
    first = error.errors(include_url=False)[0]
    option = ".".join(map(str, first["loc"]))
    return f"it has no option {option!r}" if first["type"] == "extra_forbidden" else f"option {option!r}: {first['msg']}"


def _tuple(value: Any) -> Any:
    return tuple(map(_tuple, value)) if isinstance(value, list) else value

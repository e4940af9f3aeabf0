"""The recipe: its keys, and their defaults."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, MinLen
from pydantic import AfterValidator, Field, PrivateAttr, ValidationError, ValidationInfo, field_validator, model_validator

from kdcore.contracts.needs import Needs
from kdcore.contracts.training import Training
from kdcore.errors import Problem, RecipeError
from kdcore.plugin.facts import component_facts
from kdcore.plugin.files import with_fingerprints
from kdcore.plugin.manager import plugin_manager
from kdcore.plugin.option_schema import filled_options
from kdcore.plugin.registry import FROM_PYTHON, Registry
from kdcore.recipe.components import JOINED, components, split
from kdcore.recipe.config_models import (
    Component,
    EngineSpec,
    ParticipantSpec,
    Section,
    Term,
    Terms,
    TrackingSpec,
    wrong,
)
from kdcore.recipe.data_models import DataSpec, WindowSpec
from kdcore.recipe.problems import Places, found_by_schema
from kdcore.recipe.python_values import node_of
from kdcore.recipe.reserved_names import is_module_attribute
from kdcore.recipe.yaml import Location, Steps, dump, place_of, steps

__all__ = [
    "DEFAULT_TEACHER_LOSSES",
    "Component",
    "DataSpec",
    "EngineSpec",
    "ParticipantSpec",
    "Recipe",
    "Term",
    "TrackingSpec",
    "WindowSpec",
]

DEFAULT_TEACHER_LOSSES = ["cross-entropy"]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")

LONGEST_NAME = 100
"""Bytes of a name; files and folders are called after it, with a date, a hash or a suffix."""


def _name(name: str) -> str:
    if not _NAME.fullmatch(name) or name in (JOINED, "fusion"):
        raise wrong(
            f"{name!r} is not a valid name for a participant: use letters, digits, - and _, and start with a letter "
            f"({JOINED!r} and 'fusion' are reserved)"
        )
    if is_module_attribute(name):
        raise wrong(f"{name!r} is not a valid name for a participant: it is an attribute of torch.nn.ModuleDict")
    return _not_too_long(name)


def _not_too_long(name: str) -> str:
    if len(name.encode()) > LONGEST_NAME:
        raise wrong(f"{name!r} is too long: files are called after it, so use at most {LONGEST_NAME} bytes")
    return name


def _run_name(name: str) -> str:
    if name.startswith(".") or not name.isprintable() or set(name) & set("/\\"):
        raise wrong(f"{name!r} is not a valid name for a run, which becomes a folder: do not use / or \\, or a leading dot")
    return _not_too_long(name)


def _own_name(name: str, info: ValidationInfo, at: Steps = ()) -> None:
    if name in info.data.get("teachers", ()):
        raise wrong(f"{name!r} is also the name of a teacher; participant names must be unique", at, ("teachers", name))


class _CheckedWhenCalled(type(Section)):
    """Lets ``Recipe(…)`` parse its arguments like a file, with the same errors."""

    def __call__(cls, **values: Any) -> Any:
        tree = node_of(values).plain()
        if isinstance(tree.get("data"), dict):
            tree["data"].setdefault("dataset", FROM_PYTHON)
        try:
            return cls.model_validate_json(json.dumps(tree))  # type: ignore[attr-defined]
        except ValidationError as error:
            raise RecipeError(found_by_schema(error, tree, Places({}), cls, also=("extends",))) from error  # type: ignore[arg-type]


_Participants = dict[Annotated[str, AfterValidator(_name)], ParticipantSpec]


class Recipe(Section, metaclass=_CheckedWhenCalled):
    """The declaration of an experiment.

    `kdcore.load_recipe` reads one from a file or a dictionary and checks all of it. ``Recipe(version=1, …)`` checks keys and
    values; components are checked when the recipe is run, or by `kdcore.load_recipe`. Without ``data["dataset"]``, pass the
    dataset to `kdcore.run`.

    Raises:
        RecipeError: If a key or a value is wrong; lists all problems.
    """

    version: Literal[1]
    name: Annotated[str, MinLen(1), AfterValidator(_run_name)]
    description: str = ""
    plugins: list[str] = Field(default_factory=list)
    """Required plugins: names of installed plugins, or ``.py`` files in the recipe's folder."""
    data: DataSpec
    teachers: _Participants = Field(default_factory=dict)
    fusion: Component | None = None
    student: ParticipantSpec | None = None
    students: _Participants = Field(default_factory=dict, validate_default=True)
    """Name → student, for several students instead of `student`."""
    class_embeddings: Component | None = None
    losses: Terms = Field(default_factory=list)
    """Objective of students without their own `losses`."""
    teacher_losses: Terms = Field(default_factory=lambda: [Term(name=name, id=name) for name in DEFAULT_TEACHER_LOSSES])
    """Objective of teachers without their own `losses`."""
    schedule: Component | None = None
    """Schedule of the training; by default each participant is trained after its sources."""
    training: Training = Training()
    """Training options of participants without their own, under the default schedule."""
    baseline: bool = True
    """Also train the same students without distillation, for comparison."""
    seeds: Annotated[list[Annotated[int, Ge(0)]], MinLen(1)] = Field(default_factory=lambda: [0])
    tracking: TrackingSpec = Field(default_factory=TrackingSpec)
    engine: EngineSpec = Field(default_factory=EngineSpec)

    NO_CONFIGURATION: ClassVar = ("description", "tracking", "name", "seeds", "baseline")
    """Keys by which runs of one configuration may differ."""

    _places: dict[Steps, Location] = PrivateAttr(default_factory=dict)
    _registry: Registry | None = PrivateAttr(default=None)
    _needs: dict[str, Needs | None] = PrivateAttr(default_factory=dict)
    _objects: Mapping[str, Any] = PrivateAttr(default_factory=dict)

    @field_validator("student")
    @classmethod
    def _named(cls, student: ParticipantSpec | None, info: ValidationInfo) -> ParticipantSpec | None:
        if student is not None:
            _own_name("student", info)
        return student

    @field_validator("students")
    @classmethod
    def _either(cls, students: dict[str, ParticipantSpec], info: ValidationInfo) -> dict[str, ParticipantSpec]:
        if "student" in info.data:
            single = info.data["student"] is not None
            if single and students:
                raise wrong("give either 'student' or 'students', not both")
            if not single and not students:
                raise wrong("there is no student: give 'student', or several 'students'")
        for name in students:
            _own_name(name, info, (name,))
        return students

    @field_validator("seeds")
    @classmethod
    def _unique(cls, seeds: list[int]) -> list[int]:
        for index, seed in enumerate(seeds):
            if seed in seeds[:index]:
                raise wrong(f"the seed {seed} is given twice", (index,))
        return seeds

    @model_validator(mode="after")
    def _name_the_experiment(self) -> Recipe:
        if self.tracking.experiment is None:
            self.tracking = self.tracking.model_copy(update={"experiment": self.name})
        return self

    @property
    def student_specs(self) -> dict[str, ParticipantSpec]:
        """The students by name; a single one is called ``student``."""
        return {"student": self.student} if self.student is not None else dict(self.students)

    @property
    def modalities(self) -> list[str]:
        """Every modality that a participant reads, sorted."""
        return _modalities(self.participants)

    @property
    def student_modalities(self) -> list[str]:
        """Every modality that a student reads, sorted."""
        return _modalities(self.student_specs)

    @property
    def required_modalities(self) -> list[frozenset[str]]:
        """Sets of modalities; a sample must have one of them: with ``data.missing: mask`` those of a student, else all."""
        if self.data.missing != "mask":
            return [frozenset(self.modalities)]
        return [each for spec in self.student_specs.values() for each in spec.accepted] or [frozenset()]

    @property
    def specs(self) -> dict[str, ParticipantSpec]:
        """Teachers, then students, by name, as they are written."""
        return {**self.teachers, **self.student_specs}

    @property
    def participants(self) -> dict[str, ParticipantSpec]:
        """Teachers, then students, by name; a moving average reads what the participant that it follows reads."""
        specs = self.specs
        participants = dict(specs)
        for name, spec in specs.items():
            if followed := specs.get(spec.follows or ""):
                shared = {key: getattr(followed, key) for key in ("modality", "transforms", "fill_missing", "encoder", "taps")}
                participants[name] = spec.model_copy(update=shared)
        return participants

    def path_of(self, name: str) -> str:
        """The path of participant `name` in the recipe."""
        if name in self.teachers:
            return f"teachers.{name}"
        return "student" if self.student is not None else f"students.{name}"

    def terms_of(self, name: str) -> tuple[str, list[Term]]:
        """The path of the objective of participant `name` in the recipe, and its terms."""
        own = self.specs[name].losses
        if own is not None:
            return f"{self.path_of(name)}.losses", own
        return ("teacher_losses", self.teacher_losses) if name in self.teachers else ("losses", self.losses)

    def term_paths(self, name: str) -> list[str]:
        """The path of each term in the objective of participant `name`."""
        path, terms = self.terms_of(name)
        return [f"{path}[{index}]" for index in range(len(terms))]

    @property
    def is_checked(self) -> bool:
        """True if `kdcore.load_recipe` has checked it against the plugins."""
        return self._registry is not None

    @property
    def given_dataset(self) -> Any:
        """The `kdcore.Dataset` that was passed as an object in Python; None if the recipe names its dataset."""
        return self.given("data.dataset")

    def given(self, path: str) -> Any:
        """The object that was passed in Python in place of the component at `path`; None if the recipe names one."""
        return self._objects.get(path)

    @property
    def registry(self) -> Registry:
        """The registry that provides its components."""
        return self._registry or plugin_manager().registry

    @property
    def filled_data(self) -> DataSpec:
        """The data section with every default of the dataset's options, which are part of the data's identity, written out."""
        dataset = self.data.dataset
        options = filled_options(self.registry.get("dataset", dataset.name), dataset.options)
        return self.data.model_copy(update={"dataset": Component(name=dataset.name, options=options)})

    def components(self) -> Iterator[tuple[str, Component]]:
        """(kind, component) of every component it uses."""
        for _, kind, written in components(self.model_dump(mode="json")):
            name, options = split(kind, written) or ("", {})
            yield kind, Component(name=name, options=options)

    def filled(self) -> dict[str, Any]:
        """The recipe as plain values, with all defaults filled in, including those of components' options.

        Loading the result gives an equal recipe.

        Raises:
            PluginError: If a component is unknown or broken.
        """
        tree = self.model_dump(mode="json")
        for _, kind, written in components(tree):
            name, options = split(kind, written) or ("", {})
            written.update(filled_options(self.registry.get(kind, name), options))
        return tree

    def to_yaml(self) -> str:
        """`filled` as a file that can be run."""
        return dump(self.filled())

    @property
    def hash(self) -> str:
        """SHA-256 of the filled recipe without description and tracking, independent of the order of keys."""
        return self.digest(self.filled(), "description", "tracking")

    @property
    def variant(self) -> str:
        """Like `hash`, but without name, seeds and baseline: equal for runs of one configuration."""
        return self.digest(self.filled(), *self.NO_CONFIGURATION)

    def digest(self, filled: Mapping[str, Any], *without: str) -> str:
        """SHA-256 of a filled recipe and of its plugin files, without some of its keys."""
        content = {key: value for key, value in filled.items() if key not in without}
        content["plugins"] = with_fingerprints(self.plugins)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def needs_of(self, path: str) -> Needs | None:
        """The needs of the loss of the term at `path`; None if the term has no loss.

        Raises:
            PluginError: If the loss is unknown or broken.
        """
        if (given := self.given(path)) is not None:
            return given.needs
        if path not in self._needs:
            term = self._term_at(path)
            self._needs[path] = component_facts(self.registry.get("loss", term.name), term.options).needs
        return self._needs[path]

    def _term_at(self, path: str) -> Term:
        holder, _, index = path.rpartition("[")
        lists = dict(map(self.terms_of, self.participants))
        return lists[holder][int(index.rstrip("]"))]

    def locate(self, path: str) -> tuple[Path, int] | None:
        """File and line of a path such as ``losses[2].temperature``, or of its section; None if it was set elsewhere."""
        file, line = place_of(self._places, steps(path))
        return (file, line) if file and line else None

    def problem(self, path: str, message: str, hint: str = "") -> Problem:
        """A problem at `path`, with file and line."""
        file, line = self.locate(path) or (None, None)
        return Problem(path, message, file, line, hint)


def _modalities(specs: Mapping[str, ParticipantSpec]) -> list[str]:
    return sorted({modality for spec in specs.values() for modality in spec.modalities})

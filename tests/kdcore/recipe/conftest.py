"""A small plugin of the tests' own, so that they depend on no shipped one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Gt
from torch import nn

from kdcore import (
    Dataset,
    DistillationLoss,
    Graph,
    Modality,
    Needs,
    Protocol,
    Ramp,
    SampleTransform,
    Schedule,
    Stage,
    Training,
    hookimpl,
)
from kdcore.errors import DataError, PluginError, Problem, RecipeError
from kdcore.plugin.manager import Plugin, PluginManager
from kdcore.recipe.load import load_recipe
from kdcore.recipe.models import Recipe

VALID = """\
version: 1
name: valid
data:
  dataset: {name: folder, root: /nowhere}
  protocol: halves
teachers:
  acc:
    modality: accelerometer
    transforms:
      - {name: cut, length: 64}
    encoder: {name: net, width: 8}
    taps: {block: layers.0}
  gyro: {like: acc, modality: gyroscope}
student:
  modality: skeleton
  encoder: net
  taps: [layers.1]
losses:
  - cross-entropy
  - {name: soft-target, weight: 0.5, temperature: 2}
  - {name: feature, id: late, teacher: block, student: layers.1}
schedule: {name: one-stage, training: {epochs: 3}}
seeds: [0, 1]
"""


class Folder(Dataset):
    def __init__(self, *, root: Path, kind: Literal["small", "large"] = "small", fail: bool = False):
        if fail:
            raise OSError("no disk")
        self.root, self.classes = root, ("a", "b")
        self.modalities = {
            name: Modality(name, ("time", "channel"), ("channel", "time"), "1")
            for name in ("accelerometer", "gyroscope", "skeleton")
        }

    samples = read = None  # type: ignore[assignment]


class Declared(Folder):
    modalities = {"skeleton": Modality("skeleton", ("time", "channel"), ("channel", "time"), "1")}  # noqa: RUF012

    def __init__(self, *, actions: list[str]):
        raise DataError(f"no action {actions[0]!r} (known: wave)")


class Halves(Protocol):
    split = None  # type: ignore[assignment]


class Cut(SampleTransform):
    def __init__(self, *, length: Annotated[int, Ge(1)], at: Literal["start", "end"] = "start"):
        self.length = length

    __call__ = None  # type: ignore[assignment]


class Net(nn.Module):
    def __init__(self, num_classes: int, in_shape: tuple[int, ...], *, width: int = 4, dropout: float | None = 0.5):
        raise AssertionError("loading a recipe builds no network")


class CrossEntropy(DistillationLoss):
    needs = Needs(labels=True)


class SoftTarget(DistillationLoss):
    needs = Needs(teachers=1)

    def __init__(self, *, temperature: Annotated[float, Gt(0)] | Ramp = 4.0):
        super().__init__()


class Feature(DistillationLoss):
    def __init__(self, *, teacher: str, student: str):
        super().__init__()
        if teacher == "":
            raise ValueError("name a tap")
        self.needs = Needs(teachers=1, teacher_taps=(teacher,), student_taps=(student,))


class Mutual(DistillationLoss):
    needs = Needs(peers=1)


class Meaning(DistillationLoss):
    needs = Needs(class_embeddings=True)


class OneStage(Schedule):
    def __init__(self, *, training: Training = Training(), whatever: Any = None):  # noqa: B008 - frozen
        self.training = training

    def stages(self, graph: Graph) -> Iterator[Stage]:
        if graph.teachers:
            yield Stage("teachers", graph.teachers, self.training, self.training.epochs, "teacher")
        yield Stage("students", graph.students, self.training, self.training.epochs)


class Fixed(Schedule):
    """Gives the stages that it is told."""

    def __init__(self, *, given: list[Any]):
        self.given = given

    def stages(self, graph: Graph) -> Iterator[Stage]:
        for each in self.given:
            optimizer = {"name": each.get("optimizer", "adamw")}
            training = Training(each.get("total", 4), optimizer)
            learners = tuple(each["learners"])
            yield Stage(each["name"], learners, training, each.get("epochs", training.epochs), each.get("split", "train"))


class Doubled(Schedule):
    """The recipe's training, for twice as many epochs."""

    def stages(self, graph: Graph) -> Iterator[Stage]:
        training = replace(graph.training, epochs=2 * graph.training.epochs)
        for group in graph.groups():
            yield Stage("+".join(group), group, training, training.epochs)


def _plugin(**components: dict[str, str]) -> ModuleType:
    def hook(names: dict[str, str]) -> Callable:
        def announce(register: Callable[[str, str], None]) -> None:
            for name, target in names.items():
                register(name, f"{__name__}:{target}")

        return hookimpl(announce)

    module = ModuleType("fake")
    for plural, names in components.items():
        setattr(module, f"register_{plural}", hook(names))
    return module


@pytest.fixture(scope="session")
def plugins() -> PluginManager:
    manager = PluginManager(points=[])
    fake = _plugin(
        datasets={"folder": "Folder", "declared": "Declared"},
        protocols={"halves": "Halves"},
        transforms={"cut": "Cut"},
        encoders={"net": "Net"},
        losses={
            "cross-entropy": "CrossEntropy",
            "soft-target": "SoftTarget",
            "feature": "Feature",
            "mutual": "Mutual",
            "meaning": "Meaning",
            "lost": "Gone",
        },
        schedules={"one-stage": "OneStage", "fixed": "Fixed", "doubled": "Doubled"},
    )
    manager.register("fake", fake)
    manager.plugins["torn"] = Plugin(
        "torn", "torn-dist", "1", "torn", failure="ImportError: no module 'tears'", cause=PluginError()
    )
    return manager


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a recipe's file."""

    def write(text: str, name: str = "recipe.yaml") -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return file

    return write


@pytest.fixture
def load(write: Callable[..., Path], plugins: PluginManager) -> Callable[..., Recipe]:
    """Loads a recipe's text."""
    return lambda text=VALID, *overrides, name="recipe.yaml": load_recipe(write(text, name), overrides, plugins)


@pytest.fixture
def problems(load: Callable[..., Recipe]) -> Callable[..., list[Problem]]:
    """All that is found wrong with a recipe's text."""

    def problems(text: str, *overrides: str) -> list[Problem]:
        with pytest.raises(RecipeError) as caught:
            load(text, *overrides)
        return list(caught.value.problems)

    return problems


@pytest.fixture
def valid() -> str:
    """The text of a recipe that has nothing wrong."""
    return VALID

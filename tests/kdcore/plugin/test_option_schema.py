"""Schemas of options, read off constructors."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import torch
from annotated_types import Ge, Gt, Le
from pydantic import ValidationError
from torch import nn

from kdcore import DistillationLoss, Modality, Ramp, Training
from kdcore.errors import PluginError
from kdcore.plugin.manager import plugin_manager
from kdcore.plugin.option_schema import describe, options_model
from kdcore.plugin.registry import Entry


class Soft(DistillationLoss):
    """Matches softened answers,
    as a whole.

    More about it.

    Args:
        temperature: Softness of the
            answers, in nats.
        pairs: What to pair
            and how.
        mode (str): Which way: forth or back.

    Raises:
        ValueError: Never; this is no option.
    """

    def __init__(
        self,
        *,
        temperature: Annotated[float, Gt(0)] | Ramp = 4,
        pairs: list[tuple[str, str]] = (),  # type: ignore[assignment]
        mode: Literal["forth", "back"] = "forth",
        **rest: Any,
    ):
        super().__init__()


class Child(Soft):
    """Has its parent's constructor."""


class Encoder(nn.Module):
    """Reads things."""

    def __init__(
        self,
        num_classes: int,
        in_shape: tuple[int, ...],
        width: Annotated[int, Ge(1), Le(64)] = 8,
        *,
        weights: Path | None = None,
    ):
        """Make it.

        Args:
            num_classes: Given.
            in_shape: Given.
            width: Channels.
            weights: File.
        """
        super().__init__()


class Bare(DistillationLoss):
    pass


class Passing(nn.Module):
    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__()


class Base(ABC):
    """A base class whose text is not its children's."""

    @abstractmethod
    def do(self) -> None: ...


class Plain(Base):
    def do(self) -> None: ...


@dataclass
class Settings:
    root: Path
    training: Training = field(default_factory=Training)
    tags: list[str] = field(default_factory=list)


class Loose:
    def __init__(
        self,
        a,
        b=3,
        copy: bool = False,
        c: int = None,  # noqa: RUF013
        act: Callable = torch.relu,
        seed: torch.Generator | None = None,
    ):
        pass


class Unresolved:
    def __init__(self, x: NoSuchType):  # noqa: F821
        pass


class WrongDefault:
    def __init__(self, x: int = "three"):  # type: ignore[assignment]
        pass


class PositionalOnly:
    def __init__(self, x: int, /):
        pass


class Underscore:
    def __init__(self, _x: int = 1):
        pass


class Named:
    def __init__(self, name: str):
        pass


class Weighted(DistillationLoss):
    def __init__(self, weight: float = 1.0):
        super().__init__()


def factory(size: int = 3) -> nn.Module:
    """Makes a module.

    Args:
        size: How large.
    """
    return nn.Linear(size, size)


light = Modality(
    "light", ("time", "channel"), ("channel", "time"), "lux", rate=10.0, channels=("a", "b"), description="brightness"
)


def entry(component: str, kind: str = "loss", plugin: str = "mine") -> Entry:
    return Entry(kind, component.lower(), plugin, f"{__name__}:{component}")


def test_options_of_a_constructor():
    model = options_model(entry("Soft"))
    assert set(model.model_fields) == {"temperature", "pairs", "mode"}
    options = model.model_validate_json(
        '{"temperature": {"start": 1, "stop": 2, "epochs": 3}, "pairs": [["a", "b"]]}', strict=True
    )
    assert dict(options) == {"temperature": Ramp(1.0, 2.0, 3), "pairs": [("a", "b")], "mode": "forth"}


@pytest.mark.parametrize(
    "options",
    [
        {"temprature": 1},
        {"temperature": 0},
        {"mode": "sideways"},
        {"temperature": {"start": 1}},
        {"rest": 1},
        {"pairs": [["a"]]},
    ],
)
def test_what_does_not_fit_is_refused(options):
    with pytest.raises(ValidationError):
        options_model(entry("Soft"))(**options)


def test_defaults_are_as_hinted():
    options = options_model(entry("Soft"))()
    assert (options.temperature, type(options.temperature)) == (4.0, float)
    assert options.pairs == []
    assert options.model_dump(mode="json") == {"temperature": 4.0, "pairs": [], "mode": "forth"}


def test_inherited_constructor():
    assert set(options_model(entry("Child")).model_fields) == {"temperature", "pairs", "mode"}
    assert describe(entry("Child")).options[0].description == "Softness of the answers, in nats."


def test_what_kdcore_gives_is_no_option():
    assert set(options_model(entry("Encoder", "encoder")).model_fields) == {"width", "weights"}
    assert set(options_model(entry("Encoder", "transform")).model_fields) == {"num_classes", "in_shape", "width", "weights"}


@pytest.mark.parametrize("component", ["Bare", "Passing", "Plain", "light"])
def test_no_options(component):
    assert options_model(entry(component)).model_fields == {}
    with pytest.raises(ValidationError):
        options_model(entry(component))(x=1)


def test_dataclasses():
    model = options_model(entry("Settings", "dataset"))
    options = model.model_validate_json(
        '{"root": "~/x", "training": {"epochs": 2, "learning_rate": {"name": "cosine"}}}', strict=True
    )
    assert options.root == Path.home() / "x"
    assert options.training.epochs == 2
    assert options.training.learning_rate.name == "cosine"
    assert model(root=Path()).training == Training()
    assert model(root=Path()).tags is not model(root=Path()).tags
    with pytest.raises(ValidationError):
        model(root=Path(), training={"epoch": 2})
    with pytest.raises(ValidationError):
        model()


def test_a_home_that_is_not_there_is_left_as_it_is():
    assert options_model(entry("Settings", "dataset"))(root="~nobody-here/x").root == Path("~nobody-here/x")


def test_loosely_written_constructors():
    options = options_model(entry("Loose", "encoder"))(a=[1, "x"])
    assert dict(options) == {"a": [1, "x"], "b": 3, "copy": False, "c": None, "act": torch.relu, "seed": None}


def test_functions_are_constructors_too():
    assert dict(options_model(entry("factory", "encoder"))()) == {"size": 3}
    assert describe(entry("factory", "encoder")).options[0].description == "How large."


@pytest.mark.parametrize(
    ("component", "reason"),
    [
        ("Unresolved", "could not read its constructor's type hints: NameError: name 'NoSuchType' is not defined"),
        ("WrongDefault", "the default of its option 'x' does not match its type hint"),
        ("PositionalOnly", "a positional-only parameter 'x'"),
        ("Underscore", "could not derive a schema"),
        ("Named", "a parameter 'name', which is reserved for recipes"),
        ("Weighted", "a parameter 'weight', which is reserved for recipes"),
        ("Gone", "could not load it: AttributeError"),
    ],
)
def test_broken_components_name_plugin_and_component(component, reason):
    with pytest.raises(PluginError) as caught:
        options_model(entry(component, plugin="theirs"))
    assert f"plugin 'theirs': loss '{component.lower()}' ({__name__}:{component})" in str(caught.value)
    assert reason in str(caught.value)


def test_only_losses_have_weights():
    assert set(options_model(entry("Weighted", "schedule")).model_fields) == {"weight"}


def test_made_once():
    assert options_model(entry("Soft")) is options_model(entry("Soft"))
    assert options_model(entry("Soft")) is not options_model(entry("Soft", plugin="other"))


def test_describe():
    found = describe(entry("Soft"))
    assert found.summary == "Matches softened answers, as a whole."
    assert "More about it." in found.doc
    assert [tuple(option) for option in found.options] == [
        ("temperature", "float > 0 | Ramp", "4", False, "Softness of the answers, in nats."),
        ("pairs", "list[tuple[str, str]]", "[]", False, "What to pair and how."),
        ("mode", "'forth' | 'back'", '"forth"', False, "Which way: forth or back."),
    ]


def test_describe_an_encoder():
    assert [tuple(option) for option in describe(entry("Encoder", "encoder")).options] == [
        ("width", "int ≥ 1, ≤ 64", "8", False, "Channels."),
        ("weights", "Path | None", "null", False, "File."),
    ]


def test_describe_what_is_loosely_written():
    options = {option.name: option for option in describe(entry("Loose", "encoder")).options}
    assert (options["a"].type, options["a"].required, options["a"].default) == ("Any", True, "")
    assert options["act"].default == "relu"
    assert options["c"].default == "null"


def test_describe_a_modality():
    found = describe(entry("light", "modality"))
    assert found.summary == "brightness"
    assert found.options == ()
    assert "axes: time, channel\n" in found.doc
    assert "rate: 10.0" in found.doc


@pytest.mark.parametrize("component", ["Plain", "Settings"])
def test_no_text_of_ones_own(component):
    assert describe(entry(component)).summary == ""


def test_this_module_is_where_the_entries_point():
    assert sys.modules[__name__].Soft is entry("Soft").load()


def test_fields_of_nested_types_are_described_with_their_place():
    options = {option.name: option for option in describe(plugin_manager().registry.get("dataset", "sensor-csv")).options}
    assert options["devices"].required
    assert options["devices.NAME.pattern"].required
    assert options["devices.NAME.time_unit"].type == "'s' | 'ms' | 'us' | 'ns' | 'iso'"
    assert options["devices.NAME.missing_values"].default == '"error"'
    assert options["devices.NAME.missing_values.interpolate"].type == "float > 0"
    assert options["label.column"].description.startswith("Column of labels")
    losses = {option.name for option in describe(plugin_manager().registry.get("loss", "soft-target")).options}
    assert not any("." in name for name in losses), "a ramp is described once, in the docs"

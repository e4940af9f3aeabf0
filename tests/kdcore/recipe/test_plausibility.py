"""Values that nobody can mean are refused before anything is read or trained."""

import math

import pytest
from torch import nn

from kdcore import hookimpl
from kdcore.errors import RecipeError
from kdcore.plugin.manager import PluginManager
from kdcore.recipe.load import load_recipe

TWO_63 = 2**63


class Unbounded(nn.Module):
    def __init__(self, num_classes: int, in_shape: tuple[int, ...], *, limit: float = math.inf):
        super().__init__()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (f"seeds=[{10**23}]", "seeds[0]: the number 100000000000000000000000 does not fit into 64 bits"),
        (f"seeds=[{TWO_63}]", "does not fit into 64 bits"),
        (f"data.label_noise_seed={TWO_63}", "does not fit into 64 bits"),
        (f"student.encoder.width=-{TWO_63}", "does not fit into 64 bits"),
        ("losses.soft-target.temperature=.inf", "losses[1].temperature: must be a finite number, not inf"),
        ("losses.soft-target.weight=.nan", "must be a finite number, not nan"),
        ("losses.soft-target.weight=1e308", "must be between 0 and 1e+09, not 1e+308"),
        ("losses.soft-target.weight={start: 0, stop: 1e10, epochs: 3}", "between 0 and 1e+09"),
        (
            "losses.soft-target.weight={start: 0, stop: 1, epochs: -1}",
            "losses[1].weight.epochs: must be greater than or equal to 0, not -1",
        ),
        ("schedule.training.epochs=1000000000000000000000", "does not fit into 64 bits"),
        ("schedule.training.epochs=1000001", "less than or equal to 1000000"),
        ("schedule.training.optimizer={name: adamw, lr: 0}", "option 'lr' must be a number above 0"),
        ("schedule.training.optimizer={name: sgd, lr: .inf}", "must be a finite number, not inf"),
        ("schedule.training.optimizer={name: sgd, lr: 1e300}", "option 'lr' must be a number above 0 and up to 1e+30"),
        ("data.memory_limit=-1", "must not be negative"),
        ("data.window={length: .inf}", "must be a finite number, not inf"),
        ("engine.threads=100000000", "less than or equal to 1024"),
        ("engine.devices=100000000", "less than or equal to 1024"),
        ("engine.checkpoint_seconds=.inf", "must be a finite number, not inf"),
        (f"name={'n' * 101}", "use at most 100 bytes"),
        (f"name={'ü' * 51}", "use at most 100 bytes"),
        (f"teachers={{{'t' * 101}: {{modality: skeleton, encoder: net}}}}", "use at most 100 bytes"),
        ("student.weights=/nowhere/w.safetensors", "student.weights: there is no file '/nowhere/w.safetensors'"),
        (f"student.weights={'w' * 300}.pt", "student.weights"),
        ("teachers.stored={outputs: /nowhere/o.npz}", "teachers.stored.outputs: there is no file '/nowhere/o.npz'"),
    ],
)
def test_a_value_that_nobody_can_mean(load, valid, override, said):
    with pytest.raises(RecipeError) as caught:
        load(valid, override)
    found = str(caught.value)
    assert said in found
    assert found.count(said) == 1, "a value is refused once"
    assert len(found) < 1000


@pytest.mark.parametrize(
    "override",
    [
        "seeds=[9223372036854775807]",
        f"name={'n' * 100}",
        "losses.soft-target.weight=1e9",
        "data.memory_limit=0",
        "engine.threads=64",
    ],
)
def test_the_largest_that_is_accepted(load, valid, override):
    assert load(valid, override)


def test_an_option_that_is_infinite_by_default_may_be_said(plugins, write, valid):
    class Plugin:
        @hookimpl
        def register_encoders(self, register):
            register("unbounded", f"{__name__}:Unbounded")

    plugins = _with(plugins, Plugin())
    said = valid.replace("encoder: net\n", "encoder: {name: unbounded, limit: .inf}\n")
    first = load_recipe(write(said), (), plugins)
    assert load_recipe(write(first.to_yaml()), (), plugins).hash == first.hash
    with pytest.raises(RecipeError, match="must be a finite number, not -inf"):
        load_recipe(write(said), ["student.encoder.limit=-.inf"], plugins)


def _with(plugins, plugin):
    made = PluginManager(points=[])
    made.register("fake", plugins._pluggy.get_plugin("fake"))
    made.register("more", plugin)
    return made


def test_a_run_is_looked_at_without_the_files_that_it_was_trained_from(plugins, write, valid):
    said = valid.replace("  encoder: net\n", "  encoder: net\n  weights: gone.safetensors\n")
    with pytest.raises(RecipeError, match=r"there is no file '.*gone\.safetensors'"):
        load_recipe(write(said), (), plugins)
    assert load_recipe(write(said), (), plugins, files=False)

"""Errors while a run is put together give file and line."""

from __future__ import annotations

import sys
from textwrap import dedent

import pytest
from runs import Home, tiny_recipe

from kdcore import RecipeError
from kdcore.errors import PluginError, TrainingError
from kdcore.plugin.manager import PluginManager
from kdcore.runs.run import dry_run

LOSS = """
from kdcore import DistillationLoss, hookimpl
from torch import nn

class Mine(DistillationLoss):
    {body}

    def forward(self, ctx):
        return ctx.student.logits.square().mean()

@hookimpl
def register_losses(register):
    register("mine", "{name}:Mine")
"""


@pytest.fixture
def home(tmp_path, database, monkeypatch):
    made = Home(tmp_path / "home", database)
    made.folder.mkdir()
    monkeypatch.chdir(made.folder)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    plugins = PluginManager()
    monkeypatch.setattr("kdcore.runs.run.plugin_manager", lambda: plugins)
    before = set(sys.modules)
    yield made
    for name in set(sys.modules) - before:
        if str(made.folder) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def refusal(home: Home, name: str, body: str) -> str:
    """The message of a dry run about a loss with this in its class."""
    body = dedent(body).strip().replace("\n", "\n    ")
    (home.folder / f"{name}.py").write_text(LOSS.format(body=body, name=name))
    recipe = tiny_recipe(home.database, "assembly", plugins=[f"{name}.py"], losses=["cross-entropy", {"name": "mine"}])
    lines = [f"{key}: {value!r}" for key, value in recipe.items() if key != "losses"]
    home.recipe.write_text("\n".join([*lines, "losses:", "  - cross-entropy", "  - name: mine", "    id: own"]))
    with pytest.raises((RecipeError, TrainingError, PluginError)) as caught:
        dry_run(home.recipe)
    assert home.runs == []
    return str(caught.value)


SETUP = "def setup(self, example):\n    "


@pytest.mark.parametrize(
    ("name", "body", "said"),
    [
        ("refusing", f"{SETUP}raise ValueError('the shapes cannot meet')", "the shapes cannot meet"),
        ("tapping", f"{SETUP}example.student.features['pooled']", "KeyError: 'pooled' (if that is a tap, declare it: needs = "),
        ("clashing", f"{SETUP}self.maps = nn.Linear(2, 2)", "it has an attribute 'maps', which is the name of a method of"),
    ],
)
def test_a_loss_that_cannot_be_set_up_is_named_with_its_line(home, name, body, said):
    line = 2 + len(tiny_recipe(home.database, "")) - 1 + 1 + 1
    assert refusal(home, name, body).startswith(
        f"recipe.yaml:{line}: losses[1]: could not set up term 'own' of student (loss 'mine' of plugin '{name}'): {said}"
    )


@pytest.mark.parametrize(
    ("name", "body"),
    [("number", "self.scale = 2.0"), ("network", "self.map = nn.Linear(2, 2)"), ("tensor", "self.w = nn.Parameter()")],
)
def test_a_constructor_that_does_not_begin_as_it_must_is_named(home, name, body):
    said = refusal(home, f"forgetful_{name}", f"def __init__(self):\n    {body}")
    assert f"losses[1]: could not construct loss 'mine' of plugin 'forgetful-{name}': " in said
    assert "its constructor must call super().__init__() first" in said


SCHEDULE = """
from kdcore import Schedule, Stage, Training, hookimpl

class Mine(Schedule):
    def stages(self, graph):
        yield Stage("student", graph.students, Training(epochs=1, optimizer={"name": "adamv"}), 1)
        yield Stage("coda", ("nobody",), Training(epochs=1), 1)

@hookimpl
def register_schedules(register):
    register("mine", "odd_schedule:Mine")
"""


def test_optimizers_and_learners_that_a_schedule_makes_up_are_named_together(home):
    (home.folder / "odd_schedule.py").write_text(SCHEDULE)
    home.write(plugins=["odd_schedule.py"], schedule={"name": "mine"})
    with pytest.raises(RecipeError) as caught:
        dry_run(home.recipe)
    said = str(caught.value)
    assert "schedule: the schedule 'mine' in stage 'student': no optimizer 'adamv'; did you mean 'adam'?" in said
    assert "schedule: the schedule 'mine' trains 'nobody' in stage 'coda', but there is no such participant" in said
    assert home.runs == []


TRANSFORM = """
from kdcore import Transform, hookimpl

class Choosy(Transform):
    {flags}

    def forward(self, x):
        if {when}:
            raise {error}("three channels are one too many")
        return x

@hookimpl
def register_transforms(register):
    register("choosy", "{name}:Choosy")
"""


def choosy(home: Home, name: str, flags: str, when: str, error: str = "ValueError") -> None:
    (home.folder / f"{name}.py").write_text(TRANSFORM.format(flags=flags, when=when, error=error, name=name))
    own = tiny_recipe(home.database, "")["student"]
    home.write(plugins=[f"{name}.py"], student=own | {"transforms": [*own["transforms"], "choosy"]})
    dry_run(home.recipe)


@pytest.mark.parametrize(
    ("name", "flags", "when"),
    [
        ("done_once", "pass", "True"),
        ("done_per_batch", "per_batch = True", "True"),
        ("done_in_training", "augmentation = True", "self.training"),
    ],
)
def test_a_batch_that_a_transform_refuses_is_told_with_the_transforms_line(home, name, flags, when):
    with pytest.raises(RecipeError, match=r"^recipe\.yaml:\d+: student\.transforms\[3\]: three channels are one too many$"):
        choosy(home, name, flags, when)
    assert home.runs == []


def test_a_transform_that_breaks_is_no_mistake_of_the_recipe(home):
    with pytest.raises(ArithmeticError):
        choosy(home, "broken", "pass", "True", "ArithmeticError")

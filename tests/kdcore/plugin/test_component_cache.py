"""Schemas and facts of components, kept so that nothing is imported."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import EntryPoint, packages_distributions
from pathlib import Path
from textwrap import dedent

import pytest
from pydantic import ValidationError
from pydantic.json_schema import GenerateJsonSchema

from kdcore.contracts.needs import Needs
from kdcore.contracts.schedule import Graph, Stage
from kdcore.contracts.training import Training
from kdcore.errors import ComponentError
from kdcore.plugin import component_cache, constructors, facts, option_schema, sources
from kdcore.plugin.facts import ask, component_facts
from kdcore.plugin.manager import PluginManager, plugin_manager
from kdcore.plugin.option_schema import describe, options_model
from kdcore.recipe.schedule_checks import stages_of
from kdcore.recipe.shipped import list_recipes

ENTRIES = list(plugin_manager().registry.entries())
WRONG = [{}, [], "wrong", -1, 2.5, True, None, [{"a": 1}], {"start": 1}]


class Lenient(GenerateJsonSchema):
    def handle_invalid_for_json_schema(self, schema, error_info):
        return {}


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """An empty cache folder; ``fresh()`` forgets what this process has read from it."""
    monkeypatch.setenv("KDCORE_CACHE", str(tmp_path / "cache"))

    def forget():
        for each in (component_cache._answers, option_schema._parameters, option_schema.options_model):
            each.cache_clear()

    forget()
    yield forget
    forget()


def refused(model, options):
    try:
        model.model_validate_json(json.dumps(options), strict=True)
    except ValidationError as error:
        return error.errors(include_url=False, include_context=False)
    return None


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry.kind}/{entry.name}")
def test_a_cached_schema_equals_the_imported_one(entry, fresh, monkeypatch):
    imported, described = constructors.model_of(entry, constructors.settled_parameters(entry)), describe(entry)
    options_model(entry)
    fresh()
    for name in ("read_parameters", "settled_parameters"):
        monkeypatch.setattr(option_schema, name, lambda entry: pytest.fail(f"{entry.qualified} was imported"))
    cached = options_model(entry)
    assert describe(entry) == described
    assert cached.model_json_schema(schema_generator=Lenient) == imported.model_json_schema(schema_generator=Lenient)
    for name, field in imported.model_fields.items():
        assert cached.model_fields[name].default == field.default
        assert type(cached.model_fields[name].default) is type(field.default)
        assert cached.model_fields[name].description == field.description
        for value in WRONG:
            assert refused(cached, {name: value}) == refused(imported, {name: value})
    assert refused(cached, {"no-such-option": 1}) == refused(imported, {"no-such-option": 1})


def test_a_recipe_is_checked_without_torch_the_second_time(tmp_path):
    recipes = ["sakdn", "crossmodal-mutual", "quickstart"]
    assert set(recipes) <= set(list_recipes())
    code = dedent(f"""
        import sys, warnings
        from kdcore.recipe.load import load_recipe
        from kdcore.errors import RecipeError
        for recipe in {recipes}:
            try:
                load_recipe(recipe, sys.argv[1:])
            except RecipeError as error:
                print(recipe, error)
        print("torch" in sys.modules)
    """)
    wrong = ["losses.0.temprature=2", "data.batch_size=0", "student.modality=smell"]
    said = [
        subprocess.run(
            [sys.executable, "-c", code, *overrides],
            capture_output=True,
            text=True,
            env={"KDCORE_CACHE": str(tmp_path), "PATH": "", "OMP_NUM_THREADS": "1"},
        ).stdout.splitlines()
        for overrides in ([], [], wrong, wrong)
    ]
    assert said[0] == ["True"]
    assert said[1] == ["False"]
    assert said[2][:-1] == said[3][:-1]
    assert all(any(line.startswith(recipe) for line in said[3]) for recipe in recipes)
    assert said[3][-1] == "False"


PLUGIN = """
    from typing import Annotated
    from annotated_types import Gt
    from kdcore import hookimpl

    @hookimpl
    def register_losses(register):
        register("soft", "made_up.soft:Soft")
        register("odd", "made_up.soft:Odd")
        register("looking", "made_up.soft:Looking")

    @hookimpl
    def register_schedules(register):
        register("once", "made_up.soft:Once")
"""
SOFT = """
    import os.path
    from kdcore import DistillationLoss, Needs, Schedule, Stage, Training
    from made_up.constants import DEFAULT

    class Soft(DistillationLoss):
        def __init__(self, temperature: float = DEFAULT, least: int = 1):
            super().__init__()
            if temperature == 0:
                raise ValueError("no temperature")
            if temperature < 0:
                raise OSError("cold")
            self.needs = Needs(teachers=least)

    class Odd(DistillationLoss):
        def __init__(self, tap=object()):
            super().__init__()

    class Looking(DistillationLoss):
        def __init__(self, file: str):
            super().__init__()
            self.needs = Needs(labels=os.path.exists(file))

    class Once(Schedule):
        def __init__(self, epochs: int = 3):
            self.epochs = epochs

        def stages(self, graph):
            yield Stage("all", graph.students, Training(), self.epochs, ",".join(graph.teachers))
"""


@pytest.fixture
def made_up(tmp_path, monkeypatch, fresh):
    """A plugin in a package; ``made_up(file=code)`` rewrites files, and forgets everything as a new process would."""
    package = tmp_path / "modules" / "made_up"
    package.mkdir(parents=True)
    monkeypatch.syspath_prepend(str(package.parent))

    def install(**files: str) -> PluginManager:
        for name, code in files.items():
            (package / f"{name}.py").write_text(dedent(code))
        for name in [name for name in sys.modules if name.partition(".")[0] == "made_up"]:
            del sys.modules[name]
        fresh()
        for each in vars(component_cache), vars(sources):
            for value in each.values():
                if value is not sources._distributions:
                    getattr(value, "cache_clear", lambda: None)()
        monkeypatch.setattr("kdcore.IMPORTED_AT", 4e9)  # files are as they were when this process began
        return PluginManager([EntryPoint("made-up", "made_up", "kdcore")])

    install(__init__=PLUGIN, soft=SOFT, constants="DEFAULT = 4.0\n")
    yield install
    for name in [name for name in sys.modules if name.partition(".")[0] == "made_up"]:
        del sys.modules[name]


def loaded() -> bool:
    return "made_up.soft" in sys.modules


def default(manager: PluginManager) -> object:
    return options_model(manager.registry.get("loss", "soft"))().temperature


def test_a_schema_is_kept_until_the_code_or_what_it_imports_changes(made_up):
    assert default(made_up()) == 4.0
    assert loaded()
    assert default(made_up()) == 4.0
    assert not loaded(), "unchanged, and imported nevertheless"
    assert default(made_up(constants="DEFAULT = 5.0\n")) == 5.0
    assert default(made_up(soft=SOFT.replace("= DEFAULT", "= 6.0"))) == 6.0


def test_a_package_found_by_its_name_is_the_one_that_a_search_of_all_finds():
    every = packages_distributions()
    found = {top: sources._namesake(top) for top in every if top.isidentifier()}
    named = {top: name for top, name in found.items() if name}
    assert named.keys() >= {"torch", "numpy", "scipy", "timm"}
    assert all(name in every[top] for top, name in named.items())
    assert sources._namesake("yaml") is None, "PyYAML, which a search finds"


def test_what_changed_after_it_was_loaded_is_not_kept(made_up, monkeypatch):
    manager = made_up()
    monkeypatch.setattr("kdcore.IMPORTED_AT", 0.0)
    assert default(manager) == 4.0
    made_up()
    assert default(made_up()) == 4.0
    assert loaded()


def test_code_that_reads_the_environment_is_not_kept(made_up):
    code = 'import os\nDEFAULT = float(os.environ.get("DEFAULT", 4))\n'
    assert default(made_up(constants=code)) == 4.0
    assert default(made_up()) == 4.0
    assert loaded()


def test_a_default_that_cannot_be_written_down_is_not_kept(made_up):
    for _ in range(2):
        manager = made_up()
        assert list(options_model(manager.registry.get("loss", "odd")).model_fields) == ["tap"]
        assert loaded()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"by": 1}', b"\xff" * 10, b"null"])
def test_a_damaged_file_is_as_good_as_none(made_up, tmp_path, content):
    default(made_up())
    [file] = (tmp_path / "cache" / "schemas").iterdir()
    file.write_bytes(content)
    assert default(made_up()) == 4.0
    assert loaded()
    assert default(made_up()) == 4.0
    assert not loaded()


def test_a_folder_that_cannot_be_written_does_no_harm(made_up, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("KDCORE_CACHE", str(tmp_path / "file" / "cache"))
    assert default(made_up()) == 4.0


def test_facts_depend_on_options_and_are_kept(made_up):
    for first in (True, False):
        soft = made_up().registry.get("loss", "soft")
        assert component_facts(soft, {"least": 2}).needs == Needs(teachers=2)
        assert component_facts(soft, {}).needs == Needs(teachers=1)
        assert component_facts(soft).needs == Needs(), "of the class"
        assert loaded() is first


def test_failures_that_last_are_kept(made_up):
    for first in (True, False):
        soft = made_up().registry.get("loss", "soft")
        with pytest.raises(ComponentError, match="could not construct loss 'soft' of plugin 'made-up': no temperature"):
            component_facts(soft, {"temperature": 0})
        assert loaded() is first


def test_failures_of_the_system_are_not_kept(made_up):
    for _ in range(2):
        with pytest.raises(ComponentError, match="OSError: cold"):
            component_facts(made_up().registry.get("loss", "soft"), {"temperature": -1})
        assert loaded()


def test_facts_that_files_decide_are_not_kept(made_up, tmp_path):
    file = tmp_path / "labels.txt"
    for there in (False, True):
        looking = made_up().registry.get("loss", "looking")
        assert component_facts(looking, {"file": str(file)}).needs == Needs(labels=there)
        file.touch()


def test_stages_depend_on_the_graph(made_up):
    for first in (True, False):
        once = made_up().registry.get("schedule", "once")
        for graph in (Graph.of(["a"], ["b"]), Graph.of([], ["b", "c"])):
            expected = (Stage("all", graph.students, Training(), 5, ",".join(graph.teachers)),)
            assert ask(once, {"epochs": 5}, stages_of, graph) == expected
        assert loaded() is first


def test_watching_leaves_everything_as_it_was():
    before = [getattr(owner, name) for owner, name in facts._IMPURE_FUNCTIONS]
    with facts._recorded_calls() as seen:
        Path("no-such-file").exists()
    assert seen == ["stat"]
    assert [getattr(owner, name) for owner, name in facts._IMPURE_FUNCTIONS] == before

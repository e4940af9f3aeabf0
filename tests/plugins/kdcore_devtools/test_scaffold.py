"""New plugins, as they are written."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from kdcore.errors import KdcoreError
from kdcore.plugin.manager import PluginManager
from kdcore.plugin.option_schema import describe
from kdcore.recipe.load import load_recipe
from kdcore_devtools.scaffold import TEMPLATES, USAGE, new_plugin

KINDS = tuple(USAGE)


@pytest.fixture(scope="module")
def projects(tmp_path_factory) -> Path:
    """A folder with a new plugin of every kind, called ``new-<kind>``."""
    folder = tmp_path_factory.mktemp("new plugins")
    for kind in KINDS:
        new_plugin(kind, f"new-{kind}", folder)
    return folder


@pytest.fixture(scope="module")
def plugins(projects) -> PluginManager:
    """All of them in use."""
    manager = PluginManager()
    for kind in KINDS:
        sys.path.insert(0, str(projects / f"kdcore-new-{kind}"))
        manager.register(f"new-{kind}", import_module(f"kdcore_new_{kind}"))
    yield manager
    for kind in KINDS:
        sys.path.remove(str(projects / f"kdcore-new-{kind}"))
        for name in [name for name in sys.modules if name.partition(".")[0] == f"kdcore_new_{kind}"]:
            del sys.modules[name]


def test_there_is_a_template_for_every_kind_that_is_named():
    assert {folder.name for folder in TEMPLATES.iterdir()} == {"common", *KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_the_package_says_where_kdcore_finds_it(projects, kind):
    project = projects / f"kdcore-new-{kind}"
    declared = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    assert declared["name"] == f"kdcore-new-{kind}"
    assert declared["entry-points"]["kdcore"] == {f"new-{kind}": f"kdcore_new_{kind}"}
    assert "kdcore-plugin" in declared["keywords"]
    assert (project / f"kdcore_new_{kind}" / "__init__.py").is_file()
    assert f'conformance_tests("new-{kind}")' in (project / "tests" / "test_conformance.py").read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_the_workflows_test_and_publish_without_a_password(projects, kind):
    workflows = projects / f"kdcore-new-{kind}" / ".github" / "workflows"
    tests, publish = (yaml.safe_load((workflows / f"{name}.yml").read_text()) for name in ("tests", "publish"))
    assert {"run": "pytest"} in tests["jobs"]["tests"]["steps"]
    assert publish["jobs"]["publish"]["permissions"] == {"id-token": "write"}
    assert "${{ matrix.python }}" in (workflows / "tests.yml").read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_the_template_is_left(projects, kind):
    for file in (projects / f"kdcore-new-{kind}").rglob("*"):
        text = file.read_text() if file.is_file() else ""
        assert "<<" not in text, file
        assert file.suffix != ".jinja"


@pytest.mark.parametrize("kind", KINDS)
def test_the_component_is_described_and_its_recipe_is_valid(projects, plugins, monkeypatch, kind):
    monkeypatch.chdir(projects / f"kdcore-new-{kind}")
    found = describe(plugins.registry.get(kind, f"new-{kind}"))
    assert found.doc
    assert all(option.description for option in found.options)
    recipe = load_recipe("recipe.yaml", (), plugins)
    assert f"new-{kind}" in (Path("recipe.yaml").read_text())
    assert recipe.seeds == [0]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("dataset", "modality")])
def test_the_recipe_uses_the_component(projects, plugins, monkeypatch, kind):
    monkeypatch.chdir(projects / f"kdcore-new-{kind}")
    used = [(kind, component.name) for kind, component in load_recipe("recipe.yaml", (), plugins).components()]
    assert (kind, f"new-{kind}") in used


@pytest.mark.parametrize("kind", KINDS)
def test_the_code_is_tidy(projects, kind):
    project = projects / f"kdcore-new-{kind}"
    ruff = [sys.executable, "-m", "ruff"]
    pytest.importorskip("ruff")
    for command in (["check", "--select", "E,F,W,I,UP,B,SIM,PT,RET"], ["format", "--check"]):
        done = subprocess.run(
            [*ruff, *command, "--isolated", "--no-cache", "--line-length", "128", "."],
            cwd=project,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout


def test_a_modality_may_be_called_what_its_demonstration_calls_something(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(new_plugin("modality", "noise", tmp_path)))
    demo = import_module("kdcore_noise.demo").Demo()
    assert set(demo.modalities) == {"noise", "noise-noisy"}


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("los", "good", r"no template for the kind 'los' \(did you mean 'loss'\?\)"),
        ("loss", "Bad Name", r"'Bad Name' is not a valid plugin name: use lowercase letters"),
        ("loss", "kdcore-x", r"'kdcore-x' is not a valid plugin name"),
        ("loss", "1x", r"'1x' is not a valid plugin name"),
        ("loss", "a_b", r"'a_b' is not a valid plugin name"),
        ("loss", "", r"'' is not a valid plugin name"),
        ("loss", "distillation", r"the class would be called DistillationLoss, like one of kdcore's own"),
        ("encoder", "encoder", r"the class would be called Encoder, like one of kdcore's own"),
        ("transform", "sample", r"the class would be called SampleTransform, like one of kdcore's own"),
        ("loss", "losses", r"there is a plugin 'losses' already \(kdcore_losses\)"),
        ("loss", "soft-target", r"there is a loss 'soft-target' already, from the plugin 'losses'"),
    ],
)
def test_a_bad_name_is_named_and_nothing_is_written(tmp_path, kind, name, said):
    with pytest.raises(KdcoreError, match=said):
        new_plugin(kind, name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path):
    precious = new_plugin("loss", "mine", tmp_path) / "README.md"
    precious.write_text("mine")
    with pytest.raises(KdcoreError, match="already exists; nothing was written"):
        new_plugin("loss", "mine", tmp_path)
    assert precious.read_text() == "mine"


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(KdcoreError, match="nowhere: no such folder; create it first"):
        new_plugin("loss", "mine", tmp_path / "nowhere")


@pytest.mark.parametrize(("name", "expected"), [("focal-loss", "FocalLoss"), ("soft-margin", "SoftMarginLoss")])
def test_classes_are_named_after_the_plugin(tmp_path, name, expected):
    folder = new_plugin("loss", name, tmp_path)
    assert f"class {expected}(DistillationLoss)" in next(folder.glob("kdcore_*/loss.py")).read_text()

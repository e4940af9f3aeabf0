"""The example plugins, built, installed and used as anybody else's."""

from __future__ import annotations

import shutil
from pathlib import Path
from textwrap import dedent

import pytest
from shell import Shell, tags_in_mlflow

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
KINDS = {"cosine": "loss", "patches": "encoder", "pendulum": "dataset"}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shell(tmp_path_factory) -> Shell:
    """A place where all of them are installed from their wheels."""
    folder = tmp_path_factory.mktemp("examples")
    shell = Shell(folder, folder / "site")
    for name in KINDS:
        shutil.copytree(EXAMPLES / f"kdcore-{name}", folder / f"kdcore-{name}")
        wheels = shell.build(folder / f"kdcore-{name}", folder / "wheels")
    shell.install(*wheels)
    return shell


def test_the_loss_is_short():
    [file] = EXAMPLES.glob("kdcore-cosine/kdcore_cosine/loss.py")
    assert len(file.read_text().splitlines()) <= 20


def test_every_example_is_tested():
    assert {folder.name for folder in EXAMPLES.glob("kdcore-*")} == {f"kdcore-{name}" for name in KINDS}


def test_all_are_seen(shell):
    shown = shell.kdcore("plugins")
    for name, kind in KINDS.items():
        assert f"kdcore-{name} 0.1.0" in shown
        assert f"{kind}: {name}" in shown
    for name, plural in (("cosine", "losses"), ("patches", "encoders"), ("pendulum", "datasets")):
        assert f"  {name} " in shell.kdcore("list", plural)


@pytest.mark.parametrize(("name", "option"), [("patches", "width"), ("pendulum", "rate"), ("cosine", "cosine")])
def test_each_is_described(shell, name, option):
    shown = shell.kdcore("describe", name)
    assert f"from plugin {name}" in shown
    assert option in shown


@pytest.mark.parametrize("name", KINDS)
def test_each_passes_the_conformance_checks(shell, name):
    assert " passed" in shell.inside(f"kdcore-{name}").pytest("-q", "tests")


@pytest.mark.parametrize("name", KINDS)
def test_the_recipe_of_each_works(shell, name):
    place = shell.inside(f"kdcore-{name}")
    assert ": valid (" in place.kdcore("validate", "recipe.yaml")
    assert "Loss terms on the first batch" in place.kdcore("run", "recipe.yaml", "--dry-run", "engine.accelerator=cpu")


def test_all_run_together_and_are_seen_in_mlflow(shell):
    together = """
        extends: kdcore-pendulum/recipe.yaml
        name: together
        plugins: [cosine, patches, pendulum]
        student: {encoder: {name: patches, patch: 5}}
        losses: [cross-entropy, {name: cosine, weight: 2}]
    """
    (shell.folder / "together.yaml").write_text(dedent(together))
    assert "distilled" in shell.kdcore("run", "together.yaml", "engine.accelerator=cpu")
    tags = tags_in_mlflow(shell, "together")
    assert {name: tags[f"plugin.{name}"] for name in KINDS} == dict.fromkeys(KINDS, "0.1.0")

"""The whole way of a new plugin: written, built, installed, tested, listed, described, validated, run, tracked."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from textwrap import dedent

import pytest
from shell import Shell, tags_in_mlflow

from kdcore.plugin.registry import KINDS as PLURALS
from kdcore_devtools.scaffold import TEMPLATES, USAGE

KINDS = tuple(USAGE)
CHECKOUT = Path(__file__).resolve().parents[3]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shell(tmp_path_factory) -> Shell:
    """A place where a new plugin of every kind is installed from its wheel."""
    folder = tmp_path_factory.mktemp("template")
    shell = Shell(folder, folder / "site")
    for kind in KINDS:
        assert "pip install -e" in shell.kdcore("new-plugin", kind, f"my-{kind}")
        wheels = shell.build(folder / f"kdcore-my-{kind}", folder / "wheels")
    shell.install(*wheels)
    return shell


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_plugin_passes_its_tests_as_it_comes(shell, kind):
    said = shell.inside(f"kdcore-my-{kind}").pytest("-q", "tests")
    assert " passed" in said
    assert " xfailed" not in said


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_listed_and_its_recipe_runs_through(shell, kind):
    place = shell.inside(f"kdcore-my-{kind}")
    assert f"my-{kind}" in place.kdcore("list", PLURALS[kind])
    assert "Loss terms on the first batch" in place.kdcore("run", "recipe.yaml", "--dry-run", "engine.accelerator=cpu")


def test_its_tests_fail_if_the_recipe_and_the_component_have_different_names(shell):
    place = shell.inside("kdcore-my-loss")
    recipe = place.folder / "recipe.yaml"
    before = recipe.read_text()
    recipe.write_text(before.replace("  my-loss:", "  renamed:"))
    try:
        said = place.pytest("-q", "tests", "-k", "recipe", status=1)
    finally:
        recipe.write_text(before)
    assert "there is no loss 'renamed'" in said


@pytest.fixture(scope="module")
def second(shell) -> Path:
    """A second place, with kdcore and the loss from their wheels."""
    place = Shell(shell.folder, shell.folder / "second")
    wheels = place.build(CHECKOUT, shell.folder / "kdcore")
    place.install(*wheels, *(shell.folder / "wheels").glob("kdcore_my_loss-*.whl"))
    return place.site


def test_the_wheel_of_kdcore_holds_the_templates(second):
    installed = {path.relative_to(second / "kdcore_devtools" / "templates") for path in second.rglob("*.jinja")}
    assert installed == {path.relative_to(TEMPLATES) for path in TEMPLATES.rglob("*.jinja")}
    assert not set(second.glob("kdcore_devtools/templates/*/.*"))


def test_the_packages_hold_what_they_should(shell):
    project = shell.folder / "kdcore-my-loss"
    [sdist] = [path for path in shell.build(project, shell.folder / "sdist", "sdist") if path.suffix == ".gz"]
    [wheel] = (shell.folder / "wheels").glob("kdcore_my_loss-*.whl")
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {"recipe.yaml", "README.md", "tests/test_conformance.py", "kdcore_my_loss/loss.py"} <= inside
    with zipfile.ZipFile(wheel) as archive:
        assert {name for name in archive.namelist() if ".dist-info" not in name} == {
            "kdcore_my_loss/__init__.py",
            "kdcore_my_loss/loss.py",
        }
        [metadata] = [name for name in archive.namelist() if name.endswith("METADATA")]
        assert "Keywords: kdcore-plugin" in archive.read(metadata).decode()


def test_a_colleague_installs_it_and_uses_it(shell, second):
    words = (["list", "losses"], ["plugins"], ["describe", "my-loss"], ["run", "recipe.yaml", "engine.accelerator=cpu"])
    code = f"""
        import sys
        from kdcore.cli.main import main
        for words in {words}:
            sys.argv = ["kdcore", *words]
            try:
                main()
            except SystemExit as done:
                assert not done.code, words
    """
    environment = os.environ | shell.environment | {"PYTHONPATH": str(second)}
    command = [sys.executable, "-W", "ignore", "-c", dedent(code)]
    done = subprocess.run(command, cwd=shell.folder / "kdcore-my-loss", env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for said in ("my-loss", "kdcore-my-loss 0.1.0", "from plugin my-loss (kdcore_my_loss.loss:MyLoss)", "distilled"):
        assert said in done.stdout
    assert tags_in_mlflow(shell, "my-loss")["plugin.my-loss"] == "0.1.0"

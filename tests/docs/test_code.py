"""Code and commands in the documentation, as far as can be told without carrying them out."""

from __future__ import annotations

import json
import shlex
import sys
import tomllib
import warnings

import pytest
import typer
import yaml
from json_schema_errors import errors
from pages import CHECKOUT, PAGES, Block, blocks

from kdcore.plugin.manager import PluginManager, found_plugins
from kdcore.recipe.models import ParticipantSpec
from kdcore_devtools.json_schema import PART, recipe_schema

BLOCKS = blocks(*PAGES)
LANGUAGES = {"python", "yaml", "toml", "json", "console", "sh", "text", "html", "bibtex", ""}


def of(*languages: str) -> list[Block]:
    return [block for block in BLOCKS if block.language in languages]


def test_there_is_code_to_look_at():
    assert len(of("console")) > 20
    assert len(of("yaml")) > 10


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_blocks_are_of_known_kinds(page):
    assert {block.language for block in blocks(page)} <= LANGUAGES


@pytest.mark.parametrize(
    "page", sorted({block.page for block in of("python")}), ids=lambda page: str(page.relative_to(CHECKOUT))
)
def test_python_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    known: dict[str, object] = {"__name__": "documentation"}
    scripts = {line.removeprefix("python ") for block in blocks(page) for line in block.commands}  # run by the guides' test
    for block in blocks(page):
        if block.language != "python" or block.title.startswith("tests/"):
            continue
        signature = block.page.name == "hooks.md" and block.text.startswith("def ") and block.text.count("\n") == 1
        code = compile(block.text.rstrip() + ": ..." if signature else block.text, str(block), "exec")
        if signature or block.title in scripts:
            continue
        if not block.text.startswith("def setup(self"):  # a method on its own
            exec(code, known)


@pytest.mark.parametrize("block", of("toml", "json"), ids=str)
def test_files_of_other_kinds_can_be_read(block):
    assert tomllib.loads(block.text) if block.language == "toml" else json.loads(block.text)


@pytest.fixture(scope="module")
def schema(tmp_path_factory):
    """The schema of what may be laid over a recipe, with all components that the pages bring along."""
    manager = PluginManager()
    folder = tmp_path_factory.mktemp("from the pages")
    before = set(sys.modules)
    for block in of("python"):
        if block.title.endswith(".py") and "/" not in block.title and "hookimpl" in block.text:
            file = folder / block.title
            file.write_text(block.text, encoding="utf-8")
            manager.add_file(file)
    whole = recipe_schema(manager)
    for name in set(sys.modules) - before:
        if str(folder) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
    return {**whole, "else": {"$ref": f"#/$defs/{PART}Recipe"}}


@pytest.mark.parametrize("block", [block for block in of("yaml") if not block.page.name.startswith("0")], ids=str)
def test_yaml_says_what_a_recipe_may_say(schema, block):
    tree = yaml.safe_load(block.text)
    if isinstance(tree, list):  # of transforms
        tree = {"transforms": tree}
    if set(tree) <= set(ParticipantSpec.model_fields):
        tree = {"student": tree}
    assert not errors(schema, tree)


@pytest.fixture(scope="module")
def command():
    """The whole command line, with what plugins add."""
    from kdcore.cli.main import app

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found_plugins().add_commands(app)
    return typer.main.get_command(app)


@pytest.mark.parametrize("block", of("console", "sh"), ids=str)
def test_commands_exist_with_these_options(command, block):
    from kdcore.cli.main import _without_plugin_files

    for line in block.commands:
        for part in [line] if "$(" in line else line.replace(" && ", "\n").replace(" | ", "\n").splitlines():
            words = shlex.split(part.removesuffix("&"), comments=True)
            while words and words[0].partition("=")[0].isupper():
                words = words[1:]
            if "kdcore.cli.main" in words:
                words = ["kdcore", *words[words.index("kdcore.cli.main") + 1 :]]
            if words and words[0].endswith("bin/kdcore"):
                words[0] = "kdcore"
            if words[:1] == ["kdcore"] and words[1:2] != ["--version"]:
                parse(command, _without_plugin_files(words[1:]))


def parse(command, words: list[str]) -> None:
    """Let the command line read `words` as it would before it does anything."""
    context = command.make_context("kdcore", list(words))
    while hasattr(command, "resolve_command"):
        rest = [*context._protected_args, *context.args]
        name, command, rest = command.resolve_command(context, rest)
        assert command is not None, f"no command {name}"
        context = command.make_context(name, rest, parent=context)


@pytest.fixture(autouse=True)
def no_files_left_in_the_environment(monkeypatch):
    monkeypatch.setenv("KDCORE_PLUGINS", "")

"""Everything public is in the documentation."""

from __future__ import annotations

import re
import warnings
from importlib.util import module_from_spec, spec_from_file_location

import pytest
import typer
from pages import CHECKOUT

from kdcore.plugin import option_schema
from kdcore.plugin.manager import found_plugins
from kdcore.plugin.option_schema import describe
from kdcore.plugin.registry import KINDS, Entry

REGISTRY = found_plugins().registry
SHIPPED = [entry for entry in REGISTRY.entries() if found_plugins().plugins[entry.plugin].distribution == "kdcore"]


@pytest.fixture(scope="module")
def components():
    """The module that writes the components' pages when the site is built."""
    pytest.importorskip("mkdocs")
    spec = spec_from_file_location("components_pages", CHECKOUT / "docs" / "components.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_documentation_is_not_built_while_a_component_is_undocumented(components, monkeypatch):
    from kdcore_losses.soft_target import SoftTarget

    monkeypatch.setattr(option_schema, "recall", lambda entry, question: None)  # as if the docstring's file had changed
    monkeypatch.setattr(option_schema, "remember", lambda *_: None)
    monkeypatch.setattr(SoftTarget, "__doc__", None)
    with pytest.raises(components.PluginError, match="the loss 'soft-target' has no docstring, no meaning of temperature"):
        components.page("loss")


def commands() -> list[str]:
    """Every command, as it is typed."""
    from kdcore.cli.main import app

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found_plugins().add_commands(app)
    top = typer.main.get_command(app)
    found = []
    for name, command in top.commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        found += [f"kdcore {name} {each}" for each in inner] if inner else [f"kdcore {name}"]
    return sorted(set(found))


@pytest.mark.parametrize("command", commands())
def test_command_is_in_the_table(command):
    assert f"`{command}" in (CHECKOUT / "docs" / "cli.md").read_text(encoding="utf-8")


def test_every_kind_has_a_page_in_the_navigation():
    navigation = (CHECKOUT / "mkdocs.yml").read_text(encoding="utf-8")
    assert all(f"components/{plural}.md" in navigation for plural in KINDS.values())


@pytest.mark.parametrize("kind", KINDS)
def test_every_component_is_on_its_kinds_page(components, kind):
    page = components.page(kind)
    headings = re.findall(r"^## (.+)$", page, re.MULTILINE)
    assert headings == [entry.name for entry in SHIPPED if entry.kind == kind]
    assert ":math:" not in page
    assert ".. math::" not in page


@pytest.mark.parametrize("entry", SHIPPED, ids=lambda entry: f"{entry.kind}-{entry.qualified}")
def test_a_components_section_has_its_words_and_every_option(components, entry: Entry):
    section, found = components.section(entry), describe(entry)
    assert found.doc.split()[0] in section
    assert all(f"| `{option.name}` |" in section for option in found.options)
    assert "Args:" not in section

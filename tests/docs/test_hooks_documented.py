from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from kdcore.plugin import hookspecs

PAGE = Path(__file__).resolve().parents[2] / "docs" / "hooks.md"
SPECS = {name: each for name, each in vars(hookspecs).items() if hasattr(each, "kdcore_spec")}


def section(name: str) -> str:
    """The page's text under the heading of a hook."""
    _, found, rest = PAGE.read_text(encoding="utf-8").partition(f"### {name}\n")
    assert found, f"docs/hooks.md has no heading for {name}"
    return rest.partition("\n#")[0]


def test_there_are_hooks():
    assert {"register_losses", "register_commands", "run_finished"} <= set(SPECS)


@pytest.mark.parametrize("name", SPECS)
def test_hook_stands_on_the_page_with_signature_and_docstring(name: str):
    text = section(name)
    assert f"def {name}{inspect.signature(SPECS[name])}".replace("'", "") in text
    docstring = inspect.getdoc(SPECS[name])
    assert docstring
    assert docstring in text


def test_page_names_no_hook_that_does_not_exist():
    headings = [line.removeprefix("### ") for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("### ")]
    assert sorted(headings) == sorted(SPECS)

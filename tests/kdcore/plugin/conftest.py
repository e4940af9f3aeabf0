"""Plugins of the tests' own, as modules in a folder."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from textwrap import dedent

import pytest

from kdcore.plugin.manager import PluginManager


class Workshop:
    """Writes modules and files, and makes managers that find them."""

    def __init__(self, folder: Path):
        self.folder = folder

    def write(self, name: str, code: str) -> Path:
        file = self.folder / f"{name}.py"
        file.write_text("from kdcore import hookimpl\n" + dedent(code))
        return file

    def plugin(self, name: str, code: str, plugin: str = "") -> EntryPoint:
        self.write(name, code)
        return EntryPoint(plugin or name.replace("_", "-"), name, "kdcore")

    def manager(self, **modules: str) -> PluginManager:
        return PluginManager([self.plugin(name, code) for name, code in modules.items()])


@pytest.fixture
def workshop(tmp_path, monkeypatch):
    """A folder for modules, which are forgotten afterwards."""
    folder = tmp_path / "modules"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    before = set(sys.modules)
    yield Workshop(folder)
    for name in set(sys.modules) - before:
        if str(folder.parent) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]

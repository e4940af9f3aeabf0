"""A folder to run kdcore in."""

from __future__ import annotations

import pytest
from runs import Home


@pytest.fixture
def home(tmp_path, database, monkeypatch) -> Home:
    made = Home(tmp_path / "home", database)
    made.folder.mkdir()
    monkeypatch.chdir(made.folder)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return made

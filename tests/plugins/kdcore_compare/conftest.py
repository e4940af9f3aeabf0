"""Runs of the tiny recipe to compare."""

from __future__ import annotations

import pytest
from quick import QUICK
from runs import Home


@pytest.fixture(scope="session")
def two_seeds(tmp_path_factory, database):
    """The tiny recipe with one epoch a stage, run with two seeds."""
    home = Home(tmp_path_factory.mktemp("two-seeds"), database).write(**QUICK)
    assert home.run() == 0, home.said()
    return home


@pytest.fixture
def in_home(monkeypatch):
    """Makes this process work in a home."""

    def enter(home: Home) -> Home:
        monkeypatch.chdir(home.folder)
        for name, value in home.environment.items():
            monkeypatch.setenv(name, value)
        return home

    return enter

from __future__ import annotations

import itertools

import pytest
from runs import Home


@pytest.fixture(scope="session")
def database(tmp_path_factory):
    """One MLflow database for all, since making one takes seconds; each home has an experiment of its own."""
    return tmp_path_factory.mktemp("mlflow") / "mlflow.db"


@pytest.fixture
def new_home(tmp_path_factory, database):
    """Makes a folder with the tiny recipe, of which sections may be replaced."""
    numbers = itertools.count()

    def make(**sections):
        return Home(tmp_path_factory.mktemp(f"home{next(numbers)}-"), database).write(**sections)

    return make


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory, database):
    """The tiny recipe, run from start to end."""
    home = Home(tmp_path_factory.mktemp("uninterrupted"), database).write()
    assert home.run() == 0, home.said()
    return home

"""Fixtures that all tests share: where recordings and golden numbers are, where they exist."""

from __future__ import annotations

import atexit
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests are shared out to as many workers as there are cores
if "KDCORE_CACHE" not in os.environ:  # what tests change in memory must not reach the user's cache
    os.environ["KDCORE_CACHE"] = tempfile.mkdtemp(prefix="kdcore-tests-")
    atexit.register(shutil.rmtree, os.environ["KDCORE_CACHE"], ignore_errors=True)

import numpy as np
import pytest
from cheap_runs import leave_out_figures, leave_out_package_scan
from runs import Home

from kdcore_report.html_page import Pictures

DRAW = Pictures.figure
leave_out_figures()
leave_out_package_scan()

BESIDE = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The folder of real recordings; tests that ask for it skip where it is absent."""
    folder = Path(os.environ.get("KDCORE_DATA", BESIDE / "data"))
    if not folder.is_dir():
        pytest.skip(f"real recordings are not here: set KDCORE_DATA (looked in {folder})")
    return folder


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Mapping[str, Any]]:
    """Opens a file of golden numbers, e.g. ``golden("b_losses")``; tests that ask for it skip where they are absent."""
    folder = Path(os.environ.get("KDCORE_GOLDEN", BESIDE / "golden"))
    if not folder.is_dir():
        pytest.skip(f"golden numbers are not here: set KDCORE_GOLDEN (looked in {folder})")

    def open_file(name: str) -> Mapping[str, Any]:
        with np.load(folder / f"{name}.npz", allow_pickle=False) as file:
            return {key: file[key] for key in file.files}

    return open_file


@pytest.fixture
def figures(monkeypatch):
    """Reports that the test writes have their figures drawn."""
    monkeypatch.setattr(Pictures, "figure", DRAW)


@pytest.fixture(scope="module")
def module_figures():
    """Reports that fixtures of the module write have their figures drawn."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pictures, "figure", DRAW)
        yield


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
    home = Home(tmp_path_factory.mktemp("uninterrupted"), database, figures=True).write()
    assert home.run() == 0, home.said()
    return home

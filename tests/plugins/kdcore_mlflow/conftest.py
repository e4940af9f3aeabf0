from __future__ import annotations

import pytest
from runs import Home, encoder


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A run with two students, tracked in a database."""
    folder = tmp_path_factory.mktemp("registry")
    chain = [{"name": "resample", "length": 32}, "normalise"]
    member = {"modality": "accelerometer", "transforms": chain, "encoder": encoder()}
    home = Home(folder / "home", folder / "mlflow.db")
    home.write(
        teachers={},
        student=None,
        students={"a": member, "b": member},
        losses=["cross-entropy"],
        schedule={"name": "two-stage", "student": {"epochs": 1}},
        seeds=[0],
        baseline=False,
    )
    assert home.run() == 0, home.said()
    return home


@pytest.fixture(scope="session")
def students(trained):
    """The folder of the seed's students."""
    return trained.runs[0] / "students" / "seed-0"

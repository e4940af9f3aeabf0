from __future__ import annotations

import pytest
from runs import Home, encoder

from kdcore_export.export import Request, export_student


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A run with two students, a convolutional and a recurrent one, tracked in a database."""
    folder = tmp_path_factory.mktemp("export")
    chain = [{"name": "resample", "length": 32}, "normalise", "magnitude", {"name": "jitter", "std": 0.1}]
    members = {
        "a": {"modality": "accelerometer", "transforms": chain, "encoder": encoder(norm="batch")},
        "b": {"modality": "accelerometer", "transforms": chain, "encoder": {"name": "lstm", "hidden": 8}},
    }
    home = Home(folder / "home", folder / "mlflow.db")
    home.write(
        teachers={},
        student=None,
        students=members,
        losses=["cross-entropy"],
        schedule={"name": "two-stage", "student": {"epochs": 12}},
        seeds=[0],
        baseline=False,
    )
    assert home.run() == 0, home.said()
    return home


@pytest.fixture(scope="session")
def students(trained):
    """The folder of the seed's students."""
    return trained.runs[0] / "students" / "seed-0"


@pytest.fixture(scope="session")
def exported(students, tmp_path_factory):
    """The file of a student exported with these options, and what was said of it; made once."""
    made = {}

    def export(student="a", **options):
        key = (student, *sorted(options.items()))
        if key not in made:
            file = tmp_path_factory.mktemp("files") / "student.onnx"
            lines = list(export_student(Request(str(students / student), file, **options)))
            made[key] = file, dict(line.split(None, 1) for line in lines)
        return made[key]

    return export

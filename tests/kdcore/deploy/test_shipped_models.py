"""The models that come with kdcore: found by name, listed, used offline, and small."""

from __future__ import annotations

import json

import numpy as np
import pytest
from saved import CLASSES, saved_student, walk

from kdcore.cli.main import main
from kdcore.deploy import shipped_models
from kdcore.deploy.saved_student import load_student
from kdcore.errors import CheckpointError, UsageError
from kdcore.runs.find_student import find_student


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of shipped models with a single one, and a recording beside it."""
    student = saved_student(tmp_path / "models" / "toy" / "wrist")
    (student / shipped_models.CARD).write_text("# A card\n")
    np.savetxt(tmp_path / "clip.csv", walk(70), delimiter=",", header="x,y,z", comments="")
    monkeypatch.setattr(shipped_models, "_folder", lambda: tmp_path / "models")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KDCORE_RUNS", str(tmp_path / "runs"))
    return tmp_path / "models"


def kdcore(monkeypatch, *words):
    monkeypatch.setattr("sys.argv", ["kdcore", *words])
    with pytest.raises(SystemExit) as stopped:
        main()
    return stopped.value.code


def test_a_model_is_used_by_its_name(folder, monkeypatch, capsys):
    probabilities = load_student(folder / "toy" / "wrist").predict((walk(70), 50.0))[0]
    for words in (["--model", "toy/wrist", "clip.csv"], ["toy/wrist", "clip.csv"]):
        assert kdcore(monkeypatch, "predict", *words, "--rate", "50", "--top", "1") == 0
        assert capsys.readouterr().out == f"clip.csv: {CLASSES[probabilities.argmax()]} {probabilities.max():.3f}\n"
    assert kdcore(monkeypatch, "predict", "--model", "toy/wrst", "clip.csv") == 2
    assert capsys.readouterr().err == "error: there is no shipped model 'toy/wrst'; did you mean 'toy/wrist'?\n"
    assert kdcore(monkeypatch, "predict", "toy/wrist") == UsageError.exit_code
    assert "no recording to classify with 'toy/wrist'" in capsys.readouterr().err


def test_list_and_card(folder, monkeypatch, capsys):
    assert kdcore(monkeypatch, "models", "list") == 0
    assert kdcore(monkeypatch, "models", "card", "toy/wrist") == 0
    assert capsys.readouterr().out == "toy/wrist  accelerometer, 3 classes\n# A card\n"


def test_a_folder_of_that_name_comes_first(folder, tmp_path):
    assert find_student("toy/wrist") == folder / "toy" / "wrist"
    own = saved_student(tmp_path / "toy" / "wrist", seed=1)
    assert find_student("toy/wrist").resolve() == own
    with pytest.raises(CheckpointError, match="shipped are: toy/wrist"):
        shipped_models.find_model("elsewhere")


@pytest.mark.parametrize("name", shipped_models.list_models())
def test_shipped_models_are_complete(name):
    folder = shipped_models.find_model(name)
    student = load_student(folder)
    card = (folder / shipped_models.CARD).read_text(encoding="utf-8")
    for word in ("Licence", "cite", "Test", "seed", *student.classes):
        assert word in card, word
    told = json.loads((folder / "student.json").read_text())
    assert not [each for each in _texts(told) if each.startswith(("/", "~"))]  # no paths of where it was trained
    shapes = {key: each["shape"] for key, each in student.description["recorded"].items()}
    [probabilities] = student.predict({key: (np.zeros(shape), 50.0) for key, shape in shapes.items()})
    assert probabilities.sum() == pytest.approx(1, abs=1e-5)


def _texts(value):
    if isinstance(value, str):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _texts(each)


def test_all_models_together_are_small():
    size = sum(file.stat().st_size for file in shipped_models._folder().rglob("*") if file.is_file())
    assert 0 < size <= 5_000_000

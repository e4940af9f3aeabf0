"""Saved students that are damaged, mixed up or hostile are refused in one sentence; nothing in a folder is executed."""

from __future__ import annotations

import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from saved import CLASSES, saved_student

from kdcore import load_student
from kdcore.deploy import saved_student as module
from kdcore.errors import CheckpointError, PluginError


@pytest.fixture
def folder(tmp_path):
    return saved_student(tmp_path / "student")


def edit(folder, **changes):
    path = folder / "student.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refused(folder, said, kind=CheckpointError):
    with pytest.raises(kind, match=said) as raised:
        load_student(folder)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 700


def test_a_student_carries_classes_statistics_and_versions(folder):
    student = load_student(folder)
    assert student.classes == CLASSES
    assert student.description["kdcore"]
    assert {"model.batch_transforms.branches.0.0.mean", "model.batch_transforms.branches.0.0.std"} <= set(student.state_dict())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"classes": ["walk", "stand", "sit"]}, "disagree about classes"),
        ({"classes": ["sit", "stand"]}, "disagree about classes"),
        ({"in_shape": [3, 25]}, "disagree about in_shape"),
        ({"classes": []}, "classes"),
        ({"classes": ["sit", "sit", "walk"]}, "two classes have the same name"),
        ({"in_shape": [3, -1]}, r"in_shape\.1"),
        ({"encoder": {"name": "cnn1d", "width": 9, "depth": 2}}, "does not fit the encoder"),
        ({"encoder": {"name": "cnn1d", "width": 10**6, "depth": 4}}, "does not fit the encoder"),
        ({"encoder": {}}, r"encoder\.name"),
        ({"encoder": "cnn1d"}, "encoder"),
        ({"transforms": {}}, "damaged"),
        ({"transforms": {"accelerometer": [], "joined": []}}, "does not fit"),
        ({"modalities": []}, ""),
        ({"modalities": [{"name": "accelerometer"}]}, "damaged"),
        ({"window": {"length": -1}}, r"window\.length"),
        ({"format": 2}, "newer than this one"),
        ({"format": "x"}, "format"),
    ],
)
def test_a_description_that_disagrees_is_refused(folder, changes, said):
    edit(folder, **changes)
    refused(folder, said)


def test_an_option_that_the_encoder_does_not_have(folder):
    edit(folder, encoder={"name": "cnn1d", "width": 8, "deep": 2})
    refused(folder, "could not construct encoder 'cnn1d' of plugin '[a-z]+': it has no option 'deep'", PluginError)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"a": ' * 100_000])
def test_a_damaged_description(folder, content):
    (folder / "student.json").write_bytes(content)
    refused(folder, r"student\.json: (damaged|not the description)")


class Bomb:
    def __reduce__(self):
        return (open, ("executed", "w"))


def test_damaged_weights(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = folder / "weights.safetensors"
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for content in (
        b"",
        whole[:-1],
        whole[: len(whole) // 2],
        whole + b"x",
        pickle.dumps(Bomb()),
        rng.bytes(1000),
        b"\xff" * 64,
    ):
        path.write_bytes(content)
        refused(folder, r"weights\.safetensors: not a readable safetensors file")
    torch.save({"encoder": Bomb()}, path)
    refused(folder, "not a readable safetensors file")
    assert not (tmp_path / "executed").exists()
    path.write_bytes(whole)
    weights = load_file(path)
    name = next(each for each in weights if "encoder" in each)
    save_file(weights | {name: weights[name] * torch.nan}, path)
    refused(folder, "values that are not finite")
    save_file({key: value for key, value in weights.items() if key != name}, path)
    refused(folder, "does not fit the encoder")
    save_file(weights | {"encoder.more": torch.zeros(2)}, path)
    refused(folder, "does not fit the encoder")


def test_files_of_two_students(folder, tmp_path):
    other = saved_student(tmp_path / "other", classes=["run", "jump", "walk"])
    shutil.copy(other / "weights.safetensors", folder / "weights.safetensors")
    refused(folder, r"student\.json and weights\.safetensors disagree about classes; they belong to different students")


def test_links_and_sizes(folder, tmp_path, monkeypatch):
    for name in ("weights.safetensors", "student.json"):
        shutil.move(folder / name, tmp_path / name)
        (folder / name).symlink_to(tmp_path / name)
        refused(folder, "refused: it is a link to a file outside the folder")
        (folder / name).unlink()
        shutil.move(tmp_path / name, folder / name)
    (folder / "loop").symlink_to(folder / "loop")
    load_student(folder)
    monkeypatch.setattr(module, "LARGEST_WEIGHTS", 100)
    refused(folder, "more than the limit of 100")
    monkeypatch.setattr(module, "LARGEST_DESCRIPTION", 10)
    refused(folder, "more than the limit of 10")


def test_an_empty_folder_and_a_folder_in_place_of_a_file(tmp_path):
    refused(tmp_path, "holds no saved student")
    refused(tmp_path / "nowhere", "no such folder .kdcore.find_student")
    (tmp_path / "student.json").mkdir()
    refused(tmp_path, "not a file")

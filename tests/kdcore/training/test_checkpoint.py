"""Checkpoints survive crashes and full disks, and loading one executes nothing."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdcore.errors import CheckpointError, TrainingError
from kdcore.training.checkpoint import Checkpoints, Spacing, load_state, load_weights, read_checkpoint, save_weights, write_file

FILES = ["weights.safetensors", "state.pt", "manifest.json"]


def content(number):
    return {"layer.weight": torch.full((3, 2), float(number))}, {"epoch": number, "random": [torch.arange(number)]}


def same(found, number):
    weights, state = content(number)
    assert found[0].keys() == weights.keys()
    assert torch.equal(found[0]["layer.weight"], weights["layer.weight"])
    assert found[1]["epoch"] == number
    assert torch.equal(found[1]["random"][0], state["random"][0])


@pytest.fixture
def checkpoints(tmp_path):
    made = Checkpoints(tmp_path / "checkpoints", keep=2)
    made.save(*content(1))
    return made


def test_the_newest_is_loaded_and_the_oldest_go(checkpoints):
    same(checkpoints.load(), 1)
    for number in (2, 3, 4):
        checkpoints.save(*content(number))
        same(checkpoints.load(), number)
    assert len(list(checkpoints.folder.iterdir())) == 2


def test_none_is_there_at_first_and_after_clearing(tmp_path, checkpoints):
    assert Checkpoints(tmp_path / "other").load() is None
    checkpoints.clear()
    assert checkpoints.load() is None
    checkpoints.clear()
    checkpoints.save(*content(5))
    same(checkpoints.load(), 5)


def test_one_stopped_while_clearing_is_not_taken_for_a_whole_one(checkpoints, monkeypatch):
    real = shutil.rmtree

    def half(folder, *args, **kwargs):
        if Path(folder).exists():
            next(Path(folder).rglob("manifest.json")).unlink()
            raise KeyboardInterrupt
        real(folder, *args, **kwargs)

    monkeypatch.setattr(shutil, "rmtree", half)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.clear()
    monkeypatch.undo()
    assert checkpoints.load() is None
    checkpoints.save(*content(2))
    checkpoints.clear()
    assert checkpoints.load() is None


class Stopped(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("function", ["os.fsync", "pathlib.Path.rename"])
@pytest.mark.parametrize("call", range(1, 7))
def test_stopped_at_any_call_the_last_whole_one_remains(checkpoints, monkeypatch, function, call):
    calls = iter(range(1, 100))
    owner, name = (os, "fsync") if function == "os.fsync" else (Path, "rename")
    real = getattr(owner, name)

    def stopping(*args):
        if next(calls) == call:
            raise Stopped
        return real(*args)

    monkeypatch.setattr(owner, name, stopping)
    saved = []
    with contextlib.suppress(Stopped):
        saved.append(checkpoints.save(*content(2)))
    monkeypatch.undo()
    fresh = Checkpoints(checkpoints.folder)
    found = fresh.load()
    assert found is not None
    same(found, found[1]["epoch"])
    assert found[1]["epoch"] in ([2] if saved else [1, 2])
    fresh.save(*content(3))
    same(fresh.load(), 3)


@pytest.mark.parametrize("call", range(1, 4))
def test_a_full_disk_is_named_and_leaves_the_previous_one(checkpoints, monkeypatch, call):
    calls = iter(range(1, 100))

    def full(descriptor):
        if next(calls) == call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TrainingError, match=r"cannot write .*00000002: the disk is full; earlier checkpoints are intact"):
        checkpoints.save(*content(2))
    monkeypatch.undo()
    same(checkpoints.load(), 1)
    assert [path.name for path in checkpoints.folder.iterdir()] == ["00000001"]


def test_a_file_that_cannot_be_written_is_as_before(tmp_path, monkeypatch):
    file = tmp_path / "progress.json"
    write_file(file, b"before")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TrainingError, match=r"progress\.json: the disk is full"):
        write_file(file, b"after")
    assert file.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("harm", ["missing", "cut short", "emptied", "a bit flipped"])
def test_damage_is_named(checkpoints, name, harm):
    file = checkpoints.folder / "00000001" / name
    data = file.read_bytes()
    if harm == "missing":
        file.unlink()
    else:
        file.write_bytes(
            {
                "cut short": data[: len(data) // 2],
                "emptied": b"",
                "a bit flipped": data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
            }[harm]
        )
    with pytest.raises(CheckpointError, match="00000001") as error:
        checkpoints.load()
    if name != "manifest.json":
        assert name in str(error.value)


class Payload:
    def __init__(self, proof):
        self.proof = proof

    def __reduce__(self):
        return Path.touch, (self.proof,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_a_poisoned_state_is_refused_and_not_executed(tmp_path, checkpoints, write):
    proof, folder = tmp_path / "executed", checkpoints.folder / "00000001"
    write({"epoch": 1, "payload": Payload(proof)}, folder / "state.pt")
    digests = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in FILES[:2]}
    (folder / "manifest.json").write_text(json.dumps(digests))
    with pytest.raises(CheckpointError, match=r"state\.pt"):
        checkpoints.load()
    with pytest.raises(CheckpointError, match=r"state\.pt"):
        load_state(folder / "state.pt")
    assert not proof.exists()


@pytest.mark.parametrize("manifest", ["[]", "null", '"text"', "3", "{}"])
def test_a_manifest_that_is_none(checkpoints, manifest):
    (checkpoints.folder / "00000001" / "manifest.json").write_text(manifest)
    with pytest.raises(CheckpointError, match="00000001"):
        checkpoints.load()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_damage_gets_past_the_readers(tmp_path, data):
    """Whatever is changed in a file, its reader returns or says that it cannot read it."""
    weights, state = tmp_path / "w.safetensors", tmp_path / "s.pt"
    if not weights.exists():
        save_weights(weights, content(3)[0])
        torch.save(content(3)[1], state)
        (tmp_path / "kept").mkdir()
        shutil.copy(weights, tmp_path / "kept")
        shutil.copy(state, tmp_path / "kept")
    path, reader = data.draw(st.sampled_from([(weights, load_weights), (state, load_state)]))
    content_before = bytearray((tmp_path / "kept" / path.name).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content_before[data.draw(st.integers(0, min(len(content_before), 600) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content_before[: data.draw(st.integers(0, len(content_before)))])
    with contextlib.suppress(CheckpointError):
        reader(path)


def test_a_folder_that_is_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="incomplete checkpoint"):
        read_checkpoint(tmp_path)


def test_weights_are_written_as_they_are(tmp_path):
    shared = torch.arange(6.0).view(2, 3)
    digest = save_weights(tmp_path / "w.safetensors", {"a": shared, "b": shared.T, "c": torch.tensor(3)})
    found = load_weights(tmp_path / "w.safetensors")
    assert torch.equal(found["b"], shared.T)
    assert found["c"].shape == ()
    assert digest == hashlib.sha256((tmp_path / "w.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("seconds", "took", "expected"), [(30, 0.5, 30), (30, 3.0, 60), (0, 3.0, 0), (float("inf"), 3.0, None)]
)
def test_checkpoints_take_no_more_than_a_twentieth_of_the_time(monkeypatch, seconds, took, expected):
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr("kdcore.training.checkpoint.time", SimpleNamespace(monotonic=lambda: clock.now))
    spacing = Spacing(seconds)
    with spacing.saving():
        clock.now += took
    waited = next((wait for wait in range(1000) if spacing.due(clock.now + wait)), None)
    assert waited == expected

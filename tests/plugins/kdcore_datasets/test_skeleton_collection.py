from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdcore import DataError
from kdcore.data.fingerprint import Hashes, fingerprint
from kdcore_datasets.protocols.conditions import CrossSession
from kdcore_datasets.protocols.ntu import NtuCrossSubject
from kdcore_datasets.skeleton_collection import SkeletonCollection

NAMES = "S{scene}C{view}P{subject}R{trial}A{action}"


def clip(name: str, label: int, persons: int = 1) -> dict[str, Any]:
    place = np.fromfunction(lambda m, t, v, c: 1000 * m + 100 * t + 10 * v + c + label, (persons, 4, 5, 3))
    return {"frame_dir": name, "label": label, "keypoint": place.astype(np.float16), "total_frames": 4}


@pytest.fixture
def content() -> dict[str, Any]:
    names = ["S001C001P001R001A001", "S001C001P002R001A002", "S001C002P003R001A001"]
    clips = [clip(names[0], 0), clip(names[1], 1, persons=2), clip(names[2], 0, persons=3)]
    return {"split": {"xsub_train": names[:1], "xsub_val": names[1:2], "xview_train": names}, "annotations": clips}


def dump(content: object, path: Path, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", range(6))
def test_clips_of_a_pickle(tmp_path: Path, content: dict[str, Any], protocol: int):
    path = dump(content, tmp_path / "ntu.pkl", protocol)
    dataset = SkeletonCollection(file=path, classes=("drink", "eat"), names=NAMES)
    samples = dataset.samples()
    assert [(s.key.subject, s.key.view, s.key.action, s.label) for s in samples] == [
        ("1", "1", "1", 0),
        ("2", "1", "2", 1),
        ("3", "2", "1", 0),
    ]
    one, _, three = (dataset.read(sample, "skeleton") for sample in samples)
    assert one.values.shape == three.values.shape == (4, 5, 3, 2)
    assert one.values[3, 2, 1, 0] == 321
    assert not one.values[..., 1].any()
    assert three.values[1, 0, 2, 1] == 1102
    assert len(NtuCrossSubject().split(samples).samples["train"]) == 2


def test_published_splits_are_sessions(tmp_path: Path, content: dict[str, Any]):
    path = dump(content, tmp_path / "ntu.pkl")
    dataset = SkeletonCollection(file=path, classes=("drink", "eat"), split="xsub", names=NAMES)
    splits = CrossSession(train_sessions=("train",), test_sessions=("val",)).split(dataset.samples())
    assert [sample.key.subject for sample in splits.samples["train"]] == ["1"]
    assert [sample.key.subject for sample in splits.samples["test"]] == ["2"]
    with pytest.raises(DataError, match="has no split 'xset'; its parts are xsub_train, xsub_val and xview_train"):
        SkeletonCollection(file=path, classes=("drink", "eat"), split="xset").samples()


def test_a_moved_file_has_the_same_fingerprint_until_a_number_in_it_changes(tmp_path: Path, content: dict[str, Any]):
    def taken(folder: str) -> str:
        (tmp_path / folder).mkdir(exist_ok=True)
        path = dump(content, tmp_path / folder / "ntu.pkl")
        made = SkeletonCollection(file=path, classes=("drink", "eat"), names=NAMES)
        return fingerprint(made, made.samples(), {"file": str(path)}, Hashes(tmp_path / "hashes.json"))

    before = taken("here")
    assert taken("there") == before
    content["annotations"][0]["keypoint"][0, 0, 0, 0] += 1
    assert taken("here") != before


def test_a_clip_on_both_sides_of_a_split_is_refused(tmp_path: Path, content: dict[str, Any]):
    content["split"]["xsub_val"].append("S001C001P001R001A001")
    path = dump(content, tmp_path / "ntu.pkl")
    with pytest.raises(DataError, match=r"ntu.pkl: clip 'S001C001P001R001A001' is in both xsub_train and xsub_val"):
        SkeletonCollection(file=path, classes=("drink", "eat"), split="xsub", names=NAMES).samples()
    assert len(SkeletonCollection(file=path, classes=("drink", "eat"), split="xview", names=NAMES).samples()) == 3


class Evil:
    def __reduce__(self):
        return os.mkdir, (os.environ["EVIL_FOLDER"],)


@pytest.mark.parametrize("protocol", range(6))
def test_code_in_a_pickle_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int):
    monkeypatch.setenv("EVIL_FOLDER", str(tmp_path / "ran"))
    path = dump({"annotations": [clip("a", 0), Evil()]}, tmp_path / "evil.pkl", protocol)
    with pytest.raises(DataError, match=r"evil.pkl.*refers to (posix|nt|os)\.mkdir"):
        SkeletonCollection(file=path, classes=("a",)).samples()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, "no list of annotations"),
        ([], "no list of annotations"),
        ([{"frame_dir": "a", "label": 0}], "annotation 0 must have frame_dir, label and keypoint"),
        ([1], "annotation 0 must have"),
        ([{"frame_dir": "a", "label": 0, "keypoint": np.ones((2, 3))}], r"expected \(any, any, any, any\)"),
        ([{"frame_dir": "a", "label": 0, "keypoint": np.ones((1, 0, 5, 3))}], "is empty"),
        ([clip("a", 0), {**clip("b", 0), "total_frames": 7}], "clip 'b' has 4 frames, but total_frames is 7"),
        ([clip("a", 0), clip("b", 0), clip("a", 1)], "holds two clips called 'a'"),
        (
            [clip("a", 0), {**clip("b", 0), "keypoint": np.ones((1, 4, 6, 3))}],
            "clip 'b' has 6 joints of 3 coordinates, clip 'a' has 5 joints of 3",
        ),
        ([{**clip("a", 0), "keypoint": np.full((1, 4, 5, 3), 1e308)}], "60 value.* too large"),
    ],
)
def test_strange_content(tmp_path: Path, content: object, said: str):
    path = dump(content, tmp_path / "odd.pkl")
    dataset = SkeletonCollection(file=path, classes=("x", "y"))
    with pytest.raises(DataError, match=f"odd.pkl.*{said}"):
        dataset.read(dataset.samples()[0], "skeleton")


def test_one_strange_clip_leaves_the_others(tmp_path: Path):
    path = dump([clip("a", 5), clip("b/c", 0), clip("d", 1)], tmp_path / "odd.pkl")
    dataset = SkeletonCollection(file=path, classes=("x", "y"))
    assert [sample.key.trial for sample in dataset.samples()] == ["d"]
    label, name = (each.detail for each in dataset.unusable)
    assert "has label 5, of 2 classes" in label
    assert "does not fit" in name


def test_damaged_files(tmp_path: Path, content: dict[str, Any]):
    path = dump(content, tmp_path / "cut.pkl")
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(DataError, match=r"cut.pkl: cannot be read as a pickle"):
        SkeletonCollection(file=path, classes=("x", "y")).samples()
    with pytest.raises(DataError, match="is a folder"):
        SkeletonCollection(file=tmp_path, classes=("x",)).samples()
    with pytest.raises(DataError, match="no such file"):
        SkeletonCollection(file=tmp_path / "absent.pkl", classes=("x",)).samples()
    content["annotations"][0]["keypoint"][0, 0, 0, 0] = np.nan
    dataset = SkeletonCollection(file=dump(content, path), classes=("x", "y"))
    with pytest.raises(DataError, match=r"S001C001P001R001A001.*not finite"):
        dataset.read(dataset.samples()[0], "skeleton")


def test_an_archive_of_padded_clips(tmp_path: Path):
    x = np.zeros((2, 6, 2 * 5 * 3), dtype=np.float32)
    x[0, :4] = np.arange(1, 31)
    x[1, :6] = 7
    np.savez(tmp_path / "cs.npz", x_train=x[:1], y_train=np.eye(3)[[2]], x_test=x[1:], y_test=np.array([1]))
    dataset = SkeletonCollection(file=tmp_path / "cs.npz", classes=("a", "b", "c"), joints=5)
    train, test = dataset.samples()
    assert [(s.key.session, s.label) for s in (train, test)] == [("train", 2), ("test", 1)]
    signal = dataset.read(train, "skeleton")
    assert signal.values.shape == (4, 5, 3, 2)
    np.testing.assert_array_equal(signal.values[0, 1, :, 0], [4, 5, 6])
    np.testing.assert_array_equal(signal.values[0, 0, :, 1], [16, 17, 18])
    with pytest.raises(DataError, match="not a multiple of 7 joints"):
        SkeletonCollection(file=tmp_path / "cs.npz", classes=("a", "b", "c"), joints=7).samples()
    np.savez(tmp_path / "cs.npz", x_train=x)
    with pytest.raises(DataError, match=r"cs.npz: is not an archive of x_train"):
        SkeletonCollection(file=tmp_path / "cs.npz", classes=("a", "b", "c")).samples()


def test_of_more_persons_those_that_move_most_are_kept_if_the_recipe_says_so(tmp_path: Path):
    still, slow, fast = (
        speed * np.arange(4.0)[:, None, None] + np.zeros((4, 5, 3)) + 10 * n for n, speed in enumerate((0, 1, 2))
    )
    annotation = {"frame_dir": "a", "label": 0, "keypoint": np.stack([slow, still, fast])}
    path = dump({"annotations": [annotation]}, tmp_path / "a.pkl")
    for choose, kept in (("order", [slow, still]), ("motion", [slow, fast])):
        dataset = SkeletonCollection(file=path, classes=("drink",), choose=choose)
        [sample] = dataset.samples()
        np.testing.assert_array_equal(dataset.read(sample, "skeleton").values, np.stack(kept, axis=-1))
        assert "1 of 1 clips have more than 2 persons" in dataset.notes[0]
        assert ("move most" in dataset.notes[0]) == (choose == "motion")


def test_confidences_of_two_dimensional_joints_are_a_third_channel(tmp_path: Path):
    generator = np.random.default_rng(0)
    annotation = {"frame_dir": "a", "label": 0, "keypoint": generator.normal(size=(1, 4, 5, 2))}
    annotation["keypoint_score"] = generator.random((1, 4, 5))
    path = dump({"annotations": [annotation]}, tmp_path / "a.pkl")
    dataset = SkeletonCollection(file=path, classes=("drink",), persons=1, coordinates="xy-confidence")
    assert dataset.modalities["skeleton"].channels == ("x", "y", "confidence")
    values = dataset.read(dataset.samples()[0], "skeleton").values[..., 0]
    np.testing.assert_array_equal(values[..., :2], annotation["keypoint"][0].astype(np.float32))
    np.testing.assert_array_equal(values[..., 2], annotation["keypoint_score"][0].astype(np.float32))
    for coordinates, said in (("xyz", "has 2 coordinates for each joint, but coordinates is xyz"), ("xy", "")):
        dataset = SkeletonCollection(file=path, classes=("drink",), coordinates=coordinates)
        if said:
            with pytest.raises(DataError, match=said):
                dataset.read(dataset.samples()[0], "skeleton")
        else:
            assert dataset.read(dataset.samples()[0], "skeleton").values.shape == (4, 5, 2, 2)

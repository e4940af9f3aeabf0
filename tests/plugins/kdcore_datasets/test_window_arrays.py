"""Windows in arrays: each row of each format is the sample it was written as, and what does not fit together is named."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kdcore import DataError
from kdcore.data.fingerprint import Hashes, fingerprint
from kdcore.data.leakage import similar_names
from kdcore_datasets.window_arrays import UciHar, Windows, WindowSet

GENERATOR = np.random.default_rng(3)
X = GENERATOR.normal(size=(7, 5, 3)).round(3)
Y = np.array([0, 1, 0, 1, 1, 0, 1])
WHO = np.array([1, 1, 1, 2, 2, 12, 12])


def save_dataset(folder: Path, columns: dict[str, Any], features: dict[str, Any] | None = None) -> Path:
    """What `Dataset.save_to_disk` of Hugging Face `datasets` writes: Arrow streams and two descriptions; three rows a batch."""
    folder.mkdir(parents=True)
    table = pa.table(columns)
    files = []
    for number, part in enumerate((table.slice(0, 4), table.slice(4))):
        files.append({"filename": f"data-0000{number}-of-00002.arrow"})
        with pa.ipc.new_stream(folder / files[-1]["filename"], table.schema) as stream:
            stream.write_table(part, max_chunksize=3)
    (folder / "state.json").write_text(json.dumps({"_data_files": files, "_format_type": None}))
    (folder / "dataset_info.json").write_text(json.dumps({"features": features or {}}))
    return folder


def write(folder: Path, kind: str) -> dict[str, Any]:
    """The arrays in files of one kind; the description of the set."""
    if kind == "npz":
        np.savez(folder / "all.npz", X=X, y=Y, who=WHO)
        return {"signals": {"accelerometer": ("all.npz:X",)}, "labels": "all.npz:y", "subjects": "all.npz:who"}
    if kind == "parquet":
        pq.write_table(pa.table({"X": X.tolist(), "y": Y, "who": WHO}), folder / "all.parquet")
        return {"signals": {"accelerometer": ("all.parquet:X",)}, "labels": "all.parquet:y", "subjects": "all.parquet:who"}
    if kind == "hdf5":
        h5py = pytest.importorskip("h5py")
        with h5py.File(folder / "all.h5", "w") as file:
            file.create_dataset("a/X", data=X, chunks=(2, 5, 3), compression="gzip")
            file["a/y"], file["who"] = Y, [str(each) for each in WHO]
        return {"signals": {"accelerometer": ("all.h5:a/X",)}, "labels": "all.h5:a/y", "subjects": "all.h5:who"}
    if kind == "datasets":
        save_dataset(folder / "all", {"X": X.tolist(), "y": Y, "who": WHO})
        return {"signals": {"accelerometer": ("all:X",)}, "labels": "all:y", "subjects": "all:who"}
    for name, array in (("y", Y), ("who", WHO)):
        np.save(folder / f"{name}.npy", array)
        np.savetxt(folder / f"{name}.txt", array, fmt="%d")
    if kind == "npy":
        np.save(folder / "X.npy", X)
        return {"signals": {"accelerometer": ("X.npy",)}, "labels": "y.npy", "subjects": "who.npy"}
    for channel in range(3):
        np.savetxt(folder / f"x{channel}.txt", X[:, :, channel])
    return {"signals": {"accelerometer": ("x0.txt", "x1.txt", "x2.txt")}, "labels": "y.txt", "subjects": "who.txt"}


def dataset(folder: Path, described: dict[str, Any], **options: Any) -> Windows:
    return Windows(root=folder, sets={"all": WindowSet(**described)}, rate=50, **options)


@pytest.mark.parametrize("kind", ["npz", "parquet", "hdf5", "datasets", "npy", "text"])
def test_every_format_gives_every_row_as_it_was_written(tmp_path, kind):
    data = dataset(tmp_path, write(tmp_path, kind), names={"0": "walk", "1": "sit"})
    samples = data.samples()
    assert data.classes == ("sit", "walk")
    assert len(samples) == 7
    for sample in samples:
        row = int(sample.key.trial)
        assert (sample.key.subject, data.classes[sample.label]) == (str(WHO[row]), ("walk", "sit")[Y[row]])
        signal = data.read(sample, "accelerometer")
        np.testing.assert_allclose(signal.values, X[row], rtol=1e-6)
        assert signal.rate == 50


def test_axes_channels_and_units_are_as_the_recipe_says(tmp_path):
    np.savez(tmp_path / "all.npz", X=X.transpose(0, 2, 1), y=Y)
    described = {"signals": {"gyroscope": ("all.npz:X",)}, "labels": "all.npz:y", "channels": {"gyroscope": (2, 0)}}
    data = dataset(tmp_path, described, axes="windows-channels-time", units={"gyroscope": "deg/s"})
    for sample in data.samples():
        expected = X[int(sample.key.trial)][:, [2, 0]] * np.pi / 180
        np.testing.assert_allclose(data.read(sample, "gyroscope").values, expected, rtol=1e-5)
        assert sample.key.subject == "all"


def test_samples_are_identified_by_the_content_of_their_files(tmp_path):
    def taken(folder):
        data = dataset(folder, write(folder, "npz"))
        return fingerprint(data, data.samples(), {"root": str(folder)}, Hashes(tmp_path / "hashes.json"))

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = taken(tmp_path / "a"), taken(tmp_path / "b")
    assert first == second
    np.savez(tmp_path / "b" / "all.npz", X=X + 1, y=Y, who=WHO)
    data = dataset(tmp_path / "b", {"signals": {"accelerometer": ("all.npz:X",)}, "labels": "all.npz:y"})
    assert fingerprint(data, data.samples(), {}, Hashes(tmp_path / "hashes.json")) != first


@pytest.mark.parametrize(("labels", "classes"), [(np.array(["True", "False"]), 2), (np.array([1, 0]), 4)])
def test_boolean_labels_are_the_same_classes_as_their_names_in_another_file(tmp_path, labels, classes):
    np.savez(tmp_path / "a.npz", X=X[:2], y=np.array([True, False]))
    np.savez(tmp_path / "b.npz", X=X[2:4], y=labels)
    sets = {name: WindowSet({"accelerometer": (f"{name}.npz:X",)}, f"{name}.npz:y") for name in "ab"}
    data = Windows(root=tmp_path, sets=sets, rate=50)
    assert len(data.classes) == classes
    assert {frozenset(group) for group in similar_names(data.classes)} == (
        set() if classes == 2 else {frozenset({"True", "1"}), frozenset({"False", "0"})}
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"labels": "all.npz:z"}, r"all\.npz: has no array 'z'; it has X, y, who"),
        ({"labels": "all.npz"}, "say which array after a colon; it has X, y, who"),
        ({"labels": "gone.npy"}, r"gone\.npy: no such file"),
        ({"labels": "short.npy", "subjects": None}, r"all\.npz: has 7 windows of accelerometer, and short\.npy has 3 labels"),
        ({"subjects": "short.npy"}, r"short\.npy has 3 subjects, and all\.npz:y has 7 labels"),
        ({"labels": "all.npz:X"}, r"expected one value for each window, not an array of shape \(7, 5, 3\)"),
    ],
)
def test_files_that_do_not_fit_together_are_named(tmp_path, change, said):
    described = write(tmp_path, "npz")
    np.save(tmp_path / "short.npy", Y[:3])
    data = dataset(tmp_path, described | change, classes=("0", "1"))
    with pytest.raises(DataError, match=said):
        data.samples()


def test_windows_that_are_not_finite_and_labels_that_are_unknown_are_told(tmp_path):
    broken = X.copy()
    broken[2, 1, 0] = np.nan
    np.savez(tmp_path / "all.npz", X=broken, y=Y)
    data = dataset(tmp_path, {"signals": {"accelerometer": ("all.npz:X",)}, "labels": "all.npz:y"}, classes=("0",))
    samples = data.samples()
    assert [sample.key.trial for sample in samples] == ["0", "2", "5"]
    assert {each.reason for each in data.unusable} == {"unknown label"}
    assert len(data.unusable) == 4
    with pytest.raises(DataError, match=r"window 2 of accelerometer has 1 value\(s\) that are not finite"):
        data.read(samples[1], "accelerometer")


def test_a_pickle_in_an_array_is_refused(tmp_path):
    np.save(tmp_path / "y.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    data = dataset(tmp_path, {"signals": {"accelerometer": ("y.npy",)}, "labels": "y.npy"}, classes=("0",))
    with pytest.raises(DataError, match="cannot be read as an array of windows"):
        data.samples()


def test_uci_har_as_published(tmp_path):
    """Its layout by its README: a window of 128 in a line, a file for each axis, labels from 1, 50 Hz, g and rad/s."""
    signals: dict[str, np.ndarray] = {}
    for part, count in (("train", 3), ("test", 2)):
        (tmp_path / part / "Inertial Signals").mkdir(parents=True)
        for stem in ("total_acc", "body_gyro", "body_acc"):
            signals[f"{stem} {part}"] = array = GENERATOR.normal(size=(count, 128, 3))
            for number, axis in enumerate("xyz"):
                lines = ["".join(f" {value: .7e}" for value in row) for row in array[:, :, number]]
                (tmp_path / part / "Inertial Signals" / f"{stem}_{axis}_{part}.txt").write_text("\n".join(lines) + "\n")
        (tmp_path / part / f"y_{part}.txt").write_text("\n".join(["5", "6", "1"][:count]) + "\n")
        (tmp_path / part / f"subject_{part}.txt").write_text("\n".join(["1", "3", "30"][:count]) + "\n")
    data = UciHar(root=tmp_path)
    found = {(sample.key.session, sample.key.trial): sample for sample in data.samples()}
    assert len(found) == 5
    sample = found["train", "2"]
    assert (sample.key.subject, data.classes[sample.label]) == ("30", "walking")
    np.testing.assert_allclose(data.read(sample, "accelerometer").values, signals["total_acc train"][2] * 9.80665, rtol=1e-5)
    np.testing.assert_allclose(data.read(sample, "gyroscope").values, signals["body_gyro train"][2], rtol=1e-5)
    assert data.classes[found["test", "1"].label] == "laying"
    assert data.read(sample, "body-acceleration").rate == 50


@pytest.mark.parametrize("axes", ["windows-time-channels", "windows-channels-time"])
def test_swapped_axes_are_refused(tmp_path, axes):
    """Five time steps of three channels, saved in the other order than the recipe says."""
    np.savez(tmp_path / "all.npz", X=X if axes == "windows-channels-time" else X.transpose(0, 2, 1), y=Y, who=WHO)
    described = {"signals": {"accelerometer": ("all.npz:X",)}, "labels": "all.npz:y", "subjects": "all.npz:who"}
    other = ({"windows-time-channels", "windows-channels-time"} - {axes}).pop()
    with pytest.raises(DataError, match=f"3 time steps and 5 channels, but 3 channels .* are expected: set axes: {other}"):
        dataset(tmp_path, described, axes=axes).samples()
    assert not dataset(tmp_path, described, axes=other).notes


@pytest.mark.parametrize(
    ("kind", "array", "channels", "note"),
    [
        (
            "accelerometer",
            X[:, :, 0],
            {},
            r"accelerometer: 3 channels .* are expected, but windows have 1 in 5 time",
        ),
        ("eeg", X.transpose(0, 2, 1), {}, r"eeg: windows have 3 time steps and 5 channels; if these are swapped"),
        (
            "accelerometer",
            np.repeat(X.transpose(0, 2, 1), 2, axis=1)[:, :4],
            {"accelerometer": (0, 1, 2)},
            r"accelerometer: windows have 4 time steps and 5 channels; if these are swapped, set axes: windows-channels-time",
        ),
    ],
)
def test_unexpected_numbers_of_channels_are_noted(tmp_path, kind, array, channels, note):
    np.savez(tmp_path / "all.npz", X=array, y=Y, who=WHO)
    described = {"signals": {kind: ("all.npz:X",)}, "labels": "all.npz:y", "subjects": "all.npz:who", "channels": channels}
    data = dataset(tmp_path, described)
    data.samples()
    [found] = data.notes
    assert re.match(note, found)

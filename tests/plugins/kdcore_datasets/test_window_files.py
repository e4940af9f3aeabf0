"""HDF5, `.ts` and saved Hugging Face datasets: equal to what other software reads, and refused where they are ambiguous."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kdcore import DataError
from kdcore_datasets.hdf5 import Hdf5Rows, _refuse_damaged_text
from kdcore_datasets.window_arrays import Windows, WindowSet
from kdcore_datasets.window_files import load_rows, located

TS = """# Two watches' axes
@problemName Wrists
@timeStamps false
@missing false
@univariate false
@dimensions 2
@equalLength true
@seriesLength 3
@classLabel true walk sit
@data
1.5,2,3:4,5,6:walk
-1,-2e-1,0: 7,8,9 :sit
"""


def ts(folder: Path, text: str = TS) -> Path:
    path = folder / "train.ts"
    path.write_text(text)
    return path


def test_a_ts_file_is_read_as_it_is_written(tmp_path):
    ts(tmp_path)
    described = WindowSet({"accelerometer": ("train.ts:series",)}, "train.ts:labels", channels={"accelerometer": (1, 0)})
    for axes in ("windows-time-channels", "windows-channels-time"):
        data = Windows(root=tmp_path, sets={"train": described}, rate=10, axes=axes)
        one, two = sorted(data.samples(), key=lambda each: each.key.trial)
        assert [data.classes[each.label] for each in (one, two)] == ["walk", "sit"]
        np.testing.assert_allclose(data.read(one, "accelerometer").values, [[4, 1.5], [5, 2], [6, 3]])
        np.testing.assert_allclose(data.read(two, "accelerometer").values, np.float32([[7, -1], [8, -0.2], [9, 0]]))


@pytest.mark.parametrize("unequal", [False, True])
def test_a_ts_file_is_read_as_sktime_reads_it(tmp_path, unequal):
    sktime = pytest.importorskip("sktime.datasets")
    draw = np.random.default_rng(0)
    cases = [draw.normal(size=(3, 20 + unequal * number)).round(4) for number in range(5)]
    lines = [":".join(",".join(map(str, row)) for row in case) + f":c{number % 2}" for number, case in enumerate(cases)]
    header = f"@problemName x\n@timeStamps false\n@univariate false\n@equalLength {'false' if unequal else 'true'}\n"
    path = ts(tmp_path, f"{header}@classLabel true c0 c1\n@data\n" + "\n".join(lines))
    expected, labels = sktime.load_from_tsfile(str(path), return_data_type="nested_univ")
    rows = load_rows(path, "series")
    assert np.asarray(load_rows(path, "labels")).tolist() == labels.tolist()
    for number in range(5):
        np.testing.assert_allclose(rows[number].T, np.stack([expected.iloc[number, axis].to_numpy() for axis in range(3)]))


def test_series_of_unequal_lengths_and_missing_values(tmp_path):
    ts(tmp_path, TS.replace("-1,-2e-1,0: 7,8,9 :sit", "1,?:3,4:sit\n1,2,3,4:5,6,7,8:sit"))
    data = Windows(root=tmp_path, sets={"a": WindowSet({"wrist": ("train.ts:series",)}, "train.ts:labels")}, rate=10)
    by_row = {each.key.trial: each for each in data.samples()}
    assert {row: len(data.read(each, "wrist")) for row, each in by_row.items() if row != "1"} == {"0": 3, "2": 4}
    with pytest.raises(DataError, match=r"window 1 of wrist has 1 value\(s\) that are not finite"):
        data.read(by_row["1"], "wrist")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("@timeStamps false", "@timeStamps true", r"train\.ts: has time stamps, which are not read from \.ts files"),
        ("1.5,2,3", "(0,1.5),(1,2),(2,3)", r"train\.ts: line 11: has time stamps"),
        ("@classLabel true walk sit", "@targetLabel true", r"regression targets \(@targetlabel true\), not classes"),
        (":walk", ":wlak", "line 11: 'wlak' is not one of the header's class labels walk, sit"),
        (":4,5,6:walk", ":walk", "line 12 has 2 dimensions, and the lines before have 1"),
        ("@dimensions 2", "@dimensions 3", "its header says 3 dimensions, and its lines have 2"),
        ("4,5,6", "4,5", "line 11: its dimensions have from 2 to 3 values; they must have the same number"),
        ("4,5,6", "4,five,6", "line 11: could not convert string to float: 'five'"),
        ("@data\n", "", "line 10: expected a header of lines that begin with @, and then @data"),
        (TS[TS.index("@data") :], "", "has no line @data"),
        (TS[TS.index("1.5") :], "", "has no cases"),
    ],
)  # fmt: skip
def test_a_ts_file_that_cannot_be_used_is_refused(tmp_path, old, new, said):
    assert old in TS
    path = ts(tmp_path, TS.replace(old, new))
    with pytest.raises(DataError, match=said):
        load_rows(path, "labels")


def test_what_a_ts_file_holds_is_said(tmp_path):
    path = ts(tmp_path)
    with pytest.raises(DataError, match="say which array after a colon; it has series, labels"):
        load_rows(path, "")
    path = ts(tmp_path, TS.replace("@classLabel true walk sit", "@classLabel false").replace(":walk", "").replace(" :sit", ""))
    with pytest.raises(DataError, match=r"its cases have no class labels \(@classLabel false\)"):
        load_rows(path, "labels")


def test_rows_of_hdf5_are_read_in_blocks_of_bounded_memory(tmp_path, monkeypatch):
    h5py = pytest.importorskip("h5py")
    monkeypatch.setattr("kdcore_datasets.hdf5.BLOCK", 64)
    monkeypatch.setattr("kdcore_datasets.hdf5.KEPT", 200)
    values = np.arange(60, dtype=np.float32).reshape(20, 3)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=values, chunks=(2, 3))
    rows = Hdf5Rows(tmp_path / "a.h5", "x")
    order = np.random.default_rng(0).permutation(20)
    assert all((rows[row] == values[row]).all() for row in order)
    assert sum(each.nbytes for each in rows._blocks.values()) <= 200
    assert (np.asarray(rows) == values).all()


def test_what_an_hdf5_file_holds_is_said(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a/x"], file["one"] = np.zeros(3), 1.0
        file["table"] = np.zeros(3, dtype=[("x", "f4"), ("y", "f4")])
    for name, said in (
        ("a/y", r"a\.h5: has no array 'a/y'; it has a/x, one, table"),
        ("", "say which array after a colon; it has a/x, one, table"),
        ("a", "has no array 'a'"),
        ("a/x/y", "has no array 'a/x/y'"),
        ("one", "'one' is a single value, not an array"),
        ("table", "'table' holds neither numbers nor text"),
    ):
        with pytest.raises(DataError, match=said):
            load_rows(tmp_path / "a.h5", name)
    (tmp_path / "b.h5").write_bytes(b"no")
    with pytest.raises(DataError, match=r"b\.h5: cannot be read as an array of windows"):
        load_rows(tmp_path / "b.h5", "x")


def test_damaged_texts_of_hdf5_are_refused_and_not_read_for_ever(tmp_path):
    """A size that leads astray once kept the library busy until it was killed."""
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["y"] = [name.encode() for name in ["walk", "sit", "stand"] * 9]
        file["x"] = np.arange(9.0)
    whole = path.read_bytes()
    start, changed, refused = whole.index(b"GCOL"), 0, 0
    assert Hdf5Rows(path, "y")[26] == b"stand"
    for place in (*range(16), 24, 25, 31, 24 + 24, 24 + 25 * 24, 24 + 27 * 24, 31 + 27 * 24):
        for flip in (1, 0x20, 0x80):
            content = bytearray(whole)
            content[start + place] ^= flip
            path.unlink()
            path.write_bytes(content)
            _refuse_damaged_text.cache_clear()
            with suppress(DataError):
                assert len(np.asarray(Hdf5Rows(path, "y"))) == 27
                refused -= 1
            refused, changed = refused + 1, changed + 1
            assert Hdf5Rows(path, "x")[8] == 8, "numbers are not texts"
    assert refused > changed / 2


def test_without_h5py_the_extra_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.h5").write_bytes(b"")
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(DataError, match=r"reading HDF5 needs h5py: pip install 'kdcore\[hdf5\]'"):
        load_rows(tmp_path / "a.h5", "x")


def test_a_saved_dataset_is_read_as_datasets_reads_it(tmp_path):
    """Class labels by name, sequences and arrays of two axes, in files of several batches."""
    hf = pytest.importorskip("datasets")
    draw = np.random.default_rng(0)
    x, z, y = draw.normal(size=(7, 5, 3)), draw.normal(size=(7, 4)), [0, 1, 1, -1, 0, 1, 0]
    features = {
        "x": hf.Array2D((5, 3), "float32"), "z": hf.Sequence(hf.Value("float64")), "y": hf.ClassLabel(names=["walk", "sit"]),
    }  # fmt: skip
    made = hf.Dataset.from_dict({"x": list(x), "z": z, "y": y}, features=hf.Features(features))
    hf.DatasetDict({"train": made}).save_to_disk(str(tmp_path / "all"), num_shards={"train": 2})
    path, name = located(tmp_path, "all/train:x")
    np.testing.assert_array_equal(np.asarray(load_rows(path, name)), np.asarray(made.with_format("numpy")["x"][:]))
    np.testing.assert_array_equal(np.asarray(load_rows(path, "z")), z)
    assert np.asarray(load_rows(path, "y")).tolist() == [None if each < 0 else ["walk", "sit"][each] for each in y]


def save_dataset(folder: Path, columns: dict[str, Any], features: dict[str, Any] | None = None) -> Path:
    folder.mkdir()
    table = pa.table(columns)
    with pa.ipc.new_stream(folder / "data.arrow", table.schema) as stream:
        stream.write_table(table, max_chunksize=3)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))
    (folder / "dataset_info.json").write_text(json.dumps({"features": features or {}}))
    return folder


def test_class_labels_are_given_by_name(tmp_path):
    labels = {"y": {"names": ["walk", "sit"], "_type": "ClassLabel"}}
    folder = save_dataset(tmp_path / "a", {"y": [1, 0, -1, None, 1]}, labels)
    assert np.asarray(load_rows(folder, "y")).tolist() == ["sit", "walk", None, None, "sit"]
    folder = save_dataset(tmp_path / "b", {"y": [1, 2]}, labels)
    with pytest.raises(DataError, match="'y' has labels beyond its 2 class names"):
        load_rows(folder, "y")


@pytest.mark.parametrize("kind", ["parquet", "datasets"])
def test_rows_of_columns_may_have_unequal_lengths(tmp_path, kind):
    cases = [[[1.0, 2.0]] * length for length in (3, 3, 3, 2, 2, 5)]
    if kind == "parquet":
        path = tmp_path / "a.parquet"
        pq.write_table(pa.table({"x": cases, "y.z": [True, None, False, True, True, True]}), path)
        assert np.asarray(load_rows(path, "y.z")).tolist() == [True, None, False, True, True, True]
    else:
        path = save_dataset(tmp_path / "a", {"x": cases})
    rows = load_rows(path, "x")
    assert [rows[number].shape for number in range(6)] == [(3, 2), (3, 2), (3, 2), (2, 2), (2, 2), (5, 2)]
    with pytest.raises(DataError, match="'x' has rows with lists of unequal lengths"):
        load_rows(save_dataset(tmp_path / "b", {"x": [[[1.0], [1.0, 2.0]]]}), "x")
    with pytest.raises(DataError, match="'x' has 1 rows or lists without values"):
        load_rows(save_dataset(tmp_path / "c", {"x": [[1.0], None]}), "x")

"""Sensor files as published: gaps, compressed files, dates, rows that end in ';', no header, one file for all sensors."""

from __future__ import annotations

import bz2
import gzip
import lzma
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sensor_recordings import ACC, dataset, write

from kdcore import DataError

NAN = float("nan")


def one_device(root: Path, **device: Any):
    device = {"pattern": "s{subject}_{action}_{trial}.csv", "columns": ACC, "rate": 10} | device
    return dataset(root=root, devices={"wrist": device})


def recording(root: Path, rows: list[list[object]], header: str = "x,y,z") -> Path:
    return write(root / "s1_walk_1.csv", rows, header)


GAPPY = [[0, 0, 0], [1, 1, 1], ["NaN", 2, 2], ["", 3, 3], [4, 4, 4], ["NaN", 5, 5]]


def test_missing_values_are_refused_unless_the_device_says_otherwise(tmp_path):
    recording(tmp_path, GAPPY)
    data = one_device(tmp_path)
    [sample] = data.samples()
    with pytest.raises(DataError, match=r"line 4: column 'x' is nan, not a finite number|column 'x' is ''"):
        data.read(sample, "accelerometer-wrist")


def test_rows_with_missing_values_are_left_out_at_their_times(tmp_path):
    recording(tmp_path, GAPPY)
    data = one_device(tmp_path, missing_values="drop")
    [sample] = data.samples()
    signal = data.read(sample, "accelerometer-wrist")
    np.testing.assert_array_equal(signal.values[:, 1], [0, 1, 4])
    np.testing.assert_allclose(signal.clock, [0, 0.1, 0.4])
    [note] = data.notes
    assert note == "accelerometer-wrist: values are missing in 3 rows of 1 of 1 samples; 0 rows were interpolated, 3 left out"


def test_gaps_are_filled_up_to_their_limit_and_counted(tmp_path):
    recording(tmp_path, GAPPY)
    data = one_device(tmp_path, missing_values={"interpolate": 0.3})
    [sample] = data.samples()
    signal = data.read(sample, "accelerometer-wrist")
    np.testing.assert_allclose(signal.values, [[n, n, n] for n in range(5)], atol=1e-6)
    [note] = data.notes
    assert "missing in 3 rows of 1 of 1 samples; 2 rows were interpolated, 1 left out" in note
    data = one_device(tmp_path, missing_values={"interpolate": 0.2})
    with pytest.raises(DataError, match=r"accelerometer is missing for 0\.3 s, more than the 0\.2 s to interpolate"):
        data.read(data.samples()[0], "accelerometer-wrist")


@given(st.lists(st.booleans(), min_size=3, max_size=30), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_interpolation_is_that_of_each_column_over_uneven_times(tmp_path_factory, there, seed):
    """By brute force: for each missing value, the line between its neighbours that are there."""
    root = tmp_path_factory.mktemp("gaps")
    generator = np.random.default_rng(seed)
    there = np.array([True, *there, True])
    times = np.cumsum(generator.uniform(0.01, 0.2, len(there))).round(4)
    values = generator.normal(size=(len(there), 3)).round(4)
    rows = [[t, x if seen else "NaN", y, z] for t, seen, (x, y, z) in zip(times, there, values, strict=True)]
    recording(root, rows, "t,x,y,z")
    data = one_device(root, rate=None, time_column="t", missing_values={"interpolate": 100})
    signal = data.read(data.samples()[0], "accelerometer-wrist")
    expected = values.copy()
    for row in np.flatnonzero(~there):
        left = max(other for other in np.flatnonzero(there) if other < row)
        right = min(other for other in np.flatnonzero(there) if other > row)
        share = (times[row] - times[left]) / (times[right] - times[left])
        expected[row, 0] = values[left, 0] + share * (values[right, 0] - values[left, 0])
    np.testing.assert_allclose(signal.values, expected, atol=1e-5)


COMPRESSED = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda content: pa.compress(content, codec="zstd", asbytes=True),
}


@pytest.mark.parametrize("kind", COMPRESSED)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_compressed_files_are_read_by_their_content_whatever_their_name(tmp_path, kind, suffix):
    path = recording(tmp_path, [[n, -n, 0.5] for n in range(5)])
    content = path.read_bytes()
    path.unlink()
    (tmp_path / f"s1_walk_1.csv{suffix}").write_bytes(COMPRESSED[kind](content))
    data = one_device(tmp_path, pattern=f"s{{subject}}_{{action}}_{{trial}}.csv{suffix}")
    signal = data.read(data.samples()[0], "accelerometer-wrist")
    np.testing.assert_array_equal(signal.values, [[n, -n, 0.5] for n in range(5)])


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
def test_a_compressed_file_that_is_cut_off_is_named(tmp_path, kind):
    path = tmp_path / "s1_walk_1.csv"
    content = "x,y,z\n" + "".join(f"{n},{n * 7 % 13},{n * 3 % 17}\n" for n in range(5000))
    whole = COMPRESSED[kind](content.encode())
    path.write_bytes(whole[: len(whole) // 2])
    data = one_device(tmp_path, header=False, columns={"accelerometer": [0, 1, 2]})
    [sample] = data.samples()
    with pytest.raises(DataError, match=r"s1_walk_1\.csv: .*(damaged|cannot be read)"):
        data.read(sample, "accelerometer-wrist")


def test_plain_text_with_the_name_of_a_compressed_file_is_read(tmp_path):
    recording(tmp_path, [[1, 2, 3], [4, 5, 6]]).rename(tmp_path / "s1_walk_1.csv.gz")
    data = one_device(tmp_path, pattern="s{subject}_{action}_{trial}.csv.gz")
    assert len(data.read(data.samples()[0], "accelerometer-wrist")) == 2


@pytest.mark.parametrize(
    ("unit", "texts"),
    [
        ("iso", ["2014-05-07 13:29:50.430000", "2014-05-07 13:29:50.440000", "2014-05-07T13:29:50.460Z"]),
        ("iso", ["2014-05-07 15:29:50.43+02:00", "2014-05-07 15:29:50.44+02:00", "2014-05-07 13:29:50.460+00:00"]),
        ("s", [1399469390.43, 1399469390.44, 1399469390.46]),
        ("ms", [1399469390430, 1399469390440, 1399469390460]),
        ("us", [1399469390430000, 1399469390440000, 1399469390460000]),
        ("ns", [1399469390430000000, 1399469390440000000, 1399469390460000000]),
    ],
)
def test_dates_and_epochs_in_any_unit_are_one_clock(tmp_path, unit, texts):
    recording(tmp_path, [[text, n, n, n] for n, text in enumerate(texts)], "t,x,y,z")
    data = one_device(tmp_path, rate=None, time_column="t", time_unit=unit)
    signal = data.read(data.samples()[0], "accelerometer-wrist")
    np.testing.assert_allclose(signal.clock, [0, 0.01, 0.03], atol=2e-6)


def test_a_date_that_is_none_is_named(tmp_path):
    recording(tmp_path, [["2014-05-07 13:29:50", 1, 1, 1], ["yesterday", 2, 2, 2]], "t,x,y,z")
    data = one_device(tmp_path, rate=None, time_column="t", time_unit="iso")
    with pytest.raises(DataError, match=r"row 2: column 't' is not a date"):
        data.read(data.samples()[0], "accelerometer-wrist")


WISDM = """33,Jogging,49105962326000,-0.6946377,12.680544,0.50395286;
33,Jogging,49106062271000,5.012288,11.264028,0.95342433;33,Jogging,49106112167000,4.903325,10.882658,-0.08172209;

33,Jogging,49106222305000,-0.61291564,18.496431,;
33,Walking,49106332290000,-1.1849703,12.108489,7.205164;
33,Walking,49106442306000,1.3756552,-2.4925237,-6.510526;
33,Walking,49106542312000,-0.61291564,10.56939,5.706926;
"""
"""Its published layout: rows end in ';', two stand in one line, a third value is missing."""


def wisdm(root: Path, **device: Any):
    device = {
        "pattern": "WISDM_{session}.txt",
        "columns": {"accelerometer": [3, 4, 5]},
        "time_column": 2,
        "time_unit": "ns",
        "header": False,
        "record_end": ";",
        **device,
    }
    options = {"label": {"column": 1}, "key_columns": {"subject": 0}}
    return dataset(root=root, devices={"phone": device}, **options)


def test_rows_that_end_in_a_semicolon_and_lack_a_value_are_read_as_told(tmp_path):
    (tmp_path / "WISDM_v1.txt").write_text(WISDM)
    data = wisdm(tmp_path, missing_values="drop")
    jogging, walking = data.samples()
    assert (jogging.key.subject, data.classes[jogging.label]) == ("33", "Jogging")
    signal = data.read(jogging, "accelerometer-phone")
    np.testing.assert_allclose(signal.values[:, 0], [-0.6946377, 5.012288, 4.903325], rtol=1e-6)
    np.testing.assert_allclose(signal.clock, [0, 0.099945, 0.149841], atol=1e-6)
    assert len(data.read(walking, "accelerometer-phone")) == 3
    assert data.notes == [
        "accelerometer-phone: values are missing in 1 rows of 1 of 2 samples; 0 rows were interpolated, 1 left out"
    ]


def test_rows_that_end_in_a_semicolon_are_recognised_by_the_error(tmp_path):
    (tmp_path / "WISDM_v1.txt").write_text(WISDM)
    data = wisdm(tmp_path, record_end="")
    other = wisdm(tmp_path)
    [first, _], [second, _] = data.samples(), other.samples()
    with pytest.raises(DataError, match=r"is '0\.50395286;', not a number; does ';' end its rows\? set `record_end: ';'`"):
        data.read(first, "accelerometer-phone")
    with pytest.raises(DataError, match=r"column 5 is '', not a number; `missing_values` says what to do"):
        other.read(second, "accelerometer-phone")


@pytest.mark.parametrize(("header", "said"), [("1.5,2.5,3.5", True), ("0,1,2", False), ("x,y,z", False)])
def test_a_first_line_that_looks_like_data_is_said(tmp_path, header, said):
    recording(tmp_path, [[1, 2, 3], [4, 5, 6]], header)
    data = one_device(tmp_path, columns={"accelerometer": [0, 1, 2]})
    data.samples()
    assert any("looks like data, and is not read; without a header, set header: false" in note for note in data.notes) == said


def test_devices_in_one_file_need_no_time_column(tmp_path):
    """As in mHealth: one file holds all sensors at one rate, without time stamps."""
    rows = [[n, 10 * n, -n, "walk" if n < 6 else "sit"] for n in range(11)]
    write(tmp_path / "subject1.log", rows, "a,b,c,label")
    shared = {"pattern": "subject{subject}.log", "rate": 50}
    devices = {"chest": shared | {"columns": {"ecg": ["a"]}}, "ankle": shared | {"columns": {"ecg": ["b"], "gyroscope": ["c"]}}}
    data = dataset(root=tmp_path, devices=devices, label={"column": "label"})
    sit = next(sample for sample in data.samples() if data.classes[sample.label] == "sit")
    np.testing.assert_array_equal(data.read(sit, "ecg-chest").values[:, 0], [6, 7, 8, 9, 10])
    np.testing.assert_array_equal(data.read(sit, "ecg-ankle").values[:, 0], [60, 70, 80, 90, 100])
    np.testing.assert_allclose(data.read(sit, "gyroscope-ankle").clock, np.arange(5) / 50)
    devices["ankle"] = devices["ankle"] | {"pattern": "other{subject}.log"}
    with pytest.raises(ValueError, match="must have a time_column"):
        dataset(root=tmp_path, devices=devices, label={"column": "label"})


def test_clocks_without_anything_in_common_are_named(tmp_path):
    for name, start in (("watch", 0), ("phone", 5_000_000)):
        write(tmp_path / f"s1/01_{name}.csv", [[start + 10 * n, n, n, n, "a" if n < 4 else "b"] for n in range(8)])
    device = {"columns": ACC, "time_column": "t", "time_unit": "ms"}
    devices = {name: {"pattern": f"s{{subject}}/{{trial}}_{name}.csv", **device} for name in ("watch", "phone")}
    data = dataset(root=tmp_path, devices=devices, label={"column": "label"})
    data.samples()
    [note] = data.notes
    assert note.startswith("phone: its clock does not overlap that of watch: 01_watch.csv covers 0.000 to 0.070 s")
    assert "01_phone.csv covers 5000.000 to 5000.070 s" in note


def test_decimal_commas(tmp_path):
    """Numbers with commas are read, in one go or, where a cell is missing, row by row."""
    rows = [["1,5;-2,25;3e-1"], ["1,6;2;3,5"], ["1,7;,5;4"]]
    recording(tmp_path, rows, header="x;y;z")
    data = one_device(tmp_path, delimiter=";", decimal=",")
    expected = [[1.5, -2.25, 0.3], [1.6, 2, 3.5], [1.7, 0.5, 4]]
    np.testing.assert_allclose(data.read(data.samples()[0], "accelerometer-wrist").values, expected, rtol=1e-6)
    recording(tmp_path, [*rows, [";;"]], header="x;y;z")
    data = one_device(tmp_path, delimiter=";", decimal=",", missing_values="drop")
    np.testing.assert_allclose(data.read(data.samples()[0], "accelerometer-wrist").values, expected, rtol=1e-6)


def test_point_is_no_decimal_mark_beside_commas(tmp_path):
    """1.500 may be one and a half or fifteen hundred."""
    recording(tmp_path, [["1,5;2;3"], ["1.500;2;3"]], header="x;y;z")
    data = one_device(tmp_path, delimiter=";", decimal=",")
    with pytest.raises(
        DataError, match=r"line 3: column 'x' is '1\.500', not a number; `decimal` is ',', and a point may separate"
    ):
        data.read(data.samples()[0], "accelerometer-wrist")


def test_decimal_mark_may_not_be_the_delimiter(tmp_path):
    with pytest.raises(ValueError, match=r"the delimiter and the decimal mark are both ','"):
        one_device(tmp_path, decimal=",")


@pytest.mark.parametrize(
    "rows",
    [
        ["1,5,2,5,3,5", "1,6,2,6,3,6"],
        ["1,0.5,0.6,0.7", "2,0.5,0.6,0.7"],
        ["1,2,3", "1,2,3", "1,2,3,4"],
        ['"1",2,3', '"1,0",2,3,4'],
    ],
    ids=["decimal commas", "row names", "one longer row", "quoted"],
)
def test_rows_longer_than_the_header_are_refused(tmp_path, rows):
    """Their columns could only be guessed."""
    recording(tmp_path, [[row] for row in rows])
    data = one_device(tmp_path)
    with pytest.raises(DataError, match=r"line [234] has [46] columns, and the header names 3"):
        data.read(data.samples()[0], "accelerometer-wrist")


@pytest.mark.parametrize("row", ["1,2,3,", "1,2,3, ,", '"1",2,"3"'])
def test_empty_cells_at_the_end_are_no_columns(tmp_path, row):
    recording(tmp_path, [[row]] * 3)
    data = one_device(tmp_path)
    assert data.read(data.samples()[0], "accelerometer-wrist").values.tolist() == [[1, 2, 3]] * 3


def test_two_columns_of_one_name_are_refused(tmp_path):
    recording(tmp_path, [[1, 2, 3, 4]] * 3, header="x,y,z,x")
    data = one_device(tmp_path)
    with pytest.raises(DataError, match=r"has 2 columns 'x'; name them differently, or give a column's number"):
        data.read(data.samples()[0], "accelerometer-wrist")

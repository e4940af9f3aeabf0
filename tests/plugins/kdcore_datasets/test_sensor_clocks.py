"""Sensor files with other clocks, unsorted rows, other encodings and comment lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from sensor_recordings import ACC, dataset, write

from kdcore import DataError
from kdcore_datasets.new.text_tables import read_table

ROWS = [[10 * n, n, -n, 0.5, "a" if n < 4 else "b"] for n in range(10)]


def one_device(root: Path, **device: Any):
    device = {"pattern": "{subject}_{trial}.csv", "columns": ACC, "time_column": "t", "time_unit": "ms", **device}
    return dataset(root=root, devices={"watch": device}, label={"column": "label"})


def two_devices(root: Path, **options: Any):
    """A phone with epoch time and a watch whose clock starts at boot."""
    write(root / "1_1_phone.csv", [[1_600_000_000_000 + time, *rest] for time, *rest in ROWS])
    write(root / "1_1_watch.csv", [[5_000 + time, *rest] for time, *rest in ROWS[::2]])
    base = {"columns": ACC, "time_column": "t", "time_unit": "ms"}
    devices = {name: {"pattern": f"{{subject}}_{{trial}}_{name}.csv", **base} for name in ("phone", "watch")}
    for name, more in options.items():
        devices[name] |= more
    return dataset(root=root, devices=devices, label={"column": "label"})


@pytest.mark.parametrize(
    "options",
    [
        {"phone": {"clock": "start"}, "watch": {"clock": "start"}},
        {"watch": {"clock_offset": 1_599_999_995.0}},
        {"phone": {"clock_offset": -1_600_000_000.0}, "watch": {"clock_offset": -5.0}},
        {"phone": {"clock": "start"}, "watch": {"clock": "start", "time_column": None, "rate": 50}},
    ],
)
def test_devices_with_other_clocks_are_aligned_by_start_or_offset(tmp_path: Path, options: dict[str, Any]):
    data = two_devices(tmp_path, **options)
    first, second = data.samples()
    np.testing.assert_array_equal(data.read(first, "accelerometer-watch").values[:, 0], [0, 2])
    watch, phone = data.read(second, "accelerometer-watch"), data.read(second, "accelerometer-phone")
    np.testing.assert_array_equal(watch.values[:, 0], [4, 6, 8])
    np.testing.assert_allclose(watch.clock, [0, 0.02, 0.04], atol=1e-6)
    np.testing.assert_allclose(phone.clock, np.arange(6) * 0.01, atol=1e-6)


def test_a_start_offset_shifts_the_clock(tmp_path: Path):
    data = two_devices(tmp_path, phone={"clock": "start"}, watch={"clock": "start", "clock_offset": 0.02})
    _, second = data.samples()
    np.testing.assert_array_equal(data.read(second, "accelerometer-watch").values[:, 0], [2, 4, 6])


def test_clocks_that_do_not_overlap_are_reported_with_the_options_that_help(tmp_path: Path):
    data = two_devices(tmp_path)
    data.samples()
    [note] = data.notes
    assert "covers 5.000 to 5.080 s" in note
    assert "`clock: start`" in note
    assert "`clock_offset`" in note


def test_clocks_that_contradict_each_other_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="all devices must have the same `clock`"):
        two_devices(tmp_path, phone={"clock": "start"})
    with pytest.raises(ValueError, match=r"watch must have a time_column, or all devices `clock: start`"):
        two_devices(tmp_path, watch={"time_column": None, "rate": 50})


@pytest.mark.parametrize("missing", ["error", "drop"])
def test_unsorted_rows_are_sorted_before_recordings_are_cut(tmp_path: Path, missing: str):
    mixed = [[1000 + ROWS[n][0], *ROWS[n][1:]] for n in (7, 0, 2, 1, 9, 3, 5, 4, 8, 6)]
    write(tmp_path / "1_1.csv", mixed)
    unsorted = one_device(tmp_path, missing_values=missing)
    assert unsorted.samples() == [] or all(each.key.trial != "1-1" for each in unsorted.samples())
    data = one_device(tmp_path, sort=True, missing_values=missing)
    first, second = data.samples()
    np.testing.assert_array_equal(data.read(first, "accelerometer-watch").values[:, 0], [0, 1, 2, 3])
    np.testing.assert_array_equal(data.read(second, "accelerometer-watch").values[:, 0], [4, 5, 6, 7, 8, 9])
    np.testing.assert_allclose(data.read(second, "accelerometer-watch").clock, np.arange(6) * 0.01, atol=1e-9)


def test_errors_in_sorted_files_name_the_line_of_the_file(tmp_path: Path):
    write(tmp_path / "1_1.csv", [ROWS[1], ROWS[0], [20, "abc", 0, 0, "a"], ROWS[3]])
    data = one_device(tmp_path, sort=True)
    [sample] = data.samples()
    with pytest.raises(DataError, match="line 4: column 'x' is 'abc'"):
        data.read(sample, "accelerometer-watch")


def test_a_time_stamp_of_zero_in_a_sorted_file_is_missing(tmp_path: Path):
    rows = [[1000 + time, *rest[:-1], "a"] for time, *rest in ROWS]
    write(tmp_path / "1_1.csv", [*rows[:5], [0, 99, 99, 99, "a"], *rows[5:]])
    data = one_device(tmp_path, sort=True, missing_values={"interpolate": 1})
    kept = [data.read(each, "accelerometer-watch").values[:, 0] for each in data.samples()]
    assert 99 not in np.concatenate(kept) if kept else True


def test_the_error_about_unsorted_rows_names_the_option(tmp_path: Path):
    write(tmp_path / "1_1.csv", [ROWS[1], ROWS[0], *ROWS[2:4]])
    data = one_device(tmp_path)
    assert data.samples() == []
    assert "`sort: true`" in data.unusable[0].detail


@pytest.mark.parametrize(("encoding", "declared"), [("latin-1", "latin-1"), ("utf-16", "utf-8"), ("utf-8-sig", "utf-8")])
def test_encodings_and_comment_lines(tmp_path: Path, encoding: str, declared: str):
    header = "# Gerät: Uhr\nt,Stärke x,y,z,label"
    text = "\n".join([header, *(",".join(map(str, row)) for row in ROWS)]) + "\n# Ende\n"
    (tmp_path / "1_1.csv").write_bytes(text.encode(encoding))
    columns = {"accelerometer": ["Stärke x", "y", "z"]}
    data = one_device(tmp_path, columns=columns, encoding=declared, comment="#")
    first, _ = data.samples()
    np.testing.assert_array_equal(data.read(first, "accelerometer-watch").values[:, 0], [0, 1, 2, 3])
    table = read_table(tmp_path / "1_1.csv")
    assert table is not None
    assert table.names[1] == "Stärke x"
    assert table.comment == "#"
    assert table.encoding == ("cp1252" if encoding == "latin-1" else "utf-8")


def test_line_numbers_in_errors_count_comment_lines(tmp_path: Path):
    (tmp_path / "1_1.csv").write_text("t,x,y,z,label\n# a\n0,1,2,3,a\n10,1,oops,3,a\n20,1,2,3,a\n")
    data = one_device(tmp_path, comment="#")
    [sample] = data.samples()
    with pytest.raises(DataError, match="line 4: column 'y' is 'oops'"):
        data.read(sample, "accelerometer-watch")


def test_text_in_another_encoding_is_an_error_that_names_the_option(tmp_path: Path):
    (tmp_path / "1_1.csv").write_bytes("t,Stärke,y,z,label\n0,1,2,3,a\n".encode("latin-1"))
    data = one_device(tmp_path, columns={"accelerometer": ["Stärke", "y", "z"]})
    assert data.samples() == []
    assert "set its `encoding`" in data.unusable[0].detail


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"delimiter": ";,"}, "the delimiter must be one character, not ';,'"),
        ({"delimiter": ""}, "the delimiter must be one character"),
        ({"encoding": "latn-1"}, "unknown encoding 'latn-1'"),
        ({"sort": True, "time_column": None, "rate": 50}, "sort requires a time_column"),
        ({"pattern": "{subject}_{trial}.parquet", "encoding": "latin-1"}, "encoding is for text files"),
    ],
)
def test_options_that_cannot_work_are_refused(tmp_path: Path, option: dict[str, Any], said: str):
    with pytest.raises((ValidationError, ValueError), match=said):
        one_device(tmp_path, **option)

"""Plain arrays and tables: names, units and the number of columns decide, or the file is refused."""

from __future__ import annotations

import io
import sys
import warnings

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from saved import ACCELEROMETER, CLASSES, lines, saved_student, walk

from kdcore import DataError, Modality, RecordingForm, Signal, conversion, load_student
from kdcore.cli.main import main
from kdcore.deploy.recordings import as_signal
from kdcore_datasets.named_channels import choose_columns
from kdcore_datasets.plain_recordings import open_recording

GYROSCOPE = ACCELEROMETER.renamed("gyroscope", units="rad/s")
VALUES = np.arange(30, dtype=float).reshape(10, 3) % 7 - 3.25


def table(header, columns, delimiter=","):
    rows = [delimiter.join(f"{cell:.9g}" for cell in row) for row in np.column_stack(columns)]
    return "\n".join([*([header] if header else []), *rows]) + "\n"


def read_table(text, modality, rate, units="", decimal="."):
    return open_recording(text.splitlines(), decimal).signal(RecordingForm(modality, rate, units))


def read_file(path, modality, rate, units="", decimal="."):
    return open_recording(path, decimal).signal(RecordingForm(modality, rate, units))


@pytest.mark.parametrize(
    ("modality", "names"),
    [
        (ACCELEROMETER, "x y z"),
        (ACCELEROMETER, "X Y Z"),
        (ACCELEROMETER, "ax ay az"),
        (ACCELEROMETER, "acc_x acc_y acc_z"),
        (ACCELEROMETER, "accX accY accZ"),
        (ACCELEROMETER, "Acceleration-x Acceleration-y Acceleration-z"),
        (ACCELEROMETER, "x_accel y_accel z_accel"),
        (GYROSCOPE, "gx gy gz"),
        (GYROSCOPE, "gyro.x gyro.y gyro.z"),
        (ACCELEROMETER.renamed("accelerometer-watch"), "watch_acc_x watch_acc_y watch_acc_z"),
    ],
)
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_names_decide_which_column_is_which(modality, names, order):
    names = names.split()
    text = table(",".join(names[number] for number in order), [VALUES[:, number] for number in order])
    np.testing.assert_allclose(read_table(text, modality, 50.0).values, VALUES.astype(np.float32))


def commas(text, delimiter):
    """A table with decimal commas."""
    return text.replace(",", delimiter).replace(".", ",")


@pytest.mark.parametrize("delimiter", [";", "\t", " "])
@pytest.mark.parametrize("header", ["x,y,z", ""])
def test_decimal_commas(delimiter, header):
    text = commas(table(header, VALUES.T), delimiter)
    line = 2 if header else 1
    with pytest.raises(DataError, match=rf"line {line}: column '[x0]' is '-3,25', not a number; .* pass --decimal ,$"):
        read_table(text, ACCELEROMETER, 50.0)
    np.testing.assert_allclose(read_table(text, ACCELEROMETER, 50.0, decimal=",").values, VALUES.astype(np.float32))
    with pytest.raises(DataError, match=r"column '[x0]' is '1\.5', not a number; .* a point may separate thousands"):
        read_table(text + delimiter.join(["1.5", "1", "1"]), ACCELEROMETER, 50.0, decimal=",")


def test_more_cells_than_names_are_refused():
    """Decimal commas between commas: 0,5,1,5,2,5 is not x = 0, y = 5, z = 1."""
    with pytest.raises(DataError, match=r"line 2 has 6 columns, and the header names 3; are there decimal commas\?"):
        read_table("x,y,z\n0,5,1,5,2,5\n0,5,1,5,2,5\n", ACCELEROMETER, 50.0)
    with pytest.raises(DataError, match="line 2 has 4 columns, and the first line has 3"):
        read_table("1,2,3\n1,2,3,4\n", ACCELEROMETER, 50.0)
    found = read_table("x,y,z\n1,2,3,\n4,5,6,,\n", ACCELEROMETER, 50.0)
    np.testing.assert_array_equal(found.values, [[1, 2, 3], [4, 5, 6]])


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("1,?,3", r"line 3: column 'y' is '\?', not a number; fill or leave out missing values first"),
        ("1,2", r"line 3 has 2 column\(s\), none for 'z'"),
        ("1,two,3", "line 3: column 'y' is 'two', not a number$"),
    ],
)
def test_cells_that_are_no_numbers_are_named(row, said):
    with pytest.raises(DataError, match=said):
        read_table(f"x,y,z\n1,2,3\n{row}\n", ACCELEROMETER, 50.0)


@pytest.mark.parametrize("clock", ["datetime64[ns]", "datetime64[ms]", "timedelta64[ms]", None])
def test_parquet_tables(tmp_path, clock):
    steps = np.arange(10) * np.timedelta64(20, "ms")
    times = {"time": (steps if clock[0] == "t" else np.datetime64("2024-05-07") + steps).astype(clock)} if clock else {}
    columns = {**times, "az": VALUES[:, 2].astype(np.float32), "ax": VALUES[:, 0], "ay": VALUES[:, 1], "label": ["walk"] * 10}
    pq.write_table(pa.table(columns), tmp_path / "clip.parquet")
    with pytest.warns(UserWarning, match="columns not used: label"):
        found = read_file(tmp_path / "clip.parquet", ACCELEROMETER, 50.0)
    np.testing.assert_array_equal(found.values, VALUES.astype(np.float32))
    if clock:
        with (
            pytest.warns(UserWarning, match="not used"),
            pytest.raises(DataError, match=r"^column 'time' increases by 0\.02 per row, which does not match 20"),
        ):
            read_file(tmp_path / "clip.parquet", ACCELEROMETER, 20.0)


def test_parquet_tables_that_cannot_be_read(tmp_path):
    (tmp_path / "clip.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="not a readable Parquet file"):
        read_file(tmp_path / "clip.parquet", ACCELEROMETER, 50.0)
    pq.write_table(pa.table({"x": ["a"], "y": [1], "z": [2]}), tmp_path / "text.parquet")
    with pytest.raises(DataError, match="column 'x' holds string, not numbers"):
        read_file(tmp_path / "text.parquet", ACCELEROMETER, 50.0)


@pytest.mark.parametrize(
    ("modality", "header", "said"),
    [
        (ACCELEROMETER, "gx,gy,gz", r"no column for channel 'x' of accelerometer \(columns: gx, gy, gz\)"),
        (ACCELEROMETER, "gyro_x,gyro_y,gyro_z", "no column for channel 'x'"),
        (ACCELEROMETER, "time,x,y", "no column for channel 'z'"),
        (GYROSCOPE, "ax,ay,az", "no column for channel 'x'"),
        (ACCELEROMETER, "a,b,c", "no column for channel 'x'"),
        (ACCELEROMETER.renamed("accelerometer-watch"), "phone_x,phone_y,phone_z", "no column for channel 'x'"),
    ],
)
def test_other_names_are_refused(modality, header, said):
    with pytest.raises(DataError, match=said):
        read_table(table(header, VALUES.T), modality, 50.0)


def test_two_candidates_are_refused():
    with pytest.raises(DataError, match="columns 'x' and 'acc_x' could each be channel 'x'"):
        read_table(table("x,y,z,acc_x", [*VALUES.T, VALUES[:, 0]]), ACCELEROMETER, 50.0)


def test_columns_that_are_not_used_are_named():
    with pytest.warns(UserWarning, match="columns not used: n, label"):
        found = read_table(
            table("n,z,label,y,x", [VALUES[:, 0], *VALUES.T[::-1][:1], *VALUES.T[[0]], *VALUES.T[1::-1]]), ACCELEROMETER, 50.0
        )
    np.testing.assert_allclose(found.values, VALUES.astype(np.float32))


@pytest.mark.parametrize("columns", [1, 2, 4])
def test_a_table_without_names_must_have_as_many_columns_as_channels(columns):
    with pytest.raises(DataError, match=f"the table has {columns} columns without names, but accelerometer has 3 channels"):
        read_table(table("", [VALUES[:, number % 3] for number in range(columns)]), ACCELEROMETER, 50.0)
    np.testing.assert_allclose(read_table(table("", VALUES.T), ACCELEROMETER, 50.0).values, VALUES.astype(np.float32))


@pytest.mark.parametrize(("unit", "factor"), [("g", 9.80665), ("mg", 0.00980665), ("m/s^2", 1), ("m/s²", 1), ("m/s2", 1)])
def test_units_in_names_are_converted(unit, factor):
    text = table(f"x [{unit}],y ({unit}),z [{unit}]", VALUES.T)
    np.testing.assert_allclose(read_table(text, ACCELEROMETER, 50.0).values, VALUES * factor, rtol=1e-6)


def test_units_beside_the_file_are_converted(tmp_path):
    np.save(tmp_path / "turn.npy", VALUES)
    found = read_file(tmp_path / "turn.npy", GYROSCOPE, 50.0, "deg/s")
    np.testing.assert_allclose(found.values, np.deg2rad(VALUES), rtol=1e-6)
    np.testing.assert_allclose(read_table(table("", VALUES.T), GYROSCOPE, 50.0, "dps").values, np.deg2rad(VALUES), rtol=1e-6)


def test_units_of_another_kind_or_two_at_once_are_refused():
    with pytest.raises(
        DataError, match=r"accelerometer is in m/s\^2: cannot convert 'deg/s' to 'm/s\^2' \(known: m/s\^2, g, mg\)"
    ):
        read_table(table("x [deg/s],y [deg/s],z [deg/s]", VALUES.T), ACCELEROMETER, 50.0)
    with pytest.raises(DataError, match="column 'x \\[g\\]' is in 'g', but the given units are 'mg'"):
        read_table(table("x [g],y [g],z [g]", VALUES.T), ACCELEROMETER, 50.0, "mg")
    with pytest.raises(ValueError, match="cannot convert"):
        conversion("stone", "m/s^2")


@pytest.mark.parametrize(("scale", "name"), [(1, "time"), (1e3, "time"), (1e3, "timestamp_ms"), (1e9, "t"), (1, "time [s]")])
def test_time_stamps_must_agree_with_the_rate(scale, name):
    times = 1e5 * scale + scale * np.arange(10) / 50
    rows = [",".join([repr(float(t)), *map(repr, map(float, row))]) for t, row in zip(times, VALUES, strict=True)]
    text = "\n".join([f"{name},x,y,z", *rows])
    np.testing.assert_allclose(read_table(text, ACCELEROMETER, 50.0).values, VALUES.astype(np.float32))
    with pytest.raises(DataError, match="which does not match 20 samples per second"):
        read_table(text, ACCELEROMETER, 20.0)


@pytest.mark.parametrize(("gap", "said"), [(9.5, False), (10.5, True)])
def test_a_gap_in_the_time_stamps_is_reported(gap, said):
    times = np.arange(10) / 50 + np.where(np.arange(10) < 6, 0, (gap - 1) / 50)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        read_table(table("time,x,y,z", [times, *VALUES.T]), ACCELEROMETER, 50.0)
    step = "column 'time' increases by 0.21 at row 7, a gap of more than 10 samples"
    expected = f"{step}; the recording is read as if it were not interrupted, so cut it there"
    assert [str(each.message) for each in found] == ([expected] if said else [])


@pytest.mark.parametrize("header", ["x,y,z", "x, y, z"])
def test_decimal_commas_of_a_table_that_commas_separate(header):
    with pytest.raises(
        DataError, match=r"^with --decimal , columns are separated by semicolons, tabs or blanks, not by commas$"
    ):
        read_table(f"{header}\n1,2,3", ACCELEROMETER, 50.0, decimal=",")


def test_time_stamps_without_a_name_are_not_taken_for_a_channel():
    text = table("", [np.arange(10) / 50, *VALUES.T[:2]])
    with pytest.raises(DataError, match="looks like time stamps"):
        read_table(text, ACCELEROMETER, 50.0)


def test_a_structured_array_is_chosen_by_name(tmp_path):
    values = np.zeros(10, dtype=[("z", "f4"), ("y", "f4"), ("x", "f4")])
    for number, name in enumerate("xyz"):
        values[name] = VALUES[:, number]
    np.save(tmp_path / "named.npy", values)
    np.testing.assert_allclose(read_file(tmp_path / "named.npy", ACCELEROMETER, 50.0).values, VALUES.astype(np.float32))


def test_a_skeleton_is_no_table():
    skeleton = Modality("skeleton", ("time", "joint", "channel"), ("channel", "time", "joint"), "m", 30.0, ("x", "y", "z"))
    with pytest.raises(DataError, match="axes time, joint, channel"):
        choose_columns((), 3, skeleton)


def predicted(monkeypatch, capfd, *words, lines=""):
    monkeypatch.setattr("sys.argv", ["kdcore", "predict", *map(str, words)])
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
    try:
        main()
    except SystemExit as left:
        return left.code, capfd.readouterr()
    return 0, capfd.readouterr()


def test_the_command_reads_columns_by_name(tmp_path, monkeypatch, capfd):
    folder, values = saved_student(tmp_path / "student"), walk(70)
    turned = tmp_path / "turned.csv"
    turned.write_text(table("z [g],y [g],x [g]", values.T[::-1] / 9.80665))
    expected = load_student(folder).predict({"accelerometer": Signal(values, 50.0)})[0]
    code, said = predicted(monkeypatch, capfd, folder, turned, "--rate", "50", "--top", "1")
    assert (code, said.out) == (0, f"{turned}: {CLASSES[expected.argmax()]} {expected.max():.3f}\n")
    for header in ("gx,gy,gz", "time,x,y"):
        turned.write_text(table(header, values.T))
        code, said = predicted(monkeypatch, capfd, folder, turned, "--rate", "50")
        assert (code, said.out) == (2, "")
        assert "no column for channel" in said.err


def test_a_table_of_the_students_own_dataset_keeps_its_columns_and_units(tmp_path):
    """``--rate`` says how fast the file was sampled, not that its columns are to be read otherwise."""
    watch = {
        "pattern": "{subject}_{action}_{trial}.csv",
        "rate": 50.0,
        "columns": {"accelerometer": ["ax", "ay", "az"]},
        "units": {"accelerometer": "g"},
    }
    modality = ACCELEROMETER.renamed("accelerometer-watch")
    folder = saved_student(tmp_path / "student", modality, "sensor-csv", options={"devices": {"watch": watch}})
    values = walk(70)
    (tmp_path / "mine.csv").write_text(table("az,ay,ax", values.T[::-1] / 9.80665))
    expected = load_student(folder).predict({modality.name: Signal(values, 25.0)})[0]
    [line] = lines(folder, [tmp_path / "mine.csv"], rate=25.0, top=1)
    assert line.endswith(f": {CLASSES[expected.argmax()]} {expected.max():.3f}")
    (tmp_path / "less.csv").write_text(table("ax,ay", values.T[:2]))
    with pytest.raises(DataError, match="has no column 'az'"):
        lines(folder, [tmp_path / "less.csv"], rate=50.0)
    with pytest.raises(DataError, match="has no column 'az'") as missing:
        lines(folder, [tmp_path / "less.csv"])
    assert "--rate" not in str(missing.value), "a rate would not help"


@pytest.mark.parametrize(("scale", "header", "units", "warned"), [
    (1.0, "x,y,z", "", True),
    (1.0, "x,y,z", "g", False),
    (1.0, "x [g],y [g],z [g]", "", False),
    (9.81, "x,y,z", "", False),
])  # fmt: skip
def test_accelerations_that_look_like_g_are_pointed_out(tmp_path, recwarn, scale, header, units, warned):
    unit = np.random.default_rng(0).normal(size=(50, 3))
    values = scale * unit / np.linalg.norm(unit, axis=1, keepdims=True)
    (tmp_path / "clip.csv").write_text(table(header, values.T))
    lines(saved_student(tmp_path / "student"), [tmp_path / "clip.csv"], rate=50.0, units=units)
    assert ["as if in g, but are read as m/s^2" in str(each.message) for each in recwarn] == [True] * warned


def test_a_table_without_an_index_is_read():
    class Polars:
        """What a data frame of polars has."""

        columns, dtypes = ["x", "y", "z"], [np.dtype(float)] * 3

        def to_numpy(self):
            return VALUES

    assert not hasattr(Polars(), "index")
    np.testing.assert_allclose(as_signal(Polars(), ACCELEROMETER, 50.0).values, VALUES)


@pytest.mark.parametrize("suffix", ["npy", "parquet"])
def test_a_decimal_mark_is_for_text(tmp_path, suffix):
    path = tmp_path / f"clip.{suffix}"
    if suffix == "npy":
        np.save(path, VALUES)
    else:
        pq.write_table(pa.table({name: VALUES[:, column] for column, name in enumerate("xyz")}), path)
    with pytest.raises(DataError, match="--decimal requires a text table"):
        read_file(path, ACCELEROMETER, 50.0, decimal=",")

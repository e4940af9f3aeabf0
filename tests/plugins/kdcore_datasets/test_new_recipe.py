"""``kdcore data new``: folders as they come, and the recipes that read them."""

from __future__ import annotations

import gzip

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from kdcore import Builder, DataError, UsageError, load_recipe
from kdcore_datasets.new.file_names import read_names
from kdcore_datasets.new.guess import scalar
from kdcore_datasets.new.recipe import look, new_recipe
from kdcore_datasets.new.text_tables import read_columns, read_table

NOISE = np.random.default_rng(0)


def acceleration(rows: int, one: float = 9.81) -> np.ndarray:
    return NOISE.normal([0, 0, one], 0.05 * one, (rows, 3))


def table(path, columns, header="", delimiter=",", end="", form="%.6f"):
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [delimiter.join(form % cell if isinstance(cell, float) else str(cell) for cell in row) + end for row in columns]
    text = "\n".join([*([header] if header else []), *rows]) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def made(root, tmp_path, **options):
    """The recipe that the command writes, and the samples that it reads."""
    target = tmp_path / "made.yaml"
    new_recipe(root, target, **options)
    builder = Builder(load_recipe(target))
    samples = builder.dataset().samples()
    builder.protocol().split(samples)
    return yaml.safe_load(target.read_text())["data"]["dataset"], samples


def test_a_file_with_a_semicolon_at_the_end_of_its_lines(tmp_path):
    """WISDM's layout: user, activity, time in ns, x, y, z;"""
    rows, clock = [], 49105962326000
    for user in (33, 17, 5):
        for activity in ("Jogging", "Sitting"):
            for x in acceleration(50).tolist():
                clock += 50_000_000
                rows.append([user, activity, clock, *x])
    table(tmp_path / "raw" / "WISDM_raw.txt", rows, end=";")
    (tmp_path / "raw" / "readme.txt").write_text("About\nthese\nrecordings.\n")
    options, samples = made(tmp_path / "raw", tmp_path)
    [device] = options["devices"].values()
    assert device == {
        "pattern": "WISDM_raw.txt", "columns": {"accelerometer": [3, 4, 5]}, "time_column": 2, "time_unit": "ns",
        "header": False, "record_end": ";", "missing_values": {"interpolate": 0.5},
    }  # fmt: skip
    assert (options["label"], options["key_columns"]) == ({"column": 1}, {"subject": 0})
    assert sorted((each.key.subject, each.key.action) for each in samples) == sorted(
        (user, activity) for user in ("33", "17", "5") for activity in ("Jogging", "Sitting")
    )


@pytest.mark.parametrize(("seconds", "length"), [((2.5, 3), 2.0), ((0.6, 3), 0.5), ((1.2, 1.4), 1.0), ((0.1, 0.2), 0.25)])
def test_windows_are_no_longer_than_most_recordings(tmp_path, capsys, seconds, length):
    """Activities that alternate in a file for each subject, at 50 rows a second."""
    for subject in ("ann", "ben"):
        labels = np.repeat(["sit", "walk"] * 3, [round(50 * duration) for duration in seconds] * 3).tolist()
        rows = [
            [*x, 20 * n, label] for n, (x, label) in enumerate(zip(acceleration(len(labels)).tolist(), labels, strict=True))
        ]
        table(tmp_path / "raw" / f"day-{subject}.csv", rows, "ax,ay,az,timestamp,label")
    target = tmp_path / "made.yaml"
    new_recipe(tmp_path / "raw", target)
    assert yaml.safe_load(target.read_text())["data"]["window"] == {"length": length, "hop": length / 2}
    assert ("windows of" in capsys.readouterr().out) == (length < 2)


def test_two_devices_in_files_of_their_own(tmp_path):
    for subject in ("01", "02"):
        for device in ("sp", "sw"):
            rows = [
                [*x, *NOISE.normal(0, 1, 3).tolist(), 1657533977813 + 10 * n, "SIT" if n < 30 else "WALK"]
                for n, x in enumerate(acceleration(60).tolist())
            ]
            name = tmp_path / "pairs" / f"s{subject}" / f"s{subject}_07_{device}.csv"
            table(name, rows, "x_acc,y_acc,z_acc,x_gyro,y_gyro,z_gyro,timestamp,label")
    table(tmp_path / "pairs" / "info.csv", [[1.0, 2.0], [1.5, 2.5], [3.0, 4.0]], "a,b")
    options, samples = made(tmp_path / "pairs", tmp_path)
    assert {name: each["pattern"] for name, each in options["devices"].items()} == {
        "sp": "s{subject}/s{subject}_07_sp.csv", "sw": "s{subject}/s{subject}_07_sw.csv",
    }  # fmt: skip
    assert options["devices"]["sw"]["columns"] == {
        "accelerometer": ["x_acc", "y_acc", "z_acc"], "gyroscope": ["x_gyro", "y_gyro", "z_gyro"],
    }  # fmt: skip
    assert options["devices"]["sp"]["time_unit"] == "ms"
    assert len(samples) == 4
    assert all(len(each.sources) == 4 for each in samples)


def test_compressed_files_with_dates_in_g(tmp_path):
    for subject in (1, 2):
        rows = [
            [f"2014-05-07 13:29:50.{n:02d}0000", *x, "sleep" if n < 50 else "walk"]
            for n, x in enumerate(acceleration(100, 1.0).tolist())
        ]
        table(tmp_path / "c" / f"P{subject:03d}.csv.gz", rows, "time,x,y,z,annotation")
    options, samples = made(tmp_path / "c", tmp_path)
    [device] = options["devices"].values()
    assert (device["time_unit"], device["units"], device["pattern"]) == ("iso", {"accelerometer": "g"}, "P{subject}.csv.gz")
    assert {each.key.subject for each in samples} == {"001", "002"}


def test_words_in_names_are_actions_where_they_are_known(tmp_path):
    for who in ("anna", "ben"):
        for what in ("walk", "nap"):
            for kind, rows in (("acc", acceleration(30)), ("gyro", NOISE.normal(0, 1, (30, 3)))):
                clock = np.arange(30)[:, None] / 50
                table(tmp_path / "w" / who / what / f"{kind}_1.csv", np.hstack([clock, rows]).tolist(), "time;x;y;z", ";")
    options, samples = made(tmp_path / "w", tmp_path)
    assert options["devices"]["gyro"]["pattern"] == "{subject}/{action}/gyro_1.csv"
    assert options["devices"]["gyro"]["columns"] == {"gyroscope": ["x", "y", "z"]}
    assert {(each.key.subject, each.key.action) for each in samples} == {
        (who, what) for who in ("anna", "ben") for what in ("walk", "nap")
    }


def test_pamap2_and_uci_har_are_known(tmp_path):
    for subject in (101, 102):
        values = NOISE.normal(size=(40, 54))
        values[:, 0], values[:, 1] = np.arange(40) / 100, np.repeat([0, 1, 2, 3], 10)
        rows = [[f"{row[0]:.2f}", int(row[1]), "NaN", *row[3:].tolist()] for row in values]
        table(tmp_path / "p" / "Protocol" / f"subject{subject}.dat", rows, delimiter=" ")
    options, samples = made(tmp_path / "p", tmp_path)
    assert options["devices"]["ankle"]["columns"]["accelerometer"] == [38, 39, 40]
    assert {each.key.action for each in samples} == {"1", "2", "3"}
    folder = tmp_path / "UCI HAR Dataset" / "train" / "Inertial Signals"
    folder.mkdir(parents=True)
    (folder / "total_acc_x_train.txt").touch()
    guess = look(folder)
    assert guess.dataset == {"name": "uci-har", "root": str(tmp_path / "UCI HAR Dataset")}


def test_windows_in_arrays(tmp_path):
    (tmp_path / "n").mkdir()
    for part, who in (("train", 0), ("test", 9)):
        X = NOISE.normal(size=(12, 50, 6))
        np.savez(tmp_path / "n" / f"{part}.npz", X=X, y=np.arange(12) % 3, subject=np.arange(12) // 6 + who)
    guess = look(tmp_path / "n")
    assert guess.missing == ["data.dataset.rate: samples per second"]
    options, samples = made(tmp_path / "n", tmp_path, rate=50.0)
    assert options["sets"]["test"]["channels"] == {"accelerometer": [0, 1, 2], "gyroscope": [3, 4, 5]}
    assert len(samples) == 24
    assert {each.key.subject for each in samples} == {"0", "1", "9", "10"}


def test_windows_in_hdf5_and_ts_files(tmp_path):
    h5py = pytest.importorskip("h5py")
    (tmp_path / "h").mkdir()
    (tmp_path / "t").mkdir()
    for part in ("train", "test"):
        with h5py.File(tmp_path / "h" / f"{part}.h5", "w") as file:
            file["d/X"], file["d/y"] = NOISE.normal(size=(12, 10, 6)), np.arange(12) % 3
        cases = [":".join(",".join(map(str, row)) for row in NOISE.normal(size=(6, 5))) + f":c{n % 3}" for n in range(12)]
        (tmp_path / "t" / f"Acts_{part.upper()}.ts").write_text("@classLabel true\n@data\n" + "\n".join(cases))
    for folder, file, signals, labels in (
        ("h", "test.h5", "d/X", "d/y"),
        ("t", "Acts_TEST.ts", "series", "labels"),
    ):
        (tmp_path / folder / "out").mkdir()
        options, samples = made(tmp_path / folder, tmp_path / folder / "out", rate=50.0)
        assert options["sets"]["test"]["labels"] == f"{file}:{labels}"
        assert options["sets"]["test"]["signals"] == {kind: [f"{file}:{signals}"] for kind in ("accelerometer", "gyroscope")}
        assert options["axes"] == "windows-time-channels"
        assert len(samples) == 24


def test_what_files_do_not_tell_is_left_to_fill_in(tmp_path, capsys):
    for number in (1, 2):
        table(tmp_path / "t" / f"S{number}.csv", acceleration(30).tolist(), "ax,ay,az")
    new_recipe(tmp_path / "t", tmp_path / "made.yaml")
    said = capsys.readouterr().out
    assert "data.dataset.devices.sensor.rate: samples per second; there is no time column" in said
    assert "data.dataset.label.column: the column of labels, or path: action" in said
    assert "FILL IN" in (tmp_path / "made.yaml").read_text()
    with pytest.raises(UsageError, match="exists; choose another file with --output"):
        new_recipe(tmp_path / "t", tmp_path / "made.yaml")


def test_folders_without_recordings_are_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("one\ntwo\nthree\nfour\n")
    with pytest.raises(DataError, match=r"no dataset reads 1 files \(.txt\)"):
        look(tmp_path)
    with pytest.raises(DataError, match="there is no such folder"):
        look(tmp_path / "none")


@pytest.mark.parametrize(("rate", "unit"), [(50, "s"), (50, "ms"), (100, "us"), (25, "ns"), (200, "ms"), (10, "s")])
def test_the_unit_of_time_follows_from_the_rate(tmp_path, rate, unit):
    factor = {"s": 1, "ms": 1e3, "us": 1e6, "ns": 1e9}[unit]
    rows = [[repr(1000 + n / rate * factor), *x] for n, x in enumerate(acceleration(40).tolist())]
    table(tmp_path / "a.csv", rows, "t,ax,ay,az")
    found = read_table(tmp_path / "a.csv")
    assert found is not None
    columns = read_columns(found)
    assert (columns.time, columns.unit) == (0, unit)
    assert columns.rate == pytest.approx(rate, rel=0.01)


def test_prefixes_name_the_numbers_of_files():
    names = read_names([f"a{a}_s{s}_t{t}_x.csv" for a in (1, 12) for s in (1, 2) for t in (1, 2)], labelled=False)
    assert names.patterns == {"": "a{action}_s{subject}_t{trial}_x.csv"}
    assert read_names(["a.csv", "b.csv", "read_me.csv"], labelled=False).others == ["read_me.csv"]


@pytest.mark.parametrize("value", ["no", "1", "", ";", "\t", "a: b", "x#y", "{s}.csv", "plain", 1.5, [1, "2"], {"a b": ["x"]}])
def test_values_are_read_back_from_yaml(value):
    assert yaml.safe_load(f"key: {scalar(value)}") == {"key": value}


@pytest.mark.parametrize("dates", [False, True])
def test_parquet_files_with_a_row_for_each_time_step(tmp_path, dates):
    for subject in range(1, 5):
        for trial in (1, 2):
            x, y, z = acceleration(200, 1.0).T
            clock = np.arange(200) * 20
            columns = {
                "time": np.datetime64("2024-03-01T08:00", "ms") + clock.astype("timedelta64[ms]") if dates else clock,
                "ax": x.astype(np.float32),
                "ay": y,
                "az": z,
                "label": ["walk"] * 100 + ["sit"] * 100,
                "subject": [f"p{subject}"] * 200,
            }
            (tmp_path / "raw").mkdir(exist_ok=True)
            pq.write_table(pa.table(columns), tmp_path / "raw" / f"rec_{subject}{trial}.parquet")
    options, samples = made(tmp_path / "raw", tmp_path)
    assert options["devices"] == {
        "sensor": {
            "pattern": "rec_{trial}.parquet", "columns": {"accelerometer": ["ax", "ay", "az"]},
            "units": {"accelerometer": "g"}, "time_column": "time", "time_unit": "iso" if dates else "ms",
        }
    }  # fmt: skip
    assert (options["label"], options["key_columns"]) == ({"column": "label"}, {"subject": "subject"})
    assert len(samples) == 16
    assert {each.key.subject for each in samples} == {"p1", "p2", "p3", "p4"}

"""``kdcore data new`` on folders as spreadsheets and loggers write them."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from kdcore import Builder, load_recipe
from kdcore_datasets.new.column_units import unit_in
from kdcore_datasets.new.file_names import read_names
from kdcore_datasets.new.recipe import look, new_recipe

NOISE = np.random.default_rng(0)
HEADER = "Zeit (ms);Acc X (g);Acc Y (g);Acc Z (g);Gyro X (deg/s);Gyro Y (deg/s);Gyro Z (deg/s)"


def write_german(path, rows=60):
    """A table with decimal commas, a unit in each name of a column, and time in ms."""
    values = np.column_stack([np.arange(rows) * 20, NOISE.normal([0, 0, 1, 0, 0, 0], 0.05, (rows, 6))])
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [";".join([str(int(row[0])), *(f"{cell:.4f}".replace(".", ",") for cell in row[1:])]) for row in values]
    path.write_text("\n".join([HEADER, *lines]) + "\n", encoding="utf-8")


def made(root, tmp_path):
    """The dataset's options in the recipe that the command writes, and its samples."""
    target = tmp_path / "made.yaml"
    new_recipe(root, target)
    samples = Builder(load_recipe(target)).dataset().samples()
    return yaml.safe_load(target.read_text())["data"]["dataset"], samples


def test_units_and_time_come_from_the_names_of_columns_and_labels_from_a_table(tmp_path):
    rows = ["Datei;Proband;Aktivität;Wdh"]
    for number in range(1, 9):
        write_german(tmp_path / "in" / "data" / f"rec{number:03}.csv")
        rows.append(f"rec{number:03}.csv;P{number % 4};{'gehen' if number % 2 else 'sitzen'};1")
    (tmp_path / "in" / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    options, samples = made(tmp_path / "in", tmp_path)
    device = options["devices"]["sensor"]
    assert (device["time_column"], device["time_unit"], device["decimal"]) == ("Zeit (ms)", "ms", ",")
    assert device["units"] == {"accelerometer": "g", "gyroscope": "deg/s"}
    columns = {"subject": "Proband", "action": "Aktivität"}
    assert options["table"] == {"file": "labels.csv", "path": "Datei", "columns": columns, "delimiter": ";"}
    assert {(each.key.subject, each.key.action) for each in samples} == {
        ("P0", "sitzen"), ("P1", "gehen"), ("P2", "sitzen"), ("P3", "gehen"),
    }  # fmt: skip
    assert len(samples) == 8


def test_columns_of_a_label_table_that_are_not_recognised_are_left_to_fill_in(tmp_path, capsys):
    for number in range(4):
        write_german(tmp_path / "in" / f"rec{number}.csv")
    (tmp_path / "in" / "info.csv").write_text("name,wer,was\n" + "".join(f"rec{n},a,b\n" for n in range(4)))
    new_recipe(tmp_path / "in", tmp_path / "made.yaml")
    assert "data.dataset.table.columns.subject: the column of subjects, one of wer, was" in capsys.readouterr().out


def test_a_table_that_names_few_recordings_is_no_label_table(tmp_path):
    for number in range(4):
        write_german(tmp_path / "in" / f"rec{number}.csv")
    rows = ["rec0,walk", "rec1,sit", *(f"other{n},sit" for n in range(4))]
    (tmp_path / "in" / "info.csv").write_text("\n".join(["name,action", *rows]) + "\n")
    new_recipe(tmp_path / "in", tmp_path / "made.yaml")
    assert "table" not in yaml.safe_load((tmp_path / "made.yaml").read_text())["data"]["dataset"]


def test_words_joined_by_hyphens_are_one_word_if_names_then_agree(tmp_path, capsys):
    for subject in (1, 2):
        for action in ("swipe-left", "swipe-right", "clap"):
            write_german(tmp_path / "in" / f"P{subject}" / f"{action}_1.csv")
    (tmp_path / "in" / "film.mp4").write_bytes(b"")
    options, samples = made(tmp_path / "in", tmp_path)
    assert options["devices"]["sensor"]["pattern"] == "P{subject}/{action}_1.csv"
    assert {each.key.action for each in samples} == {"swipe-left", "swipe-right", "clap"}
    assert "files that are not read: 1 .mp4" in capsys.readouterr().out
    names = read_names(["anna-walk-1.csv", "ben-sit-2.csv", "anna-sit-1.csv"], labelled=False)
    assert list(names.patterns.values()) == ["{subject}-{action}-{trial}.csv"]


def test_files_with_other_columns_are_of_another_device(tmp_path, capsys):
    for subject in (1, 2):
        for action in ("walk", "sit"):
            write_german(tmp_path / "in" / f"P{subject}" / f"{action}_alpha.csv")
            lines = [f"{n},{n / 7},{n / 3}" for n in range(20)]
            (tmp_path / "in" / f"P{subject}" / f"{action}_beta.csv").write_text("\n".join(["frame,u,v", *lines]) + "\n")
    options, samples = made(tmp_path / "in", tmp_path)
    assert {name: each["pattern"] for name, each in options["devices"].items()} == {"alpha": "P{subject}/{action}_alpha.csv"}
    assert len(samples) == 4
    assert "beta: no column of P1/sit_beta.csv has the name of a sensor" in capsys.readouterr().out


@pytest.mark.parametrize("told", [True, False])
def test_several_recordings_in_a_file_are_kept_apart(tmp_path, capsys, told):
    for subject in (1, 2):
        count = 40
        time = [timedelta(milliseconds=20 * n) for n in range(count)] * 3
        cells = {"time": time, "activity": ["walk"] * 2 * count + ["sit"] * count}
        cells |= {f"acc_{axis}": NOISE.normal(9.81 * (axis == "z"), 0.1, 3 * count) for axis in "xyz"}
        cells |= {"take": np.repeat([4, 5, 6], count)} if told else {}
        (tmp_path / "in").mkdir(exist_ok=True)
        pq.write_table(pa.table(cells), tmp_path / "in" / f"subject_{subject}.parquet")
    options, samples = made(tmp_path / "in", tmp_path)
    assert options["devices"]["sensor"]["time_column"] == "time"
    if told:
        assert options["key_columns"] == {"trial": "take"}
        assert {(each.key.action, each.key.trial) for each in samples} == {("walk", "4-1"), ("walk", "5-2"), ("sit", "6-3")}
    else:
        assert "time stamps go back within a file" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("Acc X (g)", "g"),
        ("acc [m/s²]", "m/s^2"),
        ("gyr_x (°/s)", "deg/s"),
        ("Gyr X (DPS)", "deg/s"),
        ("t [µs]", "us"),
        ("x", ""),
        ("x (left)", ""),
    ],
)
def test_units_in_names_of_columns(name, unit):
    assert unit_in(name) == unit


def test_columns_of_unknown_signals_are_named(tmp_path):
    for subject in (1, 2):
        rows = "\n".join(f"{n * 0.1},{n % 3},{n % 5},9.8,{n % 7}" for n in range(40))
        (tmp_path / f"s{subject}_walk.csv").write_text(f"time,acc_x,acc_y,acc_z,Beschl.\n{rows}\n")
    assert "sensor: columns that are not used: Beschl." in look(tmp_path).notes

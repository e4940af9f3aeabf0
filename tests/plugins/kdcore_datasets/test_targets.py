"""Datasets of files whose samples have labels, values and weights."""

import numpy as np
import pytest

from kdcore import DataError, Target
from kdcore_datasets.sensor_csv.dataset import SensorCsv
from kdcore_datasets.sensor_csv.options import Device, Label
from kdcore_datasets.targets import read_numbers_of
from kdcore_datasets.window_arrays import Windows, WindowSet
from kdcore_inspect.data_check import check

ROWS = np.array([[1, 0], [0, 0], [1, 1], [np.nan, np.nan]])


def windows(folder, rows=ROWS, **told):
    arrays = {"X": np.zeros((len(rows), 8, 3)), "Y": rows, "w": np.arange(1, len(rows) + 1)}
    np.savez(folder / "all.npz", **arrays)
    sets = {"all": WindowSet({"accelerometer": ("all.npz:X",)}, "all.npz:Y")}
    return Windows(root=folder, sets=sets, rate=50.0, **told)


def test_windows_with_labels_and_weights(tmp_path):
    data = windows(tmp_path, target="labels", classes=("walk", "talk"), unlabelled="keep", weights={"all": "all.npz:w"})
    samples = sorted(data.samples(), key=lambda each: int(each.key.trial))
    assert [each.target for each in samples] == [(1.0, 0.0), (0.0, 0.0), (1.0, 1.0), None]
    assert [each.key.action for each in samples] == ["walk", "none", "walk+talk", "unlabelled"]
    assert [each.weight for each in samples] == [1.0, 2.0, 3.0, 4.0]
    assert data.weighted
    assert len(windows(tmp_path, target="labels", classes=("walk", "talk")).samples()) == 3, "a window without labels is bad"


def test_windows_with_values(tmp_path):
    data = windows(tmp_path, np.array([61.5, 70.0]), target="values", classes=("pulse",), value_units={"pulse": "bpm"})
    assert data.target.units == ("bpm",)
    assert sorted(each.target for each in data.samples()) == [(61.5,), (70.0,)]


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"target": "labels"}, "requires 'classes'"),
        ({"target": "values", "classes": ("a", "b"), "value_units": {"c": "m"}}, "no value 'c'"),
    ],
)
def test_a_target_without_names_is_refused(tmp_path, told, said):
    with pytest.raises(ValueError, match=said):
        windows(tmp_path, **told)


def test_rows_that_do_not_fit_are_named(tmp_path):
    with pytest.raises(DataError, match="expected 3 numbers"):
        windows(tmp_path, target="labels", classes=("a", "b", "c")).samples()
    for kind, action in (("labels", "a"), ("values", "recording")):
        [partly] = windows(tmp_path, np.array([[1, np.nan]]), target=kind, classes=("a", "b")).samples()
        assert partly.target is not None
        np.testing.assert_array_equal(partly.target, [1, np.nan])
        assert partly.key.action == action


def sensors(folder, texts, **told):
    """A file of ten rows for each text, which its label column says."""
    lines = ["x,y,z,what,weight"]
    for number, text in enumerate(texts):
        lines += [f"{number},{row},0,{text},{number + 1}" for row in range(10)]
    (folder / "s1_a.csv").write_text("\n".join(lines))
    device = Device("s{subject}_{trial}.csv", {"accelerometer": ("x", "y", "z")}, rate=50.0)
    return SensorCsv(root=folder, devices={"watch": device}, label=Label(column="what"), **told)


def test_sensor_files_with_labels_and_weights(tmp_path):
    data = sensors(tmp_path, ["walk;talk", "none", "talk", "run"], target="labels", classes=("walk", "talk"), weight="weight")
    assert [(each.target, each.weight) for each in data.samples()] == [((0.0, 0.0), 2.0), ((0.0, 1.0), 3.0), ((1.0, 1.0), 1.0)]
    assert ["'run' is not one of walk, talk" in each.detail for each in data.unusable] == [True]


NAN = float("nan")


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("labels", "walk;?talk", (1.0, NAN, 0.0)),
        ("labels", "?talk", (0.0, NAN, 0.0)),
        ("labels", "walk;?", (1.0, NAN, NAN)),
        ("labels", "walk; ? talk;", (1.0, NAN, 0.0)),
        ("labels", "?walk;?talk;?run", None),
        ("labels", "?", None),
        ("labels", ";", None),
        ("labels", "", None),
        ("labels", "none", (0.0, 0.0, 0.0)),
        ("labels", "none;walk", "'none' is not one of"),
        ("labels", "?jump", "'jump' is not one of"),
        ("labels", "walk;?walk", "both as present and as unknown"),
        ("values", "1;2;", (1.0, 2.0, NAN)),
        ("values", ";2;3", (NAN, 2.0, 3.0)),
        ("values", "1;2;3;", (1.0, 2.0, 3.0)),
        ("values", "1;?;nan", (1.0, NAN, NAN)),
        ("values", "?", None),
        ("values", ";;", None),
        ("values", "nan;?;", None),
        ("values", "1;2", "is 2 values, and 3 are expected"),
        ("values", "1;2;inf", "not finite"),
        ("values", "1;2;3;4", "is 4 values"),
    ],
)
def test_texts_say_what_is_not_known(kind, text, expected):
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected):
            read_numbers_of(text, ("walk", "talk", "run"), Target(kind))
    else:
        assert str(read_numbers_of(text, ("walk", "talk", "run"), Target(kind))) == str(expected)  # NaN is not equal to itself


@pytest.mark.parametrize(
    ("kind", "texts"), [("classes", ["walk", "", "talk"]), ("labels", ["walk;?", "", "?"]), ("values", ["1;2", ";", "?;nan"])]
)
def test_sensor_files_without_a_label(tmp_path, kind, texts):
    names = {"classes": ("walk", "talk")} | ({} if kind == "classes" else {"target": kind})
    kept = sensors(tmp_path, texts, unlabelled="keep", **names)
    actions = {each.key.trial: each.key.action for each in kept.samples() if not each.is_labelled}
    empty = ["a-2"] if kind == "classes" else ["a-2", "a-3"]
    assert actions == dict.fromkeys(empty, "unlabelled")
    left_out = sensors(tmp_path, texts, **names)
    assert len(left_out.samples()) == 3 - len(empty)
    assert [each.reason for each in left_out.unusable] == ["no label"] * len(empty)
    assert all("set unlabelled: keep and data.labels: partial" in each.detail for each in left_out.unusable)


def test_sensor_files_with_values(tmp_path):
    data = sensors(tmp_path, ["61.5;1.2", "70;1.4", "fast;2"], target="values", classes=("pulse", "speed"))
    assert sorted(each.target for each in data.samples()) == [(61.5, 1.2), (70.0, 1.4)]
    assert "is not a number for each of pulse, speed" in data.unusable[0].detail


def test_data_check_counts_labels_and_prints_ranges(tmp_path):
    for number in (1, 2, 3, 4):
        rows = [f"{row},{number},0,{text}" for text in (f"{60 + number};walk", "") for row in range(10)][:10]
        (tmp_path / f"s{number}_a.csv").write_text("\n".join(["x,y,z,what", *rows]).replace(";walk", ""))
    tree = {
        "version": 1,
        "name": "pulse",
        "data": {
            "dataset": {
                "name": "sensor-csv",
                "root": str(tmp_path),
                "devices": {
                    "watch": {"pattern": "s{subject}_{trial}.csv", "columns": {"accelerometer": ["x", "y", "z"]}, "rate": 50.0}
                },
                "label": {"column": "what"},
                "target": "values",
                "classes": ["pulse"],
                "value_units": {"pulse": "bpm"},
            },
            "protocol": "cross-subject",
        },
        "student": {"modality": "accelerometer-watch", "encoder": "cnn1d"},
        "losses": ["regression"],
    }
    import yaml

    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(tree))
    found = check(tmp_path / "recipe.yaml")
    assert found.values == {"pulse [bpm]": {"train": (61.0, 62.0, 63.0), "test": (62.0, 63.0, 64.0)}}

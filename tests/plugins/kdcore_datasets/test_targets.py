"""Datasets of files whose samples have labels, values and weights."""

import numpy as np
import pytest

from kdcore import DataError
from kdcore.data.check import check
from kdcore_datasets.sensor_csv.dataset import SensorCsv
from kdcore_datasets.sensor_csv.options import Device, Label
from kdcore_datasets.window_arrays import Windows, WindowSet

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
    with pytest.raises(DataError, match="has some values and lacks others"):
        windows(tmp_path, np.array([[1, np.nan]]), target="values", classes=("a", "b")).samples()
    [partly] = windows(tmp_path, np.array([[1, np.nan]]), target="labels", classes=("a", "b")).samples()
    assert partly.target is not None
    np.testing.assert_array_equal(partly.target, [1, np.nan])
    assert partly.key.action == "a"


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

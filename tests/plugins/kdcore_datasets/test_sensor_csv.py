from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from sensor_recordings import ACC, dataset, write

from kdcore import DataError, Sample
from kdcore.data.fingerprint import Hashes, fingerprint
from kdcore_datasets.sensor_csv.dataset import SensorCsv


def walk(labels: str, start: int = 0, step: int = 10) -> list[list[object]]:
    return [[start + step * n, n, -n, 0.5, label] for n, label in enumerate(labels)]


@pytest.fixture
def two_devices(tmp_path: Path) -> Path:
    """A watch at 100 Hz and a phone at 50 Hz that starts 15 ms later; label b lasts from 40 to 90 ms on the watch."""
    write(tmp_path / "s07/01_watch.csv", walk("aaaabbbbba", start=1_000_000))
    write(tmp_path / "s07/01_phone.csv", walk("aaaaaaa", start=1_000_015, step=20))
    return tmp_path


def cut_options(root: Path, **more: Any) -> dict[str, Any]:
    device = {"columns": ACC, "time_column": "t", "time_unit": "ms"}
    devices = {name: {"pattern": f"s{{subject}}/{{trial}}_{name}.csv", **device} for name in ("watch", "phone")}
    return {"root": root, "devices": devices, "label": {"column": "label"}, **more}


def test_recordings_are_cut_where_the_first_devices_label_changes(two_devices: Path):
    data = dataset(**cut_options(two_devices))
    assert data.classes == ("a", "b")
    first, second = data.samples()
    assert (first.key.subject, first.key.action, first.key.trial) == ("07", "a", "01-1")
    assert (second.key.action, second.key.trial, second.label) == ("b", "01-2", 1)

    watch = data.read(second, "accelerometer-watch")
    np.testing.assert_allclose(watch.clock, np.arange(5) * 0.01, atol=1e-9)
    np.testing.assert_array_equal(watch.values[:, 0], [4, 5, 6, 7, 8])
    assert watch.rate == pytest.approx(100)
    phone = data.read(second, "accelerometer-phone")
    np.testing.assert_allclose(phone.clock, [0.015, 0.035], atol=1e-9)
    np.testing.assert_array_equal(phone.values[:, 0], [2, 3])


def test_short_pieces_and_ignored_labels_are_left_out(two_devices: Path):
    assert [sample.key.trial for sample in dataset(**cut_options(two_devices, min_duration=0.035)).samples()] == ["01-2"]
    ignoring = dataset(**cut_options(two_devices, ignore_labels=["a"]))
    assert ignoring.classes == ("b",)
    assert [sample.label for sample in ignoring.samples()] == [0]


def test_listed_classes_are_kept_in_their_order(two_devices: Path):
    data = dataset(**cut_options(two_devices, classes=["b", "a"]))
    assert [sample.label for sample in data.samples()] == [1, 0]
    data = dataset(**cut_options(two_devices, classes=["a"]))
    assert [sample.label for sample in data.samples()] == [0]
    assert [(each.reason, each.detail) for each in data.unusable if each.fault] == [
        ("unknown label", "label 'b' is not one of the classes a")
    ]


def test_classes_in_the_recipe_need_no_files(tmp_path: Path):
    assert dataset(**cut_options(tmp_path / "absent", classes=["a", "b"])).classes == ("a", "b")


def test_a_moved_dataset_has_the_same_fingerprint_until_a_file_changes(two_devices: Path, tmp_path: Path):
    def taken(root: Path) -> str:
        made = dataset(**cut_options(root))
        return fingerprint(made, made.samples(), {"root": str(root)}, Hashes(tmp_path / "hashes.json"))

    moved = tmp_path / "moved"
    shutil.copytree(two_devices / "s07", moved / "s07")
    assert taken(two_devices) == taken(moved)
    path = moved / "s07/01_phone.csv"
    path.write_text(path.read_text().replace("0.5", "0.6"))
    assert taken(two_devices) != taken(moved)


def test_version_changes_with_how_files_are_read(two_devices: Path):
    options = cut_options(two_devices)
    plain = dataset(**options)
    options["devices"]["watch"]["units"] = {"accelerometer": "g"}
    assert dataset(**options).version != plain.version


def test_labels_from_paths_and_whole_recordings_on_one_clock(tmp_path: Path):
    write(tmp_path / "3/run_1.csv", [[2.5, 1, 0, 0], [2.6, 2, 0, 0], [2.7, 3, 0, 0]], "t,x,y,z")
    write(tmp_path / "3/run_1.wrist", [[2.0, 90, 0], [2.2, 180, 0]], "t,p,q")
    devices = {
        "hip": {
            "pattern": "{subject}/{action}_{trial}.csv",
            "columns": ACC,
            "time_column": "t",
            "units": {"accelerometer": "g"},
        },
        "wrist": {
            "pattern": "{subject}/{action}_{trial}.wrist",
            "columns": {"gyroscope": ["p", "q"]},
            "time_column": 0,
            "units": {"gyroscope": "deg/s"},
            "placement": "left-wrist",
        },
    }
    data = dataset(root=tmp_path, devices=devices)
    (sample,) = data.samples()
    assert data.classes == ("run",)
    assert sample.sources["accelerometer-hip"] == tmp_path / "3/run_1.csv"
    hip, wrist = data.read(sample, "accelerometer-hip"), data.read(sample, "gyroscope-wrist")
    assert (wrist.start, hip.start) == (0, 0.5)
    np.testing.assert_allclose(hip.values[:, 0], np.array([1, 2, 3]) * 9.80665, rtol=1e-6)
    np.testing.assert_allclose(wrist.values[:, 0], [np.pi / 2, np.pi], rtol=1e-6)
    assert data.modalities["gyroscope-wrist"].channels == ("p", "q")
    assert data.modalities["gyroscope-wrist"].placement == "left-wrist"
    assert data.modalities["accelerometer-hip"].channels == ("x", "y", "z")


def test_rate_without_time_column_and_no_header(tmp_path: Path):
    path = tmp_path / "a_1.txt"
    path.write_text("1;2\n3;4\n5;6\n")
    device = {"pattern": "{action}_{trial}.txt", "columns": {"pressure": [1]}, "rate": 20, "delimiter": ";", "header": False}
    data = dataset(root=tmp_path, devices={"sole": device})
    (sample,) = data.samples()
    signal = data.read(sample, "pressure-sole")
    np.testing.assert_array_equal(signal.values, [[2], [4], [6]])
    np.testing.assert_allclose(signal.clock, [0, 0.05, 0.1])


def test_one_file_of_several_subjects(tmp_path: Path):
    rows = [["u1", "w", 0, 1], ["u1", "w", 1, 2], ["u2", "w", 0, 3], ["u2", "w", 1, 4], ["u2", "r", 2, 5], ["u2", "r", 3, 6]]
    write(tmp_path / "all.csv", rows, "user,activity,t,x")
    device = {"pattern": "all.csv", "columns": {"accelerometer": ["x"]}, "time_column": "t"}
    data = dataset(root=tmp_path, devices={"phone": device}, label={"column": "activity"}, key_columns={"subject": "user"})
    keys = [(sample.key.subject, sample.key.action, sample.key.trial) for sample in data.samples()]
    assert keys == [("u1", "w", "1"), ("u2", "r", "3"), ("u2", "w", "2")]
    np.testing.assert_array_equal(data.read(data.samples()[2], "accelerometer-phone").values[:, 0], [3, 4])


def test_pieces_whose_label_is_empty_are_bad_or_kept(tmp_path: Path):
    rows = [[10 * n, n, -n, 0.5, label] for n, label in enumerate(["a", "a", "a", "", "", "", "b", "b", "b"])]
    write(tmp_path / "s1_1.csv", rows)
    device = {"pattern": "s{subject}_{trial}.csv", "columns": ACC, "time_column": "t", "time_unit": "ms"}
    options = {"root": tmp_path, "devices": {"watch": device}, "label": {"column": "label"}}
    bad, kept = dataset(**options), dataset(**options, unlabelled="keep")
    assert [sample.label for sample in bad.samples()] == [0, 1]
    assert [each.reason for each in bad.unusable] == ["no label"]
    assert list(kept.classes) == list(bad.classes) == ["a", "b"]
    assert sorted((sample.label for sample in kept.samples()), key=str) == [0, 1, None]
    assert kept.unusable == []


def test_recordings_without_labels(tmp_path: Path):
    write(tmp_path / "1.csv", walk("aa"))
    device = {"pattern": "{trial}.csv", "columns": ACC, "rate": 10}
    (sample,) = dataset(root=tmp_path, devices={"watch": device}, label=None, classes=["a", "b"]).samples()
    assert sample.label is None


def test_a_raw_file_for_prediction(two_devices: Path):
    data = dataset(**cut_options(two_devices, classes=["a", "b"]))
    signal = data.read_file(two_devices / "s07/01_phone.csv", "accelerometer-phone")
    assert len(signal) == 7
    assert signal.start == 0
    assert signal.rate == pytest.approx(50)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("t,x,y,z\n", "has no rows"),
        ("t,x,y\n1,2,3\n", "has no column 'z'; its columns are t, x, y$"),
        ("t;x;y;z\n1;2;3;4\n", "has no column 't'; its columns are t;x;y;z; is its `delimiter` ';'.$"),
        ("t\tx\ty\tz\n1\t2\t3\t4\n", r"is its `delimiter` '\\t'.$"),
        ("t,x,y,z\n1;2;3;4\n", r"line 2 has 1 column.s., none for 'x'; is its `delimiter` ';'.$"),
        ("t,x,y,z\n1,2,3,oops\n2,2,3,4\n", "line 2: column 'z' is 'oops', not a number$"),
        (
            't,x,y,z\n1,2,3,"0,12"\n2,2,3,4\n',
            r"line 2: column 'z' is '0,12', not a number; are these decimal commas\? set `decimal: ','`$",
        ),
        ("t,x,y,z\n1,2,3,inf\n2,2,3,4\n", r"line 2: column 'z' is inf, not a finite number up to 1e\+30 .1 such"),
        ("t,x,y,z\n1,2,3,4\n\n2,2,3,1e308\n", r"line 4: column 'z' is 1e\+308, not a finite"),
        ("t,x,y,z\n1,2,3,4\n", "needs at least two"),
        ("t,x,y,z\n2,2,3,4\n1,2,3,4\n", "time stamps go back 1 time"),
        ("t,x,y,z\n2,2,3,4\n2,2,3,4\n", "time does not advance"),
        ("t,x,y,z\n2,2,3,4\n\n2,2\n", r"line 4 has 2 column.s., none for 'y'$"),
        ("t,x,y,z\n1,2,3,4\n2,2,x,4\n2,2\n", "line 3: column 'y' is 'x', not a number$"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, text: str, said: str):
    path = tmp_path / "run.csv"
    path.write_text(text)
    data = dataset(root=tmp_path, devices={"w": {"pattern": "{action}.csv", "columns": ACC, "time_column": "t"}})
    with pytest.raises(DataError, match=f"(?s)run.csv.*{said}"):
        data.read(data.samples()[0], "accelerometer-w")


def test_only_the_segments_that_a_broken_row_is_in_are_bad(two_devices: Path):
    rows = walk("aaaabbbbbaaa", start=1_000_000)
    rows[1][2] = "nan"  # within the first a
    rows[6][1] = "oops"  # within b
    rows[11:] = [[1_000_110, 3]]  # the last line was cut off
    write(two_devices / "s07/01_watch.csv", rows)
    data = dataset(**cut_options(two_devices))
    samples = data.samples()
    assert [sample.key.trial for sample in samples] == ["01-1", "01-3", "01-2"]
    np.testing.assert_array_equal(data.read(samples[1], "accelerometer-watch").values[:, 0], [9, 10])
    for sample, said in ((samples[0], "line 3: column 'y' is nan"), (samples[2], "line 8: column 'x' is 'oops'")):
        with pytest.raises(DataError, match=said):
            data.read(sample, "accelerometer-watch")
    assert {each.reason for each in data.unusable} == {"fewer than two rows"}


def test_all_that_becomes_no_sample_is_told_with_its_reason(two_devices: Path):
    rows = walk("aaaabbbbabaaa", start=1_000_000)
    rows[2][0], rows[10][0], rows[11][0] = 1_000_005, "", 1_000_110
    write(two_devices / "s07/01_watch.csv", rows)
    (two_devices / "s07/02_watch.csv").write_bytes(b"t,x,y,z,label\n\xff\x00")
    (two_devices / "s07/03_watch.csv").write_text("")
    (two_devices / "s07/04_watch.csv").symlink_to("04_watch.csv")
    write(two_devices / "s07/05_watch.csv", [[1, 2, 3, 4]], header="t,x,y,z")
    write(two_devices / "s07/06_phone.csv", walk("aa"))
    data = dataset(**cut_options(two_devices, min_duration=0.02, ignore_labels=["b"], classes=["a"]))
    assert data.samples() == []
    told = [(Path(each.what.split(",")[0]).name, each.reason, each.fault) for each in data.unusable]
    assert sorted(told) == sorted(
        [
            ("01_watch.csv", "time runs backwards", True),
            ("01_watch.csv", "fewer than two rows", False),
            ("01_watch.csv", "fewer than two rows", False),
            ("01_watch.csv", "unreadable time", True),
            ("02_watch.csv", "unreadable", True),
            ("03_watch.csv", "unreadable", True),
            ("04_watch.csv", "unreadable", True),
            ("05_watch.csv", "unreadable", True),
            ("06_phone.csv", "no first device", False),
            ("subject 07", "ignored label", False),
        ]
    )
    assert {each.subject for each in data.unusable} == {"07"}


def test_blanks_between_columns_may_be_many(tmp_path: Path):
    path = tmp_path / "run.txt"
    path.write_text("t   x \t y\n1   2  3\n2\t4  5\n")
    device = {"pattern": "{action}.txt", "columns": {"pressure": ["y"]}, "time_column": "t", "delimiter": " "}
    data = dataset(root=tmp_path, devices={"w": device})
    np.testing.assert_array_equal(data.read(data.samples()[0], "pressure-w").values[:, 0], [3, 5])
    path.write_text("t x y\n1 2  3\n2\t4  five\n")
    with pytest.raises(DataError, match=r"run.txt: line 3: column 'y' is 'five', not a number"):
        data.read(data.samples()[0], "pressure-w")


def test_a_binary_file_is_named(tmp_path: Path):
    path = tmp_path / "run.csv"
    path.write_bytes(b"t,x,y,z\n\xff\xfe\x00\x81")
    data = dataset(root=tmp_path, devices={"w": {"pattern": "{action}.csv", "columns": ACC, "time_column": "t"}})
    with pytest.raises(DataError, match=r"run.csv"):
        data.read(data.samples()[0], "accelerometer-w")


DEVICE = {"pattern": "{action}.csv", "columns": ACC, "rate": 10}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"devices": {"w": {"pattern": "{action}.csv", "columns": ACC}}}, "give rate or time_column"),
        ({"devices": {"w": {**DEVICE, "columns": {}}}}, "at least one column"),
        ({"devices": {"w": {**DEVICE, "units": {"gyroscope": "deg/s"}}}}, "have no columns"),
        ({"devices": {"w": {**DEVICE, "units": {"accelerometer": "furlong"}}}}, "furlong|Input should be"),
        ({"devices": {"w": {**DEVICE, "pattern": "{who}.csv"}}}, "known placeholders are subject"),
        ({"devices": {"w": {**DEVICE, "colums": 1}}}, "colums"),
        ({"devices": {"w": DEVICE}, "label": {}}, "either column or path"),
        ({"devices": {"w": DEVICE}, "label": {"path": "scene"}}, "no {scene} to take labels from"),
        ({"devices": {"w": DEVICE}, "label": None}, "need classes"),
        ({"devices": {"w": DEVICE, "p": {**DEVICE, "pattern": "{action}_{trial}.csv"}}}, "same placeholders"),
        (
            {"devices": {"w": DEVICE, "p": {**DEVICE, "rate": 7}}, "label": {"column": "label"}},
            "w and p must have a time_column",
        ),
        ({"devices": {}}, "at least one device"),
    ],
)
def test_descriptions_that_make_no_sense(tmp_path: Path, options: dict[str, Any], said: str):
    with pytest.raises((ValueError, ValidationError), match=said):
        dataset(root=tmp_path, **options)


def test_no_file_fits(tmp_path: Path):
    with pytest.raises(DataError, match=r"holds no file that fits '{action}.csv'"):
        dataset(root=tmp_path, devices={"w": DEVICE}).samples()
    with pytest.raises(DataError, match="no such folder"):
        dataset(root=tmp_path / "absent", devices={"w": DEVICE}).samples()


def test_phone_and_watch_recordings(recordings: Path):
    columns = {"accelerometer": ["x_acc", "y_acc", "z_acc"], "gyroscope": ["x_gyro", "y_gyro", "z_gyro"]}
    devices = {
        name: {
            "pattern": f"s{{subject}}/s{{subject}}_{{trial}}_{code}.csv",
            "columns": columns,
            "time_column": "timestamp",
            "time_unit": "ms",
        }
        for name, code in (("phone", "sp"), ("watch", "sw"))
    }
    data = dataset(root=recordings / "spsw", devices=devices, label={"column": "label"}, min_duration=0.3)
    samples = data.samples()
    assert set(data.classes) == {"SEATED", "STANDING_UP", "WALKING", "TURNING", "SITTING_DOWN"}
    assert {sample.key.subject for sample in samples} == {"01", "02", "03", "04", "05", "06"}
    assert len({sample.key for sample in samples}) == len(samples)
    first_trial = [sample for sample in samples if sample.key.subject == "01" and sample.key.trial.startswith("01-")]
    in_time = sorted(first_trial, key=lambda sample: int(sample.key.trial.split("-")[1]))
    assert [sample.key.action for sample in in_time] == (
        ["SEATED", "STANDING_UP", "WALKING", "TURNING", "WALKING", "TURNING", "SITTING_DOWN", "SEATED"]
    )
    assert [len(data.read(sample, "gyroscope-phone")) for sample in in_time] == [78, 133, 232, 139, 217, 89, 190, 273]
    _check_signals(data, samples[::40])


def _check_signals(data: SensorCsv, samples: list[Sample]) -> None:
    for sample in samples:
        assert len(sample.sources) == 4
        phone, watch = data.read(sample, "accelerometer-phone"), data.read(sample, "accelerometer-watch")
        assert phone.start == 0
        assert 0 <= watch.start < 0.2
        assert phone.duration == pytest.approx(watch.duration, abs=0.2)
        assert 7 < np.linalg.norm(watch.values, axis=1).mean() < 15

"""``kdcore data new`` on folders that are laid out as published archives are."""

from __future__ import annotations

import gzip
import json
import zipfile

import numpy as np
import pytest
import yaml

from kdcore import Builder, DataError, UsageError, load_recipe
from kdcore_datasets.new.recipe import look, new_recipe

NOISE = np.random.default_rng(0)
ONE_G = 9.80665


def acceleration(rows, one=9.81):
    return NOISE.normal([0, 0, one], 0.05 * one, (rows, 3))


def written(path, rows, delimiter=",", end="", header=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [*([header] if header else []), *(delimiter.join(map(str, row)) + end for row in rows)]
    path.write_text("\n".join(lines) + "\n")


def made(root, tmp_path):
    """The recipe that the command writes, its dataset, and the samples of each split."""
    target = tmp_path / "made.yaml"
    target.unlink(missing_ok=True)
    new_recipe(root, target)
    builder = Builder(load_recipe(target))
    dataset = builder.dataset()
    return yaml.safe_load(target.read_text())["data"], dataset, builder.protocol().split(dataset.samples()).samples


def test_opportunity(tmp_path):
    for subject in (1, 2):
        for name in ("ADL1", "Drill"):
            rows = []
            for n in range(60):
                row = [33 * n, *[round(1000 * each) for each in NOISE.normal(size=242)], 1 + n // 30, *[0] * 6]
                row[1:4] = ["NaN"] * 3
                row[63:66] = [0, 1000, 2000]  # the 64th column and two more: right lower arm, milli g
                rows.append(row)
            written(tmp_path / "O" / "dataset" / f"S{subject}-{name}.dat", rows, " ")
    written(tmp_path / "O" / "dataset" / "column_names.txt", [["Column: 1 MILLISEC"]] * 5)
    told, dataset, splits = made(tmp_path / "O", tmp_path)
    assert told["dataset"]["label"] == {"column": 243}
    assert sorted(dataset.modalities)[0] == "accelerometer-back"
    samples = [each for members in splits.values() for each in members]
    assert {(each.key.subject, each.key.session) for each in samples} == {(s, r) for s in "12" for r in ("ADL1", "Drill")}
    arm = dataset.read(samples[0], "accelerometer-right-lower-arm").values
    np.testing.assert_allclose(arm, np.tile([0, ONE_G, 2 * ONE_G], (len(arm), 1)), rtol=1e-6)


def test_mhealth(tmp_path):
    for subject in (1, 2):
        rows = [[*NOISE.normal(size=8), *[180.0, 0.0, 90.0], *NOISE.normal(size=12), n // 30] for n in range(90)]
        written(tmp_path / "M" / f"mHealth_subject{subject}.log", rows, "\t")
    _, dataset, splits = made(tmp_path / "M", tmp_path)
    [first, *_] = splits["train"]
    gyroscope = dataset.read(first, "gyroscope-ankle")
    assert gyroscope.rate == 50
    np.testing.assert_allclose(gyroscope.values[0], [np.pi, 0, np.pi / 2], rtol=1e-6)
    assert {each.key.action for members in splits.values() for each in members} == {"1", "2"}


def test_what_is_beside_a_known_archive_is_said(tmp_path):
    values = [[n / 100, 1 + n // 20, *NOISE.normal(size=52)] for n in range(40)]
    for place in ("Protocol/subject101", "Protocol/subject102", "Optional/subject101"):
        written(tmp_path / "P" / f"{place}.dat", values, " ")
    assert look(tmp_path / "P").notes == ["1 files are skipped: Optional/subject101.dat"]


def test_phone_and_watch_with_a_file_for_each_kind_of_signal(tmp_path):
    """WISDM of 2019; the words for the kind of signal are no subjects."""
    for device in ("phone", "watch"):
        for kind in ("accel", "gyro"):
            for subject in (1600, 1601):
                signal = acceleration(60) if kind == "accel" else NOISE.normal(size=(60, 3))
                clock = 252207666810782 + 50354000 * np.arange(60)
                rows = [[subject, "A" if n < 30 else "B", clock[n], *signal[n]] for n in range(60)]
                written(tmp_path / "W" / "raw" / device / kind / f"data_{subject}_{kind}_{device}.txt", rows, ",", ";")
    told, dataset, splits = made(tmp_path / "W", tmp_path)
    assert {name: each["pattern"] for name, each in told["dataset"]["devices"].items()} == {
        f"{device}-{kind}": f"raw/{device}/{kind}/data_{{subject}}_{kind}_{device}.txt"
        for device in ("phone", "watch")
        for kind in ("accel", "gyro")
    }
    assert set(dataset.modalities) == {f"{kind}-{device}-{short}" for device in ("phone", "watch") for kind, short in
                                       (("accelerometer", "accel"), ("gyroscope", "gyro"))}  # fmt: skip
    assert {each.key.subject for each in splits["train"]} == {"1600"}


def test_rows_of_wisdm_that_lack_a_value_or_a_time(tmp_path):
    rows = []
    for subject in (33, 17):
        for activity in ("Jogging", "Sitting"):
            for x in acceleration(60):
                rows.append([subject, activity, 49105962326000 + 50_000_000 * len(rows), *x.round(5)])
    rows[20], rows[40] = [33, "Jogging", 0, 0, 0, 0], [*rows[40][:5], ""]
    written(tmp_path / "W" / "WISDM_ar_v1.1_raw.txt", rows, ",", ";")
    _, dataset, splits = made(tmp_path / "W", tmp_path)
    assert sum(map(len, splits.values())) == 4
    [note] = dataset.notes
    assert "missing in 2 rows of 1 of 4 samples; 1 rows were interpolated, 1 left out" in note
    [jogging] = [each for members in splits.values() for each in members if each.key.subject == "33" if each.label == 0]
    signal = dataset.read(jogging, "accelerometer-sensor")
    assert len(signal) == 59
    expected = (np.array(rows[39][3:]) + np.array(rows[41][3:])) / 2
    np.testing.assert_allclose(signal.values[39][2], expected[2], rtol=1e-5)


def test_capture_24_leaves_rows_without_an_annotation_out(tmp_path):
    for subject in (1, 2):
        texts = ["", "7030 sleeping;MET 0.95", "walking;MET 3.0", ""]
        rows = [
            f"2014-05-07 13:29:{50 + n // 100}.{n % 100:02d}0000,{x[0]:.5f},{x[1]:.5f},{x[2]:.5f},{texts[n // 30]}"
            for n, x in enumerate(acceleration(120, 1.0))
        ]
        (tmp_path / "C").mkdir(exist_ok=True)
        (tmp_path / "C" / f"P{subject:03d}.csv.gz").write_bytes(
            gzip.compress("\n".join(["time,x,y,z,annotation", *rows]).encode())
        )
    written(tmp_path / "C" / "metadata.csv", [["P001", "18-29", "F"]] * 3, header="pid,age,sex")
    told, dataset, splits = made(tmp_path / "C", tmp_path)
    assert told["dataset"]["ignore_labels"] == [""]
    assert {each.key.action for members in splits.values() for each in members} == {"7030 sleeping;MET 0.95", "walking;MET 3.0"}
    assert [(each.reason, each.fault) for each in dataset.unusable] == [("ignored label", False)] * 4
    assert "dates; about 100 samples per second" in look(tmp_path / "C").why["devices", "sensor", "time_column"]


def test_realworld(tmp_path):
    for person in (1, 2):
        for action in ("walking", "sitting"):
            for short, long in (("acc", "acc"), ("gyr", "Gyroscope")):
                for place in ("chest", "waist"):
                    rows = [[n, 1435989772000 + 20 * n, *x] for n, x in enumerate(acceleration(50))]
                    home = tmp_path / "R" / f"proband{person}" / "data" / f"{short}_{action}_csv"
                    written(home / f"{long}_{action}_{place}.csv", rows, header="id,attr_time,attr_x,attr_y,attr_z")
    told, dataset, splits = made(tmp_path / "R", tmp_path)
    assert set(dataset.modalities) == {
        "accelerometer-acc-chest", "accelerometer-acc-waist", "gyroscope-gyr-chest", "gyroscope-gyr-waist"
    }  # fmt: skip
    assert {each["time_unit"] for each in told["dataset"]["devices"].values()} == {"ms"}
    assert {(each.key.subject, each.key.action) for members in splits.values() for each in members} == {
        (who, what) for who in "12" for what in ("walking", "sitting")
    }


def test_msr_action_3d(tmp_path):
    clips = {}
    for action in (1, 2):
        for subject in (1, 2):
            clips[action, subject] = NOISE.normal(size=(6, 20, 4)).round(6)
            name = tmp_path / "S" / f"a{action:02d}_s{subject:02d}_e01_skeleton3D.txt"
            written(name, clips[action, subject].reshape(-1, 4), " ")
    told, dataset, splits = made(tmp_path / "S", tmp_path)
    assert told["dataset"]["name"] == "skeleton-text"
    for each in (each for members in splits.values() for each in members):
        signal = dataset.read(each, "skeleton")
        np.testing.assert_allclose(
            signal.values[..., 0], clips[int(each.key.action), int(each.key.subject)][..., :3], rtol=1e-6
        )
        assert signal.rate == 15


def test_parts_called_train_and_test_stay_what_they_are(tmp_path):
    for part in ("TRAIN", "TEST"):
        cases = [":".join(",".join(map(str, row)) for row in NOISE.normal(size=(3, 8))) + f":c{n % 2}" for n in range(8)]
        (tmp_path / "T").mkdir(exist_ok=True)
        (tmp_path / "T" / f"Acts_{part}.ts").write_text("@classLabel true\n@data\n" + "\n".join(cases))
    new_recipe(tmp_path / "T", tmp_path / "made.yaml", rate=50.0)
    builder = Builder(load_recipe(tmp_path / "made.yaml"))
    splits = builder.protocol().split(builder.dataset().samples()).samples
    assert {split: {each.key.session for each in members} for split, members in splits.items() if members} == {
        "train": {"train"}, "test": {"test"}
    }  # fmt: skip


def test_archives_are_named(tmp_path):
    (tmp_path / "z").mkdir()
    (tmp_path / "z" / "archive.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match="unpack the archives first"):
        look(tmp_path / "z")
    with pytest.raises(DataError, match=r"archive\.zip: is an archive; unpack it"):
        look(tmp_path / "z" / "archive.zip")


def test_a_zip_archive_is_unpacked_once(tmp_path, capsys):
    """Under a name with blanks and accents, with the folder that systems add."""
    root = tmp_path / "Größe 1"
    for subject in (1, 2):
        for action in ("walk", "sit"):
            written(root / f"data/s{subject}_{action}.csv", acceleration(40), header="x,y,z")
    archive = tmp_path / "my archive.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for file in sorted(root.rglob("*.csv")):
            packed.write(file, file.relative_to(tmp_path))
        packed.writestr("__MACOSX/Größe 1/._s1_walk.csv", b"\0")
    new_recipe(archive, tmp_path / "a.yaml", rate=50)
    assert "4 samples, 2 classes, 2 subjects" in capsys.readouterr().out
    assert sorted(each.name for each in tmp_path.iterdir()) == ["Größe 1", "a.yaml", "my archive", "my archive.zip"]
    with pytest.raises(UsageError, match="already exists; pass the folder"):
        new_recipe(archive, tmp_path / "b.yaml", rate=50)


def test_an_archive_that_cannot_be_unpacked_leaves_nothing_behind(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK nothing")
    with pytest.raises(DataError, match=r"a\.zip: cannot be unpacked"):
        new_recipe(tmp_path / "a.zip", tmp_path / "a.yaml")
    with zipfile.ZipFile(tmp_path / "out.zip", "w") as packed:
        packed.writestr("../outside.csv", "x,y,z\n1,2,3\n")
    with pytest.raises(DataError):
        new_recipe(tmp_path / "out.zip", tmp_path / "a.yaml")
    assert not (tmp_path.parent / "outside.csv").exists()
    assert {each.name for each in tmp_path.iterdir()} == {"a.zip", "out.zip", "out"}


@pytest.mark.parametrize("delimiter", [";", "\t"], ids=["semicolon", "tab"])
def test_decimal_commas(tmp_path, delimiter):
    """The same numbers with decimal points and with commas give the same guess, rate and samples."""
    rows = [[f"{n / 50:.2f}", *(f"{each:.3f}" for each in x)] for n, x in enumerate(acceleration(30))]
    for mark in ".,":
        cells = [[cell.replace(".", mark) for cell in row] for row in rows]
        for name in ("s1_sit_1", "s1_walk_1", "s2_sit_1", "s2_walk_1"):
            written(tmp_path / f"d{ord(mark)}" / f"{name}.csv", cells, delimiter, header=delimiter.join("txyz"))
        new_recipe(tmp_path / f"d{ord(mark)}", tmp_path / f"made{mark}.yaml")
    point, comma = (Builder(load_recipe(tmp_path / f"made{mark}.yaml")).dataset() for mark in ".,")
    assert [each.decimal for each in comma.devices.values()] == [","]
    for a, b in zip(point.samples(), comma.samples(), strict=True):
        assert a.key == b.key
        (modality,) = point.modalities
        x, y = point.read(a, modality), comma.read(b, modality)
        assert x.rate == y.rate
        assert np.array_equal(x.values, y.values)


def test_names_in_any_script(tmp_path):
    for who in ("Jörg", "Анна", "李"):
        for what in ("gehen", "sitzen"):
            rows = [[n / 50, *x] for n, x in enumerate(acceleration(30))]
            written(tmp_path / "Größen 測定" / f"{who} - {what}.csv", rows, ";", header="t;x;y;z")
    told, dataset, splits = made(tmp_path / "Größen 測定", tmp_path)
    assert {each.key.subject for members in splits.values() for each in members} == {"Jörg", "Анна", "李"}
    assert json.dumps(told, ensure_ascii=False).count("Größen 測定") == 1
    assert len(dataset.read(splits["train"][0], "accelerometer-sensor")) == 30

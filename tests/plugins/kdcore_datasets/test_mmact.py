from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kdcore import DataError
from kdcore_datasets.mmact import Mmact
from kdcore_datasets.protocols.conditions import CrossScene, CrossSession, CrossView
from kdcore_datasets.protocols.subjects import CrossSubject


def write(root: Path, folder: str, place: str, milliseconds: list[int], scale: float = 1.0) -> Path:
    path = root / folder / f"{place}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [f"20180731_13:05:{ms // 1000:02}.{ms % 1000:03},{n * scale},0,-1" for n, ms in enumerate(milliseconds)]
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for subject in (1, 2):
        for scene in (1, 3):
            for session in (1, 2):
                place = f"subject{subject}/scene{scene}/session{session}/talking_on_phone"
                write(tmp_path, "acc_watch_clip", place, list(range(100, 400, 10)))
                write(tmp_path, "gyro_clip", place, list(range(120, 400, 20)))
                write(tmp_path, "orientation_clip", place, [200, 220, 240], scale=90)
    return tmp_path


def test_sensors_share_a_clock(folder: Path):
    dataset = Mmact(root=folder)
    samples = dataset.samples()
    assert len(samples) == 8
    sample = samples[0]
    assert set(sample.sources) == {"accelerometer-watch", "gyroscope", "orientation"}
    watch, gyro = dataset.read(sample, "accelerometer-watch"), dataset.read(sample, "gyroscope")
    assert watch.rate == pytest.approx(100)
    assert gyro.rate == pytest.approx(50)
    assert (watch.start, gyro.start) == (0, pytest.approx(0.02))
    np.testing.assert_array_equal(watch.values[3], [3, 0, -1])
    orientation = dataset.read(sample, "orientation")
    np.testing.assert_allclose(orientation.values[:, 0], [0, np.pi / 2, np.pi], rtol=1e-6)


def test_the_desk_scene_has_actions_of_its_own(folder: Path):
    dataset = Mmact(root=folder)
    assert len(dataset.classes) == len(set(dataset.classes)) == 37
    said = {(sample.key.scene, dataset.classes[sample.label or 0]) for sample in dataset.samples()}
    assert said == {("1", "talking on phone"), ("3", "talking on phone desk")}


def test_lines_are_put_in_order_of_time(tmp_path: Path):
    path = write(tmp_path, "acc_phone_clip", "subject1/scene1/session1/Carrying_light", [30, 10, 10, 20])
    path.write_text(path.read_text() + "20180731_13:05:01,9,9,9\n")
    dataset = Mmact(root=tmp_path)
    (sample,) = dataset.samples()
    assert dataset.classes[sample.label or 0] == "carrying light"
    signal = dataset.read(sample, "accelerometer-phone")
    np.testing.assert_array_equal(signal.values[:, 0], [1, 3, 0, 9])
    np.testing.assert_allclose(signal.clock, [0, 0.01, 0.02, 0.99], atol=1e-6)


def test_one_sample_per_camera_with_shared_sensors(folder: Path):
    for view in (1, 2):
        path = folder / f"trimmed/subject1/cam{view}/scene1/session1/talking_on_phone.mp4"
        path.parent.mkdir(parents=True)
        path.touch()
    samples = Mmact(root=folder).samples()
    assert len(samples) == 9
    filmed = [sample for sample in samples if sample.key.view]
    assert [sample.key.view for sample in filmed] == ["1", "2"]
    assert filmed[0].sources["gyroscope"] == filmed[1].sources["gyroscope"]
    assert "rgb" in filmed[0].sources


def test_all_protocols_apply(folder: Path):
    samples = Mmact(root=folder).samples()
    for rule in (CrossSubject(), CrossScene(), CrossSession()):
        splits = rule.split(samples)
        assert len(splits.samples["train"]) == len(splits.samples["test"]) == 4
    with pytest.raises(DataError, match="view"):
        CrossView().split(samples)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("yesterday,1,2,3\n", "not of the form 20180731"),
        ("20180731_13:05:01.0,1,2\n", "column"),
        ("20180731_13:05:01.0,1,2,3\n", "time does not advance"),
        ("20180731_13:05:01.0,1,2,nan\n20180731_13:05:02.0,1,2,3\n", "not a finite number"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, text: str, said: str):
    path = write(tmp_path, "gyro_clip", "subject1/scene1/session1/fall", [1])
    path.write_text(text)
    dataset = Mmact(root=tmp_path)
    with pytest.raises(DataError, match=f"(?s)fall.csv.*{said}"):
        dataset.read(dataset.samples()[0], "gyroscope")


def test_folders_that_cannot_be_used(tmp_path: Path):
    with pytest.raises(DataError, match="holds neither"):
        Mmact(root=tmp_path).samples()
    write(tmp_path, "gyro_clip", "subject1/scene1/session1/juggling", [1])
    data = Mmact(root=tmp_path)
    assert data.samples() == []
    assert [(each.reason, each.detail) for each in data.unusable] == [
        ("unknown action", "'juggling' is not an action of MMAct")
    ]


def test_empty_sensor_files_are_left_out(folder: Path):
    (folder / "gyro_clip/subject1/scene1/session1/talking_on_phone.csv").write_text("")
    sample = Mmact(root=folder).samples()[0]
    assert set(sample.sources) == {"accelerometer-watch", "orientation"}

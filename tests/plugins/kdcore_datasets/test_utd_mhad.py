from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from kdcore import DataError
from kdcore_datasets.protocols.subjects import CrossSubject
from kdcore_datasets.protocols.trials import SubjectSpecific
from kdcore_datasets.utd_mhad import UtdMhad


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two clips with inertial and skeleton signals, one of which has depth."""
    for name in ("Inertial", "Skeleton", "Depth"):
        (tmp_path / name).mkdir()
    for trial in (1, 2):
        steps = np.arange(12.0)[:, None] + np.arange(6) / 10
        savemat(tmp_path / f"Inertial/a2_s3_t{trial}_inertial.mat", {"d_iner": steps})
        skeleton = np.arange(20 * 3 * 30, dtype=float).reshape(20, 3, 30)
        savemat(tmp_path / f"Skeleton/a2_s3_t{trial}_skeleton.mat", {"d_skel": skeleton})
    savemat(tmp_path / "Depth/a2_s3_t1_depth.mat", {"d_depth": np.full((4, 5, 16), 800, dtype=np.uint16)})
    return tmp_path


def test_signals_of_a_clip(folder: Path):
    dataset = UtdMhad(root=folder)
    first, second = dataset.samples()
    assert (first.key.subject, first.key.action, first.key.trial) == ("3", "2", "1")
    assert dataset.classes[first.label or 0] == "right arm swipe to the right"
    assert set(first.sources) == {"accelerometer", "gyroscope", "skeleton", "depth"}
    assert set(second.sources) == {"accelerometer", "gyroscope", "skeleton"}

    accelerometer = dataset.read(first, "accelerometer")
    assert accelerometer.rate == 50
    np.testing.assert_allclose(accelerometer.values[2], np.array([2.0, 2.1, 2.2]) * 9.80665, rtol=1e-6)
    gyroscope = dataset.read(first, "gyroscope")
    np.testing.assert_allclose(gyroscope.values[0], np.array([0.3, 0.4, 0.5]) * np.pi / 180, rtol=1e-6)

    skeleton = dataset.read(first, "skeleton")
    assert skeleton.values.shape == (30, 20, 3, 1)
    assert skeleton.values[7, 4, 2, 0] == 4 * 90 + 2 * 30 + 7
    depth = dataset.read(first, "depth")
    assert depth.values.shape == (16, 4, 5, 1)
    assert depth.values.dtype == np.uint16
    assert depth.rate == pytest.approx(16.0)
    assert depth.duration == pytest.approx(skeleton.duration)


def test_modalities_are_joined_by_key_whatever_the_case_of_folders(folder: Path):
    (folder / "Inertial").rename(folder / "INERTIAL")
    (folder / "Skeleton").rename(folder / "skeleton")
    (folder / "skeleton/a2_s3_t1_skeleton.mat").unlink()
    first, second = UtdMhad(root=folder).samples()
    assert "skeleton" not in first.sources
    assert "skeleton" in second.sources


def test_all_files_in_one_folder(folder: Path):
    flat = folder / "flat"
    flat.mkdir()
    for path in folder.glob("*/*.mat"):
        shutil.copy(path, flat)
    assert [set(sample.sources) for sample in UtdMhad(root=flat).samples()] == [
        set(sample.sources) for sample in UtdMhad(root=folder).samples()
    ]


def test_depth_alone_has_the_nominal_rate(folder: Path):
    dataset = UtdMhad(root=folder)
    assert dataset.read_file(folder / "Depth/a2_s3_t1_depth.mat", "depth").rate == 30


def test_colour_video(folder: Path):
    av = pytest.importorskip("av")
    (folder / "RGB").mkdir()
    path = folder / "RGB/a2_s3_t1_color.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=15)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuvj420p"
        for level in (0, 128, 255):
            frame = av.VideoFrame.from_ndarray(np.full((16, 32, 3), level, dtype=np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    dataset = UtdMhad(root=folder)
    video = dataset.read(dataset.samples()[0], "rgb")
    assert video.values.shape == (3, 16, 32, 3)
    assert video.values.dtype == np.uint8
    assert video.rate == 15
    np.testing.assert_allclose(video.values.mean(axis=(1, 2, 3)), [0, 128, 255], atol=4)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match=r"a2_s3_t1_color.avi"):
        dataset.read(dataset.samples()[0], "rgb")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"d_iner": np.ones((0, 6))}, "is empty"),
        ({"d_iner": np.ones((8, 5))}, r"shape \(8, 5\), expected \(any, 6\)"),
        ({"d_iner": np.array([[1.0] * 5 + [np.nan]] * 3)}, "3 value.s. that are not finite, the first at index .0, 5"),
        ({"d_iner": np.full((3, 6), np.inf)}, "not finite"),
        ({"d_iner": np.full((3, 6), 1e308)}, "18 value.s. that are too large, the first at index .0, 0"),
        ({"other": np.ones((8, 6))}, "no variable 'd_iner' .it holds other"),
        ({"d_iner": "words"}, "not an array of numbers"),
    ],
)
def test_wrong_content(folder: Path, content: dict, said: str):
    path = folder / "Inertial/a2_s3_t1_inertial.mat"
    savemat(path, content)
    dataset = UtdMhad(root=folder)
    with pytest.raises(DataError, match=f"(?s)a2_s3_t1_inertial.mat.*{said}"):
        dataset.read(dataset.samples()[0], "accelerometer")


@pytest.mark.parametrize("keep", [0, 40, 130, 180, 300, 500])
def test_truncated_files(folder: Path, keep: int):
    path = folder / "Inertial/a2_s3_t1_inertial.mat"
    whole = path.read_bytes()
    assert keep < len(whole)
    path.write_bytes(whole[:keep])
    with pytest.raises(DataError, match=r"a2_s3_t1_inertial.mat"):
        UtdMhad(root=folder).read_file(path, "gyroscope")


def test_version_7_3_files_are_named_as_such(folder: Path):
    path = folder / "Inertial/a2_s3_t1_inertial.mat"
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(512))
    with pytest.raises(DataError, match=r"version 7\.3"):
        UtdMhad(root=folder).read_file(path, "accelerometer")


def test_folders_that_cannot_be_used(tmp_path: Path, folder: Path):
    with pytest.raises(DataError, match="no such folder"):
        UtdMhad(root=tmp_path / "absent").samples()
    (tmp_path / "empty").mkdir()
    nothing = "holds no recordings .*; of the folders Inertial, Skeleton, Depth and RGB it has"
    with pytest.raises(DataError, match=f"{nothing} none$"):
        UtdMhad(root=tmp_path / "empty").samples()
    (tmp_path / "empty/depth").mkdir()
    with pytest.raises(DataError, match=f"{nothing} Depth$"):
        UtdMhad(root=tmp_path / "empty").samples()
    with pytest.raises(DataError, match="has no folder 'Tiefe' for depth"):
        UtdMhad(root=folder, folders={"depth": "Tiefe"}).samples()
    (folder / "Inertial/a28_s1_t1_inertial.mat").touch()
    data = UtdMhad(root=folder)
    assert {int(sample.key.action) for sample in data.samples()} <= set(range(1, 28))
    [unusable] = data.unusable
    assert unusable.what.endswith("a28_s1_t1_inertial.mat")
    assert unusable.detail == "action 28 is none of the 27 of UTD-MHAD"
    assert unusable.fault


def test_a_root_one_level_too_deep_is_noticed(folder: Path):
    said = "Inertial: holds inertial recordings only; of the folders .* it has none; next to it, in .*: Skeleton and Depth$"
    with pytest.warns(UserWarning, match=said):
        assert len(UtdMhad(root=folder / "Inertial").samples()) == 2
    for name in ("Skeleton", "Depth"):
        shutil.rmtree(folder / name)
    with pytest.warns(UserWarning, match="holds inertial recordings only; of the folders .* it has Inertial$"):
        UtdMhad(root=folder).samples()


def test_two_kinds_of_recordings_are_enough(folder: Path, recwarn: pytest.WarningsRecorder):
    shutil.rmtree(folder / "Depth")
    UtdMhad(root=folder).samples()
    assert not recwarn.list


def test_folders_and_dangling_links_among_the_files(folder: Path):
    path = folder / "Inertial/a2_s3_t1_inertial.mat"
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match=r"a2_s3_t1_inertial.mat: is a folder$"):
        UtdMhad(root=folder).read_file(path, "accelerometer")
    path.rmdir()
    path.symlink_to(folder / "absent.mat")
    with pytest.raises(DataError, match=r"a2_s3_t1_inertial.mat: no such file$"):
        UtdMhad(root=folder).read_file(path, "accelerometer")


def test_the_published_recordings(recordings: Path):
    dataset = UtdMhad(root=recordings / "utd-mhad")
    samples = dataset.samples()
    assert len(samples) == 861
    sizes = {split: len(members) for split, members in CrossSubject().split(samples).samples.items()}
    assert sizes == {"train": 431, "validation": 0, "test": 430}
    sizes = {split: len(members) for split, members in SubjectSpecific().split(samples).samples.items()}
    assert sizes == {"train": 432, "validation": 0, "test": 429}
    for sample in samples[::97]:
        name = f"a{sample.key.action}_s{sample.key.subject}_t{sample.key.trial}"
        raw = loadmat(recordings / f"utd-mhad/Inertial/{name}_inertial.mat")["d_iner"]
        np.testing.assert_allclose(dataset.read(sample, "accelerometer").values, raw[:, :3] * 9.80665, rtol=1e-5)
        np.testing.assert_allclose(dataset.read(sample, "gyroscope").values, raw[:, 3:] * np.pi / 180, rtol=1e-5, atol=1e-7)
        assert dataset.read(sample, "skeleton").values.shape[1:] == (20, 3, 1)


def test_thinned_and_full_depth_have_the_same_duration(recordings: Path):
    thinned = UtdMhad(root=recordings / "utd-mhad")
    full = UtdMhad(root=recordings / "utd-mhad", folders={"depth": "Depth-full-length"})
    sample = next(sample for sample in full.samples() if "depth" in sample.sources)
    same = next(each for each in thinned.samples() if each.key == sample.key)
    whole, part = full.read(sample, "depth"), thinned.read(same, "depth")
    assert len(part) == 16 < len(whole)
    assert whole.rate == pytest.approx(30)
    assert part.duration == pytest.approx(whole.duration)
    np.testing.assert_array_equal(part.values[[0, -1]], whole.values[[0, -1]])

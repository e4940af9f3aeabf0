from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kdcore import DataError
from kdcore_datasets.berkeley_mhad import BerkeleyMhad

ARM = """HIERARCHY
ROOT shoulder
{
  OFFSET 0 0 0
  CHANNELS 6 Xposition Yposition Zposition Zrotation Yrotation Xrotation
  JOINT elbow
  {
    OFFSET 10 0 0
    CHANNELS 3 Zrotation Yrotation Xrotation
    End Site
    {
      OFFSET 5 0 0
    }
  }
}
MOTION
Frames: 2
Frame Time: 0.002083
0 0 0 0 0 0 0 0 0
1 2 3 90 0 0 90 0 0
"""
"""An arm of 10 and 5 cm along x, whose shoulder and elbow then turn a quarter about z."""


def write(root: Path, sensor: int, start: float, name: str = "s01_a03_r02", rows: int = 5) -> Path:
    path = root / f"Accelerometer/Shimmer{sensor:02}/acc_h{sensor:02}_{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{n}.5 -1.0 {sensor} {start + n / 30:.6f}" for n in range(rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_sensors_share_a_clock(tmp_path: Path):
    write(tmp_path, 1, 1309539264.25)
    write(tmp_path, 6, 1309539264.0)
    dataset = BerkeleyMhad(root=tmp_path)
    (sample,) = dataset.samples()
    assert set(sample.sources) == {"accelerometer-left-wrist", "accelerometer-right-ankle"}
    assert (sample.key.subject, sample.key.action, sample.key.trial) == ("1", "3", "2")
    assert dataset.classes[sample.label or 0] == "bending"
    wrist, ankle = dataset.read(sample, "accelerometer-left-wrist"), dataset.read(sample, "accelerometer-right-ankle")
    assert ankle.start == 0
    assert wrist.start == pytest.approx(0.25)
    np.testing.assert_allclose(wrist.clock, 0.25 + np.arange(5) / 30, atol=1e-5)
    assert wrist.rate == pytest.approx(30, rel=1e-4)
    np.testing.assert_allclose(wrist.values[1], np.array([1.5, -1, 1]) * 9.80665, rtol=1e-6)


def test_other_actions_are_left_out_and_order_is_natural(tmp_path: Path):
    for name in ("s10_a01_r01", "s02_a01_r01", "s02_a12_r01"):
        write(tmp_path, 1, 5.0, name)
    assert [sample.key.subject for sample in BerkeleyMhad(root=tmp_path).samples()] == ["2", "10"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no rows"),
        ("1 2 3\n1 2 3\n", r"line 1 has 3 column.s., none for 3"),
        ("1 2 3 4\n1 2", r"line 2 has 2 column.s., none for 2"),
        ("1 x 3 4\n", "line 1: column 1 is 'x', not a number"),
        ("1 nan 3 4\n1 1 3 5\n", "line 1: column 1 is nan, not a finite number"),
        ("1 2 3 5\n1 2 3 4\n", "time stamps do not advance"),
        ("1 2 3 5\n", "time stamps do not advance"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, text: str, said: str):
    path = write(tmp_path, 1, 0.0)
    path.write_text(text)
    dataset = BerkeleyMhad(root=tmp_path)
    with pytest.raises(DataError, match=f"(?s)acc_h01_s01_a03_r02.txt.*{said}"):
        dataset.read(dataset.samples()[0], "accelerometer-left-wrist")


def test_a_folder_without_recordings(tmp_path: Path):
    with pytest.raises(DataError, match="holds no recordings"):
        BerkeleyMhad(root=tmp_path).samples()


def test_skeletons_are_joined(tmp_path: Path):
    write(tmp_path, 2, 100.0)
    path = tmp_path / "Mocap/SkeletalData/skl_s01_a03_r02.bvh"
    path.parent.mkdir(parents=True)
    path.write_text(ARM)
    dataset = BerkeleyMhad(root=tmp_path)
    (sample,) = dataset.samples()
    signal = dataset.read(sample, "skeleton")
    assert signal.values.shape == (2, 3, 3, 1)
    assert signal.rate == pytest.approx(480, rel=1e-3)
    np.testing.assert_allclose(signal.values[0, 2, :, 0], [0.15, 0, 0], atol=1e-6)
    np.testing.assert_allclose(
        signal.values[1, :, :, 0], [[0.01, 0.02, 0.03], [0.01, 0.12, 0.03], [-0.04, 0.12, 0.03]], atol=1e-6
    )
    assert dataset.read(sample, "accelerometer-right-wrist").start == 0


def test_the_published_recordings(recordings: Path):
    dataset = BerkeleyMhad(root=recordings / "berkeley-mhad")
    samples = dataset.samples()
    assert len(samples) == 109
    assert {sample.key.subject for sample in samples} == {"1", "2"}
    assert all(len(sample.sources) == 6 for sample in samples)
    lengths = set()
    for sample in samples[::9]:
        starts = []
        for modality in sample.sources:
            signal = dataset.read(sample, modality)
            lengths.add(len(signal))
            starts.append(signal.start)
            assert 10 < signal.rate < 60
            assert 5 < np.linalg.norm(signal.values, axis=1).mean() < 20
        assert min(starts) == 0
        assert max(starts) < 1
    assert len(lengths) > 10

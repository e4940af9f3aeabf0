from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdcore import DataError
from kdcore_datasets.skeleton_files import SkeletonFiles

# time 2, joint 3, channel 3, person 2, every value telling its place
CLIP = np.fromfunction(lambda t, v, c, m: 1000 * t + 100 * v + 10 * c + m, (2, 3, 3, 2))


@pytest.mark.parametrize(
    ("axes", "order"),
    [
        (("time", "joint", "channel", "person"), (0, 1, 2, 3)),
        (("person", "time", "joint", "channel"), (3, 0, 1, 2)),
        (("channel", "time", "joint", "person"), (2, 0, 1, 3)),
    ],
)
def test_axes_in_any_order(tmp_path: Path, axes: Any, order: tuple[int, ...]):
    np.savez(tmp_path / "7_wave_1.npz", pose=CLIP.transpose(order))
    dataset = SkeletonFiles(root=tmp_path, pattern="{subject}_{action}_{trial}.npz", variable="pose", axes=axes, units="cm")
    (sample,) = dataset.samples()
    assert (sample.key.subject, sample.key.action, sample.label, dataset.classes) == ("7", "wave", 0, ("wave",))
    np.testing.assert_allclose(dataset.read(sample, "skeleton").values, CLIP / 100, rtol=1e-6)


@pytest.mark.parametrize("wrapped", [True, False])
def test_json(tmp_path: Path, wrapped: bool):
    lists = CLIP[..., 0].tolist()
    (tmp_path / "wave.json").write_text(json.dumps({"joints": lists} if wrapped else lists))
    dataset = SkeletonFiles(root=tmp_path, pattern="{action}.json", skeleton="utd-mhad-20", rate=25)
    signal = dataset.read(dataset.samples()[0], "skeleton")
    np.testing.assert_allclose(signal.values, CLIP[..., :1])
    assert signal.rate == 25
    assert dataset.modalities["skeleton"].skeleton == "utd-mhad-20"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not a JSON file"),
        ('{"other": 1, "more": 2}', "has no 'joints' .it holds more and other"),
        ("[[[1, 2], [3]]]", "not an array of numbers with equal rows"),
        ("[[1, 2, 3]]", "expected .any, any, any"),
        ("[[[1, 2, NaN]]]", "not finite"),
        ("[[[1, 2, 1e308]]]", "1 value.s. that are too large, the first at index .0, 0, 2"),
        ("[[[]]]", "is empty"),
    ],
)
def test_damaged_json(tmp_path: Path, content: str, said: str):
    (tmp_path / "wave.json").write_text(content)
    dataset = SkeletonFiles(root=tmp_path, pattern="{action}.json")
    with pytest.raises(DataError, match=f"(?s)wave.json.*{said}"):
        dataset.read(dataset.samples()[0], "skeleton")


def test_damaged_npz(tmp_path: Path):
    path = tmp_path / "wave.npz"
    np.savez(path, joints=np.array([{"an": "object"}], dtype=object))
    dataset = SkeletonFiles(root=tmp_path, pattern="{action}.npz")
    with pytest.raises(DataError, match=r"wave.npz: is not an .npz file of numbers"):
        dataset.read(dataset.samples()[0], "skeleton")
    np.savez(path, joints=CLIP)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"wave.npz"):
        dataset.read(dataset.samples()[0], "skeleton")


def test_what_cannot_be_meant(tmp_path: Path):
    with pytest.raises(ValueError, match=r"no {action}"):
        SkeletonFiles(root=tmp_path, pattern="{trial}.npz")
    with pytest.raises(ValueError, match="once each"):
        SkeletonFiles(root=tmp_path, pattern="{action}.npz", axes=("time", "joint"))
    with pytest.raises(ValueError, match="once each"):
        SkeletonFiles(root=tmp_path, pattern="{action}.npz", axes=("time", "joint", "joint", "channel"))
    with pytest.raises(DataError, match="holds no file that fits"):
        SkeletonFiles(root=tmp_path, pattern="{action}.npz").samples()
    (tmp_path / "jump.npz").touch()
    data = SkeletonFiles(root=tmp_path, pattern="{action}.npz", classes=("wave",))
    assert data.samples() == []
    assert [each.detail for each in data.unusable] == ["'jump' is not one of the classes wave"]


@pytest.mark.parametrize("joints", [None, 4])
@pytest.mark.parametrize("suffix", [".txt", ".csv"])
def test_text(tmp_path: Path, joints: int | None, suffix: str):
    clip = np.random.default_rng(0).normal(size=(5, 4, 3)).round(6)
    rows = clip.reshape(5, 12) if joints is None else np.concatenate([clip, np.ones((5, 4, 1))], axis=2).reshape(20, 4)
    np.savetxt(tmp_path / f"wave_1{suffix}", rows, fmt="%.6f", delimiter="," if suffix == ".csv" else " ")
    data = SkeletonFiles(root=tmp_path, pattern=f"{{action}}_{{trial}}{suffix}", joints=joints, units="cm")
    [sample] = data.samples()
    np.testing.assert_allclose(data.read(sample, "skeleton").values[..., 0], clip / 100, rtol=1e-6)


@pytest.mark.parametrize(
    ("content", "joints", "said"),
    [
        ("1 2 3\n4 5\n", 2, "not a text file of numbers with equal rows"),
        ("1 2 3\n" * 5, 2, "expected 2 rows of at least 3 columns for each frame, but it has 5 of 3"),
        ("1 2 3 4\n" * 4, None, "but it has 4 columns; set joints"),
        ("", 2, "but it has 0"),
    ],
)
def test_damaged_text(tmp_path: Path, content: str, joints: int | None, said: str):
    (tmp_path / "wave_1.txt").write_text(content)
    data = SkeletonFiles(root=tmp_path, pattern="{action}_{trial}.txt", joints=joints)
    with pytest.raises(DataError, match=said):
        data.read(data.samples()[0], "skeleton")


def test_text_in_a_file_called_npz_is_not_said_to_be_a_pickle(tmp_path):
    np.savetxt(tmp_path / "1_wave_1.npz", np.ones((4, 60)))
    dataset = SkeletonFiles(root=tmp_path, pattern="{subject}_{action}_{trial}.npz")
    with pytest.raises(DataError, match=r"is not an \.npz file of numbers \(begins with b'1\.00'; clips in text files end in"):
        dataset.read(dataset.samples()[0], "skeleton")

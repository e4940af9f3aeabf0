from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kdcore import DataError
from kdcore_datasets.ntu_rgbd import NtuRgbd

NAME = "S002C003P008R001A055"


def text_of(frames: list[dict[str, np.ndarray]]) -> str:
    """The published format: for each frame, each body's id and its 25 joints."""
    lines = [str(len(frames))]
    for bodies in frames:
        lines.append(str(len(bodies)))
        for identity, joints in bodies.items():
            lines += [f"{identity} 0 1 1 1 1 0 0.1 0.2 2", "25"]
            lines += [" ".join(map(str, [*joint, *[0] * 8, 2])) for joint in joints]
    return "\n".join(lines) + "\n"


def body(offset: float) -> np.ndarray:
    return np.arange(75, dtype=float).reshape(25, 3) / 100 + offset


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three bodies: one still all along, one moving much, one moving a little and unseen in the last frame."""
    frames = [{"7": body(0), "8": body(2.0 * n), "9": body(0.1 * n)} for n in range(4)] + [{"7": body(0), "8": body(8.0)}]
    (tmp_path / "skeletons").mkdir()
    (tmp_path / f"skeletons/{NAME}.skeleton").write_text(text_of(frames))
    return tmp_path


def test_the_bodies_that_move_most_are_taken(folder: Path):
    dataset = NtuRgbd(root=folder)
    (sample,) = dataset.samples()
    key = sample.key
    assert (key.scene, key.view, key.subject, key.trial, key.action) == ("2", "3", "8", "1", "55")
    assert dataset.classes[sample.label or 0] == "hugging"
    signal = dataset.read(sample, "skeleton")
    assert signal.values.shape == (5, 25, 3, 2)
    assert signal.rate == 30
    for frame in range(5):
        np.testing.assert_allclose(signal.values[frame, :, :, 0], body(2.0 * frame), rtol=1e-6)
    np.testing.assert_allclose(signal.values[2, :, :, 1], body(0.2), rtol=1e-6)
    assert not signal.values[4, :, :, 1].any()


def test_missing_persons_are_zero(folder: Path):
    signal = NtuRgbd(root=folder, persons=4).read_file(folder / f"skeletons/{NAME}.skeleton", "skeleton")
    assert signal.values.shape == (5, 25, 3, 4)
    np.testing.assert_allclose(signal.values[3, :, :, 2], body(0), rtol=1e-6)
    assert not signal.values[..., 3].any()


def test_listed_recordings_are_left_out(folder: Path):
    (folder / "missing.txt").write_text(f"some header\n{NAME}\n")
    with pytest.raises(DataError, match="holds no recordings"):
        NtuRgbd(root=folder, missing=folder / "missing.txt").samples()
    with pytest.raises(DataError, match=r"absent.txt: cannot be read"):
        NtuRgbd(root=folder, missing=folder / "absent.txt").samples()


def test_actions_beyond_the_sixty_are_left_out(folder: Path):
    (folder / f"skeletons/{NAME[:-3]}061.skeleton").touch()
    assert len(NtuRgbd(root=folder).samples()) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: "0\n", "holds no frames"),
        (lambda text: "2\n0\n0\n", "no body was seen in any of its 2 frames"),
        (lambda text: "", "line 1: the file ends early"),
        (lambda text: text[: len(text) // 2].rsplit("\n", 1)[0], "the file ends early"),
        (lambda text: text.replace("25", "24", 1), "line 4: a body has 25 joints"),
        (lambda text: text.replace("0.01", "x", 1), "line 5: expected a joint's x, y and z"),
        (lambda text: text.replace("0.01", "nan", 1), "line 5: a joint's position is not finite"),
        (lambda text: text.replace("0.01", "1e308", 1), "line 5: a joint's position is not finite, or is too large"),
        (lambda text: "4" + text[1:], "the file continues after the 4 frames that it declares"),
        (lambda text: text + "\n\nmore\n", "the file continues after the 5 frames"),
        (lambda text: "many\n" + text, "line 1: expected the number of frames, found 'many'"),
    ],
)
def test_damaged_files_are_named(folder: Path, change, said: str):
    path = folder / f"skeletons/{NAME}.skeleton"
    path.write_text(change(path.read_text()))
    dataset = NtuRgbd(root=folder)
    with pytest.raises(DataError, match=f"{NAME}.skeleton.*{said}"):
        dataset.read(dataset.samples()[0], "skeleton")


def test_blank_lines_at_the_end_do_no_harm(folder: Path):
    path = folder / f"skeletons/{NAME}.skeleton"
    before = NtuRgbd(root=folder).read_file(path, "skeleton").values
    path.write_text(path.read_text() + "\n  \n\n")
    np.testing.assert_array_equal(NtuRgbd(root=folder).read_file(path, "skeleton").values, before)


def test_the_published_recordings(recordings: Path):
    dataset = NtuRgbd(root=recordings / "ntu-rgbd")
    samples = {sample.key.action: sample for sample in dataset.samples()}
    assert set(samples) == {"1", "17", "50"}
    drink = dataset.read(samples["1"], "skeleton")
    assert drink.values.shape == (103, 25, 3, 2)
    np.testing.assert_allclose(drink.values[0, 0, :, 0], [0.2181153, 0.1725972, 3.785547], rtol=1e-6)
    assert not drink.values[..., 1].any()
    two = dataset.read(samples["50"], "skeleton")
    assert two.values[..., 1].any()

"""Pictures and the body tracker: they show the figure where it is."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdcore_datasets.synthetic.actions import ACTIONS
from kdcore_datasets.synthetic.camera import Camera
from kdcore_datasets.synthetic.dataset import SyntheticMotion
from kdcore_datasets.synthetic.render import depth
from kdcore_datasets.synthetic.skeleton import BONES, JOINTS

numbers = st.tuples(st.integers(1, 12), st.integers(1, len(ACTIONS)), st.integers(1, 3))


def standing(**camera: float) -> tuple[Camera, np.ndarray]:
    view = Camera(**camera)
    motion = SyntheticMotion(variation=0, diversity=0, left_handed=0).motion((1, 1, 1))
    return view, view.view(motion(np.zeros(1)).joints)


@given(azimuth=st.floats(-3, 3), points=st.lists(st.floats(-1, 1), min_size=6, max_size=6))
def test_the_camera_moves_rigidly(azimuth: float, points: list[float]) -> None:
    a, b = np.reshape(points, (2, 3))
    camera = Camera(azimuth=azimuth)
    assert np.linalg.norm(camera.view(a) - camera.view(b)) == pytest.approx(np.linalg.norm(a - b), abs=1e-9)
    assert np.linalg.det(camera.axes) == pytest.approx(1)


def test_what_the_camera_calls_left_up_and_away() -> None:
    camera, joints = standing()
    at = dict(zip(JOINTS, joints[0], strict=True))
    assert at["right_hand"][0] > at["left_hand"][0], "the person's right is on the camera's left"
    assert at["head"][1] > at["hip_center"][1] > at["left_foot"][1]
    assert at["hip_center"][2] == pytest.approx(3.0, abs=0.1)
    column, row = camera.project(joints[0], 64).T
    assert column[JOINTS.index("right_hand")] < column[JOINTS.index("left_hand")]
    assert row[JOINTS.index("head")] < row[JOINTS.index("left_foot")]


@given(number=numbers, seed=st.integers(0, 50))
@settings(max_examples=40, deadline=None)
def test_the_person_stays_in_the_picture(number, seed: int) -> None:
    dataset = SyntheticMotion(seed=seed)
    motion, camera = dataset.motion(number), dataset.camera(number)
    pixels = camera.project(camera.view(motion(np.linspace(0, motion.duration, 30)).joints), 64)
    assert pixels.min() > 0
    assert pixels.max() < 63


def test_depth_at_a_joint_is_the_distance_of_its_surface() -> None:
    camera, joints = standing()
    picture = depth(joints, camera, 128, 0.0, np.random.default_rng(0))[0, ..., 0]
    for name, radius in (("left_knee", 0.075), ("right_elbow", 0.05), ("head", 0.115)):
        column, row = np.round(camera.project(joints[0, JOINTS.index(name)], 128)).astype(int)
        surface = 1000 * (joints[0, JOINTS.index(name), 2] - radius)
        assert abs(picture[row, column] - surface) < 60, name
    assert picture[0].min() == picture.max() == 4300, "the wall"
    floor = picture[-1, 0]
    assert floor == pytest.approx(1000 * camera.focal(128) * 1.0 / 63.5, rel=0.02)


def test_nearer_parts_hide_farther_ones() -> None:
    camera, joints = standing()
    hidden = joints.copy()
    hidden[:, :, 2] += 0.8
    both = depth(joints, camera, 64, 0.0, np.random.default_rng(0))
    far = depth(hidden, camera, 64, 0.0, np.random.default_rng(0))
    assert both[0, 20:50, 28:36].mean() < far[0, 20:50, 28:36].mean() - 300


def test_pictures_move_when_the_person_does_and_only_there() -> None:
    dataset = SyntheticMotion(noise=0, variation=0)
    frames = dataset.read(dataset.samples()[0], "rgb").values.astype(int)
    moved = np.abs(frames - frames[0]).max(axis=(0, 3))
    assert moved.max() > 30
    assert moved[:3].max() == moved[-3:].max() == 0


def test_subjects_wear_different_clothes() -> None:
    dataset = SyntheticMotion(noise=0)
    one, other = (dataset.read(sample, "rgb").values[0] for sample in (dataset.samples()[0], dataset.samples()[-1]))
    assert np.abs(one.astype(int) - other).mean() > 10


def test_the_tracked_skeleton_errs_as_much_as_it_is_told() -> None:
    def error(noise: float) -> np.ndarray:
        dataset = SyntheticMotion(noise=noise)
        signal = dataset.read(dataset.samples()[40], "skeleton")
        sample = dataset.samples()[40].key
        number = int(sample.subject), int(sample.action), int(sample.trial)
        truth = dataset.camera(number).view(dataset.motion(number)(signal.clock).joints)
        return np.linalg.norm(signal.values[..., 0] - truth, axis=-1)

    assert error(0.0).max() < 1e-5
    assert 0.005 < error(1.0).mean() < 0.03
    assert error(3.0).mean() == pytest.approx(3 * error(1.0).mean(), rel=1e-3)


def test_a_noiseless_skeleton_has_rigid_bones() -> None:
    dataset = SyntheticMotion(noise=0)
    joints = dataset.read(dataset.samples()[3], "skeleton").values[..., 0]
    bones = np.stack([np.linalg.norm(joints[:, JOINTS.index(a)] - joints[:, JOINTS.index(b)], axis=1) for a, b in BONES])
    assert np.ptp(bones, axis=1).max() < 1e-5


def test_importing_leaves_opencv_alone() -> None:
    code = "import cv2; n = cv2.getNumThreads(); import kdcore_datasets.synthetic.dataset; assert cv2.getNumThreads() == n"
    subprocess.run([sys.executable, "-c", code], check=True)

"""Forward kinematics: rigid bones, signs of the angles, mirror images, feet on the floor."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from kdcore_datasets.synthetic.actions import ACTIONS
from kdcore_datasets.synthetic.dataset import SyntheticMotion
from kdcore_datasets.synthetic.skeleton import BONES, JOINTS, Body, articulate, turned

LEFT_RIGHT = [JOINTS.index(name.replace("left", "?").replace("right", "left").replace("?", "right")) for name in JOINTS]


def one(**angles: float) -> dict[str, np.ndarray]:
    return {name.replace("__", "."): np.array([value]) for name, value in angles.items()}


def lengths(joints: np.ndarray) -> np.ndarray:
    return np.stack([np.linalg.norm(joints[:, JOINTS.index(a)] - joints[:, JOINTS.index(b)], axis=1) for a, b in BONES])


@given(seed=st.integers(0, 2**32), action=st.integers(1, len(ACTIONS)), subject=st.integers(1, 30))
@settings(max_examples=40, deadline=None)
def test_bones_keep_their_length(seed: int, action: int, subject: int) -> None:
    motion = SyntheticMotion(seed=seed).motion((subject, action, 1))
    bones = lengths(motion(np.linspace(0, motion.duration, 50)).joints)
    assert np.ptp(bones, axis=1).max() < 1e-9
    assert bones.min() > 0.03


def test_there_are_19_bones_and_every_joint_hangs_on_one() -> None:
    assert len(BONES) == 19
    assert {joint for bone in BONES for joint in bone} == set(JOINTS)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_turning_agrees_with_scipy(axis: int) -> None:
    frame = Rotation.from_euler("xyz", [0.3, -0.8, 1.1]).as_matrix()
    angle = np.array([0.7, -1.2])
    turn = Rotation.from_rotvec(angle[:, None] * np.eye(3)[axis]).as_matrix()
    got = turned(np.repeat(frame[:, :, None], 2, axis=2), axis, angle).transpose(2, 0, 1)
    np.testing.assert_allclose(got, frame @ turn, atol=1e-15)


@pytest.mark.parametrize("dominant", ["right", "left"])
def test_signs_of_the_angles(dominant: str) -> None:
    outward = np.array([0, -1 if dominant == "right" else 1, 0])
    body = Body()

    def joint(name: str, **angles: float) -> np.ndarray:
        return articulate(body, one(**angles), dominant).joint(f"{dominant}_{name}")[0]  # type: ignore[arg-type]

    rest = joint("hand", root__rise=0.0)
    assert joint("hand", arm__flexion=1.5)[0] > rest[0] + 0.5
    assert (joint("hand", arm__abduction=1.5) - rest) @ outward > 0.5
    assert joint("hand", arm__elbow=1.5)[0] > rest[0] + 0.2
    assert (joint("hand", arm__elbow=1.5, arm__rotation=1.0) - rest) @ outward < -0.2
    assert joint("foot", leg__flexion=1.0)[0] > 0.3
    assert joint("ankle", leg__knee=1.0)[0] < -0.3
    assert joint("shoulder", trunk__twist=0.5)[0] > 0.05
    assert joint("hand", arm__roll=1.0) == pytest.approx(rest, abs=1e-12), "roll moves no joint"


@given(values=st.lists(st.floats(-1, 1), min_size=14, max_size=14))
@settings(max_examples=30, deadline=None)
def test_a_left_handed_body_is_the_mirror_image(values: list[float]) -> None:
    names = [f"{arm}.{angle}" for arm in ("arm", "other_arm") for angle in ("flexion", "abduction", "rotation", "elbow")]
    names += ["trunk.lean", "trunk.twist", "trunk.tilt", "leg.flexion", "leg.knee", "other_leg.flexion"]
    pose = {name: np.array([value]) for name, value in zip(names, values, strict=True)}
    right, left = articulate(Body(), pose, "right").joints, articulate(Body(), pose, "left").joints
    np.testing.assert_allclose(left, right[:, LEFT_RIGHT] * [1, -1, 1], atol=1e-12)


def test_segments_are_rotations_that_carry_their_bones() -> None:
    motion = SyntheticMotion().motion((1, 1, 1))
    figure = motion(np.linspace(0, motion.duration, 20))
    for frame in figure.frames.values():
        np.testing.assert_allclose(frame @ frame.transpose(0, 2, 1), np.broadcast_to(np.eye(3), frame.shape), atol=1e-12)
        np.testing.assert_allclose(np.linalg.det(frame), 1, atol=1e-12)
    bone = figure.joint("left_wrist") - figure.joint("left_elbow")
    local = np.einsum("tji,tj->ti", figure.frames["left_forearm"], bone)
    np.testing.assert_allclose(local, np.tile([0, 0, -motion.subject.body.forearm], (20, 1)), atol=1e-12)


@pytest.mark.parametrize("action", ["sit down", "stand up"])
def test_planted_feet_do_not_move(action: str) -> None:
    dataset = SyntheticMotion()
    motion = dataset.motion((2, [each.name for each in ACTIONS].index(action) + 1, 1))
    figure = motion(np.linspace(0, motion.duration, 40))
    for joint in ("left_ankle", "right_ankle", "left_foot", "right_foot"):
        assert np.ptp(figure.joint(joint), axis=0).max() < 1e-9
    assert np.ptp(figure.joint("hip_center")[:, 2]) > 0.2


@pytest.mark.parametrize("number", range(1, len(ACTIONS) + 1), ids=[action.name for action in ACTIONS])
def test_nobody_sinks_into_the_floor_or_bends_an_elbow_or_knee_backwards(number: int) -> None:
    for subject in range(1, 7):
        motion = SyntheticMotion(seed=3).motion((subject, number, 1))
        t = np.linspace(0, motion.duration, 60)
        assert motion(t).joints[..., 2].min() > -0.03
        pose = motion.pose(t)
        for name, angle in pose.items():
            if name.endswith(("elbow", "knee")):
                assert angle.min() > -1e-9, name
                assert angle.max() < 2.7, name

"""The inertial sensor against independent physics: gravity, integration, known circles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import cumulative_simpson
from scipy.spatial.transform import Rotation

from kdcore_datasets.synthetic.actions import ACTIONS
from kdcore_datasets.synthetic.dataset import SyntheticMotion
from kdcore_datasets.synthetic.imu import ACCELEROMETER_ERRORS, Mount, measured, readings
from kdcore_datasets.synthetic.skeleton import JOINTS, Figure

G = np.array([0.0, 0.0, -9.81])
TRUE = {"noise": 0.0}
numbers = st.tuples(st.integers(1, 20), st.integers(1, len(ACTIONS)), st.integers(1, 3))
placements = st.sampled_from(["dominant-wrist", "right-wrist", "left-wrist", "dominant-thigh", "right-thigh", "left-thigh"])


@given(seed=st.integers(0, 1000), number=numbers, placement=placements)
@settings(max_examples=25, deadline=None)
def test_at_rest_the_accelerometer_reads_gravity_and_the_gyroscope_nothing(seed, number, placement) -> None:
    dataset = SyntheticMotion(seed=seed, placement=placement, variation=0.0, **TRUE)
    motion = dataset.motion(number)
    force, spin = readings(motion, dataset.mount(number), np.array([0.0, 0.1, motion.duration + 1]))
    np.testing.assert_allclose(np.linalg.norm(force, axis=1), 9.81, atol=1e-6)
    np.testing.assert_allclose(spin, 0, atol=1e-9)


@given(number=numbers, placement=placements)
@settings(max_examples=8, deadline=None)
def test_integrating_the_gyroscope_gives_the_rotation_of_the_segment(number, placement) -> None:
    dataset = SyntheticMotion(placement=placement, **TRUE)
    motion, mount = dataset.motion(number), dataset.mount(number)
    step = 1 / 300
    t = np.arange(0, motion.duration, step)
    _, spin = readings(motion, mount, t[:-1] + step / 2)
    reached = Rotation.identity()
    for turn in Rotation.from_rotvec(spin * step):
        reached = reached * turn
    start, end = Rotation.from_matrix(mount.orientation(motion(t[[0, -1]])))
    assert (reached.inv() * (start.inv() * end)).magnitude() < 2e-3


@given(number=numbers, placement=placements)
@settings(max_examples=15, deadline=None)
def test_integrating_the_accelerometer_twice_gives_the_displacement(number, placement) -> None:
    dataset = SyntheticMotion(placement=placement, **TRUE)
    motion, mount = dataset.motion(number), dataset.mount(number)
    t = np.arange(0, motion.duration, 1 / 400)
    force, _ = readings(motion, mount, t)
    figure = motion(t)
    acceleration = Rotation.from_matrix(mount.orientation(figure)).apply(force) + G
    position = mount.position(figure)
    initial = (mount.position(motion(t[:1] + 1e-5)) - mount.position(motion(t[:1] - 1e-5))) / 2e-5
    velocity = initial + cumulative_simpson(acceleration, x=t, axis=0, initial=0)
    travelled = cumulative_simpson(velocity, x=t, axis=0, initial=0)
    np.testing.assert_allclose(travelled, position - position[0], atol=2e-3)


def test_a_sensor_on_a_steady_circle_reads_the_textbook_values() -> None:
    radius, omega = 0.5, 3.0

    def carousel(t: np.ndarray) -> Figure:
        joints = np.zeros((len(t), len(JOINTS), 3))
        turning = Rotation.from_rotvec(np.outer(omega * t, [0, 0, 1])).as_matrix()
        return Figure(joints, {"right_forearm": turning})

    mount = Mount("right", "forearm", np.array([radius, 0, 0]), np.eye(3))
    force, spin = readings(carousel, mount, np.linspace(0, 2, 9))
    np.testing.assert_allclose(force, np.tile([-(omega**2) * radius, 0, 9.81], (9, 1)), atol=1e-4)
    np.testing.assert_allclose(spin, np.tile([0, 0, omega], (9, 1)), atol=1e-4)


def test_the_axes_of_a_well_placed_sensor() -> None:
    number = (1, 1, 1)
    for placement, read in {"right-wrist": [-9.81, 0, 0], "left-wrist": [-9.81, 0, 0], "right-thigh": [-9.81, 0, 0]}.items():
        dataset = SyntheticMotion(placement=placement, misplacement=0, diversity=0, variation=0, left_handed=0, **TRUE)
        values, _ = readings(dataset.motion(number), dataset.mount(number), np.zeros(1))
        tilt = np.arccos(values[0] @ read / 9.81**2)
        assert tilt < 0.35, placement  # what remains is the bend of the resting arm
    wrist = SyntheticMotion(placement="right-wrist", misplacement=0).mount(number)
    np.testing.assert_allclose(wrist.rotation[:, 2], [0, -1, 0], atol=1e-12)  # out of the back of the hand: to the right


def test_errors_have_the_size_they_say_and_readings_stay_in_range() -> None:
    rng = np.random.default_rng(0)
    read = measured(np.zeros((20000, 3)), ACCELEROMETER_ERRORS, 1.0, rng)
    assert read.std(axis=0) == pytest.approx(ACCELEROMETER_ERRORS.white, rel=0.05)
    assert np.abs(read.mean(axis=0)).max() < 2.1 * ACCELEROMETER_ERRORS.bias
    assert measured(np.full((5, 3), 1e6), ACCELEROMETER_ERRORS, 1.0, rng).max() == pytest.approx(16 * 9.81)
    np.testing.assert_array_equal(measured(np.ones((4, 3)), ACCELEROMETER_ERRORS, 0.0, rng), np.ones((4, 3)))


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.name)
def test_accelerations_are_continuous(action) -> None:
    """Halving the step halves the largest change between neighbours; at a jump it would stay."""
    dataset = SyntheticMotion(**TRUE)
    number = (1, ACTIONS.index(action) + 1, 1)
    motion, mount = dataset.motion(number), dataset.mount(number)

    def largest_change(rate: float) -> float:
        force, _ = readings(motion, mount, np.arange(0, motion.duration, 1 / rate))
        return float(np.abs(np.diff(force, axis=0)).max())

    assert largest_change(1000) < 0.6 * largest_change(500)


@pytest.mark.parametrize("name", ["sit down", "stand up", "kick", "lift knee"])
def test_an_arm_that_only_comes_along_is_never_jerked(name: str) -> None:
    number = [action.name for action in ACTIONS].index(name) + 1
    for subject in range(1, 9):
        dataset = SyntheticMotion(**TRUE)
        motion, mount = dataset.motion((subject, number, 1)), dataset.mount((subject, number, 1))
        force, _ = readings(motion, mount, np.arange(0, motion.duration, 0.01))
        assert np.linalg.norm(force, axis=1).max() < 2 * 9.81

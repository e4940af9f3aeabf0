"""The dataset: keys, shapes, clocks, reproducibility, and what each modality can and cannot see."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdcore import DataError, Sample, SampleKey
from kdcore_datasets.synthetic.actions import ACTIONS
from kdcore_datasets.synthetic.dataset import SyntheticMotion
from kdcore_datasets.synthetic.imu import readings
from kdcore_datasets.synthetic.skeleton import JOINTS

MODALITIES = ("accelerometer", "gyroscope", "skeleton", "rgb", "depth")
NAMES = [action.name for action in ACTIONS]


def digest(dataset: SyntheticMotion, sample: Sample, modality: str) -> str:
    signal = dataset.read(sample, modality)
    return hashlib.sha256(signal.values.tobytes() + repr((signal.rate, signal.start)).encode()).hexdigest()


def test_samples_are_ordered_and_unique() -> None:
    dataset = SyntheticMotion(subjects=3, trials=2)
    samples = dataset.samples()
    assert len(samples) == len({sample.key for sample in samples}) == 3 * 2 * len(ACTIONS)
    assert samples[0].key == SampleKey("1", "1", "1")
    assert samples[-1].key == SampleKey("3", str(len(ACTIONS)), "2")
    assert all(set(sample.sources) == set(MODALITIES) for sample in samples)
    assert not any(isinstance(source, Path) for sample in samples for source in sample.sources.values())


def test_signals_have_the_documented_form() -> None:
    dataset = SyntheticMotion(video_size=48)
    sample = dataset.samples()[0]
    signals = {name: dataset.read(sample, name) for name in MODALITIES}
    assert {name: (signal.values.dtype.name, signal.values.shape[1:], signal.rate) for name, signal in signals.items()} == {
        "accelerometer": ("float32", (3,), 50.0),
        "gyroscope": ("float32", (3,), 50.0),
        "skeleton": ("float32", (20, 3, 1), 30.0),
        "rgb": ("uint8", (48, 48, 3), 15.0),
        "depth": ("uint16", (48, 48, 1), 15.0),
    }
    assert all(signal.values.ndim == len(dataset.modalities[name].axes) for name, signal in signals.items())
    assert signals["accelerometer"].start == signals["gyroscope"].start
    assert len({signal.start for signal in signals.values()}) == 4
    duration = dataset.motion((1, 1, 1)).duration
    for signal in signals.values():
        assert 0 <= signal.start < 0.1
        assert duration - 1 / signal.rate < signal.clock[-1] <= duration


@given(seed=st.integers(0, 2**40), number=st.tuples(st.integers(1, 9), st.integers(1, len(ACTIONS)), st.integers(1, 9)))
@settings(max_examples=8, deadline=None)
def test_the_same_seed_gives_the_same_bytes_in_any_order(seed: int, number: tuple[int, int, int]) -> None:
    sample = Sample(SampleKey(*map(str, number)), 0)
    one, other = (
        SyntheticMotion(seed=seed, video_size=16),
        SyntheticMotion(seed=seed, video_size=16, subjects=2, actions=["kick"]),
    )
    first = {name: digest(one, sample, name) for name in MODALITIES}
    assert first == {name: digest(other, sample, name) for name in reversed(MODALITIES)}
    different = {name: digest(SyntheticMotion(seed=seed + 1, video_size=16), sample, name) for name in MODALITIES}
    assert all(first[name] != different[name] for name in MODALITIES)


def test_another_process_gives_the_same_bytes() -> None:
    code = (
        "import hashlib; from kdcore_datasets.synthetic.dataset import SyntheticMotion as S; d = S(); "
        "print(hashlib.sha256(b''.join(d.read(d.samples()[7], m).values.tobytes() for m in d.modalities)).hexdigest())"
    )
    out = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout for _ in range(2)}
    dataset = SyntheticMotion()
    sample = dataset.samples()[7]
    here = hashlib.sha256(b"".join(dataset.read(sample, name).values.tobytes() for name in MODALITIES)).hexdigest()
    assert out == {here + "\n"}


def test_trials_and_subjects_differ_unless_told_otherwise() -> None:
    def joints(number: tuple[int, int, int], **options: float) -> np.ndarray:
        return SyntheticMotion(left_handed=0, **options).motion(number)(np.linspace(0, 2, 20)).joints  # type: ignore[arg-type]

    assert np.abs(joints((1, 1, 1)) - joints((1, 1, 2))).max() > 0.01
    assert np.abs(joints((1, 1, 1)) - joints((2, 1, 1))).max() > 0.02
    np.testing.assert_array_equal(joints((1, 1, 1), variation=0), joints((1, 1, 2), variation=0))
    np.testing.assert_array_equal(joints((1, 1, 1), variation=0, diversity=0), joints((2, 1, 1), variation=0, diversity=0))


def test_chosen_actions_keep_their_number_and_get_their_own_labels() -> None:
    dataset = SyntheticMotion(actions=["kick", "wave"], subjects=1, trials=1)
    assert dataset.classes == ("kick", "wave")
    assert [(sample.label, sample.key.action) for sample in dataset.samples()] == [(0, str(NAMES.index("kick") + 1)), (1, "1")]


def test_wrong_names_are_refused() -> None:
    with pytest.raises(DataError, match="did you mean 'wave'"):
        SyntheticMotion(actions=["waev"])
    with pytest.raises(DataError, match="is repeated"):
        SyntheticMotion(actions=["wave", "wave"])
    dataset = SyntheticMotion()
    with pytest.raises(DataError, match="no modality 'sound'"):
        dataset.read(dataset.samples()[0], "sound")
    with pytest.raises(DataError, match="no sample"):
        dataset.read(Sample(SampleKey("1", "99", "1"), None), "rgb")
    with pytest.raises(DataError, match=r"clip\.avi: synthetic-motion simulates its recordings; predict a \.npy file"):
        dataset.read_file(Path("clip.avi"), "rgb")


@pytest.mark.parametrize(("share", "subjects"), [(0.0, 0), (0.25, 2), (1.0, 8)])
def test_left_handers_have_their_share(share: float, subjects: int) -> None:
    dataset = SyntheticMotion(left_handed=share)
    assert sum(dataset.motion((person, 1, 1)).subject.dominant == "left" for person in range(1, 9)) == subjects


def _ideal(name: str, placement: str = "right-wrist", **options: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Faultless force, angular velocity and joints of an average right-hander, on one clock."""
    plain = {"noise": 0, "variation": 0, "diversity": 0, "left_handed": 0, "misplacement": 0, **options}
    dataset = SyntheticMotion(placement=placement, **plain)  # type: ignore[arg-type]
    number = (1, NAMES.index(name) + 1, 1)
    t = np.linspace(0, 3, 150)
    motion = dataset.motion(number)
    return *readings(motion, dataset.mount(number), t), motion(t).joints


def _difference(one: str, other: str, placement: str = "right-wrist") -> list[float]:
    pairs = zip(_ideal(one, placement), _ideal(other, placement), strict=True)
    return [float(np.abs(a - b).max()) for a, b in pairs]


def test_the_other_arm_is_invisible_to_the_wrist_but_not_to_the_eye() -> None:
    force, spin, joints = _difference("arm curl", "two arm curl")
    assert max(force, spin) < 1e-6
    assert joints > 0.3


def test_kick_and_lifted_knee_look_alike_to_the_wrist_only() -> None:
    force, spin, joints = _difference("kick", "lift knee")
    assert max(force, spin) < 1e-6
    assert joints > 0.2
    assert _difference("kick", "lift knee", "right-thigh")[1] > 1


def test_the_roll_of_the_wrist_is_invisible_to_the_eye_only() -> None:
    force, spin, joints = _difference("turn key", "turn screw")
    reach = slice(20, 100)
    key, screw = (_ideal(name)[2][reach] for name in ("turn key", "turn screw"))
    assert np.abs(key - screw).max() < 1e-9
    assert joints < 0.6
    assert spin > 3
    assert force > 2


def test_punch_and_push_take_the_same_way_at_different_accelerations() -> None:
    (punch, _, quick), (push, _, slow) = _ideal("punch"), _ideal("push")
    hand = JOINTS.index("right_hand")
    np.testing.assert_allclose(quick[:, hand].max(axis=0), slow[:, hand].max(axis=0), atol=0.02)
    assert np.linalg.norm(punch, axis=1).max() > 1.5 * np.linalg.norm(push, axis=1).max()


@pytest.mark.parametrize("pair", [("swipe left", "swipe right"), ("draw circle clockwise", "draw circle counter clockwise")])
def test_directions_are_those_of_the_room_for_either_hand(pair: tuple[str, str]) -> None:
    """A left-hander's swipe to the left is the mirror image of a right-hander's to the right."""
    right, left = _ideal(pair[0])[2], _ideal(pair[1], left_handed=1)[2]
    mirrored = [JOINTS.index(n.replace("left", "?").replace("right", "left").replace("?", "right")) for n in JOINTS]
    np.testing.assert_allclose(left, right[:, mirrored] * [1, -1, 1], atol=1e-9)
    hand = right[:, JOINTS.index("right_hand"), 1]
    if pair[0] == "swipe left":
        assert np.argmin(hand) < np.argmax(hand), "from right (-y) to left (+y)"


@pytest.mark.slow
def test_a_thousand_samples_take_seconds() -> None:
    dataset = SyntheticMotion(subjects=14)
    samples = dataset.samples()[:1000]
    start = time.process_time()
    for sample in samples:
        for modality in ("accelerometer", "gyroscope", "skeleton"):
            dataset.read(sample, modality)
    assert time.process_time() - start < 30

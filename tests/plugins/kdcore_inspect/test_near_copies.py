"""Near copies of a recording in the test split."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import toys

from kdcore.contracts.dataset import Sample, SampleKey
from kdcore.contracts.modality import Signal
from kdcore.contracts.protocol import Splits
from kdcore.data.pipeline import Pipeline
from kdcore.errors import SplitError
from kdcore_inspect.near_copies import NearCopies, channels_of, common_share

DRAW = np.random.default_rng(0)


def recording(number: int, length: int = 150, channels: int = 3) -> np.ndarray:
    """Smooth movement with sensor noise."""
    draw = np.random.default_rng(number)
    return 0.1 * draw.normal(size=(length, channels)).cumsum(0) + 0.05 * draw.normal(size=(length, channels))


COPIES = {
    "rescaled": lambda x: 9.81 * x,
    "inverted": lambda x: -x,
    "offset": lambda x: x + np.arange(x.shape[1]),
    "noisy": lambda x: x + 1e-6 * DRAW.normal(size=x.shape),
    "start trimmed": lambda x: x[40:],
    "both ends trimmed": lambda x: x[30:-30],
    "single precision": lambda x: x.astype(np.float32),
    "several of these": lambda x: (3 - 2 * x[20:] + 1e-6 * DRAW.normal(size=x[20:].shape)).astype(np.float32),
}


def found(train: list[np.ndarray], test: list[np.ndarray]) -> list[str]:
    """The lines on recordings of which some are in training and some tested."""
    arrays = {SampleKey(str(number), "a", "1"): values for number, values in enumerate([*train, *test])}
    samples = [Sample(key, 0, {"wrist": number}) for number, key in enumerate(arrays)]
    splits = Splits({"train": tuple(samples[: len(train)]), "test": tuple(samples[len(train) :])}, "")
    check = NearCopies()
    summaries = {"wrist": {key: check.summary(Signal(values, 50.0)) for key, values in arrays.items()}}
    return check.findings(splits, summaries, {}, lambda sample, _: Signal(arrays[sample.key], 50.0))


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("channels", [1, 6, 75])
def test_copies_are_found(how, channels):
    originals = [recording(number, channels=channels) for number in range(4)]
    others = [recording(number, channels=channels) for number in range(10, 14)]
    [line] = found(originals, [*others, COPIES[how](originals[2])])
    assert line.startswith("the wrist of subject 8")
    assert "subject 2" in line
    assert "100 %" in line


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [24, 26])
def test_many_channels_are_means_of_neighbours(dtype, channels):
    values = np.random.default_rng(0).integers(0, 256, (5, channels)).astype(dtype)
    edges = [group * channels // 8 for group in range(9)]
    expected = [[row[a:b].astype(float).mean() for a, b in pairwise(edges)] for row in values]
    np.testing.assert_allclose(channels_of(values), expected, rtol=1e-15)


def test_other_recordings_are_no_copies():
    """Nor are recordings with a common part of less than half, more noise, constant ones, steps, sines, and very short ones."""
    x, y = recording(0), recording(1)
    step = np.repeat([[0.0], [1.0]], 75, axis=0) * np.ones(3)
    spike = np.zeros((150, 3))
    spike[70] = 1
    wave = np.sin(0.3 * np.arange(150) + np.array([[0], [1], [2]])).T.round(6)
    test = [y, np.concatenate([x[:60], y]), x + 0.01 * DRAW.normal(size=x.shape), 0 * x, 2 * step, 3 * spike, 5 * wave, x[:12]]
    assert found([x, 0 * x + 1, step, spike, wave], test) == []


def test_the_common_share_is_that_of_the_shorter_recording():
    x, y = recording(0), recording(1)
    assert common_share(x, np.concatenate([x[50:], y[:20]])) == pytest.approx(100 / 120)
    assert common_share(x, y) == 0.0
    assert common_share(x, x[:, :2]) == 0.0


def test_more_than_a_few_are_counted_no_further():
    """The search ends after five, however many there are."""
    originals = [recording(number) for number in range(12)]
    assert len(found(originals, [2 * each for each in originals])) == 5


def test_a_run_is_refused_also_from_the_cache(tmp_path):
    toys.write(tmp_path, seconds=6)
    values = np.load(tmp_path / "wrist-s0-a0-t0.npy")
    np.save(tmp_path / "wrist-s3-a1-t1.npy", 1e-6 * DRAW.normal(size=values.shape) - 9.81 * values)
    for _ in range(2):
        dataset = toys.Files(tmp_path)
        with pytest.raises(SplitError, match=r"splits leak(.|\n)*wrist of subject s3.*\(test\) and subject s0.*\(train\)"):
            toys.table(dataset, {"student": Pipeline([toys.branch()])}, tmp_path / "cache")
    assert dataset.reads["wrist"] == 2  # to compare, and no more

"""Copies that were resampled, filtered or shifted, and recordings that only look alike."""

from __future__ import annotations

import numpy as np
import pytest
import toys
from scipy import signal as scipy_signal

from kdcore.contracts.dataset import Sample, SampleKey
from kdcore.contracts.modality import Signal
from kdcore.contracts.protocol import Splits
from kdcore.data.pipeline import Pipeline
from kdcore_inspect.outlines import ResampledCopies


def recording(number: int, length: int = 200, channels: int = 3) -> np.ndarray:
    """Movement of up to 2 Hz with sensor noise, at 50 Hz."""
    draw = np.random.default_rng(number)
    time = np.arange(length) / 50
    waves = [
        draw.normal(size=channels) * np.sin(2 * np.pi * f * time + draw.uniform(0, 6))[:, None] for f in np.arange(0.2, 2, 0.2)
    ]
    return sum(waves) + 0.02 * draw.normal(size=(length, channels))


def linear(x: np.ndarray, length: int) -> np.ndarray:
    places = np.linspace(0, len(x) - 1, length)
    return np.stack([np.interp(places, np.arange(len(x)), channel) for channel in x.T], axis=1)


CHECK = ResampledCopies()
LOW = scipy_signal.butter(4, 5, fs=50)
COPIES = {
    "twice the rate": lambda x: linear(x, 400),
    "two fifths of the rate": lambda x: scipy_signal.resample_poly(x - x.mean(0), 2, 5),
    "every third sample": lambda x: x[::3],
    "by the Fourier transform": lambda x: scipy_signal.resample(x, 130),
    "low-pass, both ways": lambda x: scipy_signal.filtfilt(*LOW, x, axis=0),
    "low-pass, one way": lambda x: scipy_signal.lfilter(*scipy_signal.butter(2, 10, fs=50), x - x[0], axis=0),
    "shifted": lambda x: x[1:],
    "with noise": lambda x: x + 0.02 * np.random.default_rng(0).normal(size=x.shape),
    "resampled, inverted, rescaled, offset": lambda x: 3 - 9.81 * linear(x, 130),
}


def compared(splits: Splits, signals: dict[SampleKey, Signal]) -> list[str]:
    """The lines on recordings that are probably in both splits."""
    summaries = {key: text for key, signal in signals.items() if (text := CHECK.summary(signal))}
    return CHECK.findings(splits, {"wrist": summaries}, {}, lambda sample, _: signals[sample.key])


def found(train: list[np.ndarray], test: list[np.ndarray]) -> list[str]:
    arrays = {SampleKey(str(number), "a", "1"): values for number, values in enumerate([*train, *test])}
    samples = [Sample(key, 0, {"wrist": number}) for number, key in enumerate(arrays)]
    splits = Splits({"train": tuple(samples[: len(train)]), "test": tuple(samples[len(train) :])}, "")
    return compared(splits, {key: Signal(values, 50.0) for key, values in arrays.items()})


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("channels", [1, 3, 60])
def test_copies_are_found(how, channels):
    originals = [recording(number, channels=channels) for number in range(6)]
    others = [recording(number, channels=channels) for number in range(10, 14)]
    [line] = found(originals, [*others, COPIES[how](originals[2])])
    assert line.startswith(
        "the wrist of subject 10, action a, trial 1 (test) and subject 2, action a, trial 1 (train) may be one"
    )


def test_irregular_times_are_even_before_they_are_compared():
    x = recording(1)
    chosen = np.sort(np.random.default_rng(0).choice(200, 120, replace=False))
    chosen[[0, -1]] = 0, 199
    signals = {SampleKey("1", "a", "1"): Signal(x, 50.0)}
    signals[SampleKey("2", "a", "1")] = Signal(x[chosen], 50.0, times=chosen / 50)
    one, two = (Sample(key, 0, {"wrist": 0}) for key in signals)
    assert len(compared(Splits({"train": (one,), "test": (two,)}, ""), signals)) == 1


def test_other_recordings_are_no_copies():
    """Nor are ramps, steps and slow waves with noise, signals without noise, still ones and short ones, and more noise."""
    draw = np.random.default_rng(5)
    time = np.linspace(0, 1, 200)[:, None]
    shapes = [time, time**2, (time > 0.5) * 1.0, np.sin(np.pi * time), np.sin(2 * np.pi * time)]
    noisy = [[shape * np.ones(3) + 0.02 * draw.normal(size=(200, 3)) for shape in shapes] for _ in range(2)]
    wave = np.sin(20 * time + np.array([0, 1, 2]))
    still = np.zeros((200, 3))
    x = recording(0)
    train = [x, *noisy[0][:2], wave, still, x[:15]]
    test = [recording(1), *noisy[1][:2], 2 * wave[::2], still, x[:14], x + 0.5 * draw.normal(size=x.shape), x[60:]]
    assert found(train, test) == []


def test_many_are_counted():
    originals = [recording(number) for number in range(12)]
    lines = found(originals, [linear(each, 400) for each in originals])
    assert len(lines) == 6
    assert lines[-1] == "7 more pairs of the wrist seem to be one recording"


def test_a_run_warns_also_from_the_cache(tmp_path):
    toys.write(tmp_path, seconds=6)
    copied = tmp_path / "wrist-s0-a0-t0.npy"
    np.save(copied, recording(3, 300, 2))
    np.save(tmp_path / "wrist-s3-a1-t1.npy", linear(np.load(copied), 200))
    for _ in range(2):
        dataset = toys.Files(tmp_path)
        with pytest.warns(UserWarning, match=r"wrist of subject s3.*\(test\) and subject s0.*\(train\) may be one recording"):
            toys.table(dataset, {"student": Pipeline([toys.branch()])}, tmp_path / "cache", window={"length": 1.0})
    assert not dataset.reads

"""Transforms of recordings inside a graph, against the transforms themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kdcore import KdcoreError, Modality, SampleTransform, Signal
from kdcore_export.graph import Weighted, recording
from kdcore_signals.lengths import Crop, Pad, Resample

SENSOR = Modality("sensor", ("time", "channel"), ("channel", "time"), "", 40.0, ("x", "y"))
SKELETON = Modality("skeleton", ("time", "joint", "channel", "person"), ("channel", "time", "joint", "person"), "m", 30.0)


def values(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("length", [1, 2, 7, 64])
@pytest.mark.parametrize("samples", [1, 2, 3, 7, 50, 211])
def test_resampling_an_even_recording_of_any_length(length, samples):
    x = values(samples, 2)
    graph = recording(SENSOR, [Resample(length=length)], {}, None)
    found = graph(torch.from_numpy(x[None]))[0].numpy()
    at = np.linspace(0, samples - 1, length)
    expected = np.stack([np.interp(at, np.arange(samples), channel) for channel in x.T.astype(np.float64)])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_pixels_stay_whole_numbers():
    x = np.random.default_rng(0).integers(0, 256, (9, 4, 4, 3)).astype(np.uint8)
    video = Modality("rgb", ("time", "height", "width", "channel"), ("time", "channel", "height", "width"), "0..255", 15.0)
    found = recording(video, [Resample(length=5)], {}, None)(torch.from_numpy(x[None]))[0].numpy()
    expected = Resample(length=5)(Signal(x, 15.0)).values.transpose(0, 3, 1, 2)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


CHAINS = {
    "crop": [Crop(length=20, at="end")],
    "pad": [Pad(length=70, mode="repeat")],
    "rate": [Resample(rate=25.0), Pad(length=40, mode="edge")],
    "smooth": [Resample(length=11, anti_aliasing=True)],
}


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize(("modality", "rest"), [(SENSOR, (2,)), (SKELETON, (5, 3, 1))])
def test_what_is_linear_in_time_is_found_out_by_trial(name, modality, rest):
    told = {"shape": [90, *rest], "dtype": "float32", "rate": 40.0}
    with pytest.raises(KdcoreError, match="--samples"):
        recording(modality, CHAINS[name], told, None)
    graph = recording(modality, CHAINS[name], told, 50)
    assert isinstance(graph.steps[0], Weighted)
    for seed in range(3):
        x = values(50, *rest, seed=seed)
        signal = Signal(x, 40.0)
        for transform in CHAINS[name]:
            signal = transform(signal)
        order = [modality.axes.index(axis) for axis in modality.layout]
        np.testing.assert_allclose(graph(torch.from_numpy(x[None]))[0], signal.values.transpose(order), atol=1e-5)


def test_a_windowed_student_fixes_the_number_of_samples_itself():
    assert recording(SENSOR, [Crop(length=20)], {"shape": [90, 2], "rate": 40.0}, None, window=1.5).samples == 60


class Loudness(SampleTransform):
    def __call__(self, signal):
        return signal.with_values(signal.values / np.abs(signal.values).max())


class Reversed(SampleTransform):
    def __call__(self, signal):
        return signal.with_values(signal.values[..., ::-1])


class Picky(SampleTransform):
    def __call__(self, signal):
        raise ValueError("these values are not a recording")


@pytest.mark.parametrize("samples", [50, None])
@pytest.mark.parametrize("transform", [Loudness(), Reversed(), Picky()])
def test_anything_else_is_refused(transform, samples):
    with pytest.raises(KdcoreError, match=f"sensor: {type(transform).__name__} cannot be exported"):
        recording(SENSOR, [Resample(length=11), transform], {"shape": [90, 2], "rate": 40.0}, samples)

"""Saved students in Python: paths, arrays, tensors, frames and batches of them."""

from __future__ import annotations

import doctest
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from saved import ACCELEROMETER, CLASSES, LENGTH, saved_student, walk

import kdcore
from kdcore import DataError, Signal
from kdcore.deploy.streaming import StreamingPredictor
from kdcore.deploy.student import Ensemble
from kdcore_signals.lengths import Crop, Resample

GYROSCOPE = ACCELEROMETER.renamed("gyroscope", units="rad/s", rate=None)


@pytest.fixture
def folder(tmp_path):
    return saved_student(tmp_path / "student")


def by_hand(student, values):
    """Linear interpolation, stored statistics, network, softmax: nothing of the predictor."""
    at = np.linspace(0, len(values) - 1, LENGTH)
    even = np.stack([np.interp(at, np.arange(len(values)), each) for each in values.T.astype(np.float64)])
    [normalise] = student.branches[0].on_batches
    x = (torch.from_numpy(even).float() - normalise.mean[:, None]) / normalise.std[:, None]
    with torch.no_grad():
        return x, student.model.encoder(x[None]).double().softmax(-1).numpy()


def test_one_recording_in_every_form(folder, tmp_path):
    student, values = kdcore.load_student(str(folder)), walk(70)
    _, expected = by_hand(student, values)
    np.save(tmp_path / "clip.npy", values)
    frame = pd.DataFrame({"z": values[:, 2], "label": "?", "x": values[:, 0], "y": values[:, 1]}).drop(columns="label")
    file = tmp_path / "clip.npy"
    forms = [
        values, values.astype(np.float64), torch.from_numpy(values), torch.from_numpy(values).double().requires_grad_(),
        {"accelerometer": values}, Signal(values, 50.0), (values, 50.0), frame, file, str(file),
        {"accelerometer": str(file)},
    ]  # fmt: skip
    for form in forms:
        found = student.predict(form)
        assert found.shape == (1, len(CLASSES))
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_batches_are_lists_or_arrays_with_one_axis_more(folder):
    student = kdcore.load_student(folder)
    clips = [walk(70, seed=seed) for seed in range(3)]
    expected = np.concatenate([by_hand(student, each)[1] for each in clips])
    each_named = [{"accelerometer": each} for each in clips]
    for batch in (clips, np.stack(clips), torch.from_numpy(np.stack(clips)), {"accelerometer": clips}, each_named):
        np.testing.assert_allclose(student.predict(batch), expected, atol=1e-5)
    unequal = [walk(70), walk(41)]
    expected = np.concatenate([by_hand(student, each)[1] for each in unequal])
    np.testing.assert_allclose(student.predict(unequal), expected, atol=1e-5)
    windows = student.predict([walk(100), walk(150)], (1.0, 0.5))
    assert [each.shape for each in windows] == [(3, 3), (5, 3)]
    np.testing.assert_allclose(windows[1], student.predict(walk(150), (1.0, 0.5)), atol=1e-6)


def test_preprocessing_and_network_apart(folder):
    student = kdcore.load_student(folder)
    x, expected = by_hand(student, walk(70))
    ready = student.preprocess(walk(70))
    np.testing.assert_allclose(ready[0], x, atol=1e-5)
    with torch.no_grad():
        np.testing.assert_allclose(student(ready).softmax(-1), expected, atol=1e-5)
    assert isinstance(student, torch.nn.Module)
    assert not student.training
    assert len(list(student.parameters())) == len(list(student.model.encoder.parameters()))


def test_a_student_in_training_mode_predicts_as_in_evaluation_mode(folder):
    student = kdcore.load_student(folder)
    expected = student.predict(walk(70))
    np.testing.assert_array_equal(student.train().predict(walk(70)), expected)
    assert student.training


def test_rates(tmp_path):
    known = kdcore.load_student(saved_student(tmp_path / "a"))
    unknown = kdcore.load_student(saved_student(tmp_path / "g", GYROSCOPE))
    values = walk(100)
    assert len(known.predict(values, (1.0, 1.0))) == 2
    assert len(known.predict(values, (1.0, 1.0), rate=25)) == 4
    with pytest.raises(DataError, match="gyroscope has no default rate: give the samples per second with rate="):
        unknown.predict(values)
    np.testing.assert_array_equal(unknown.predict(values, rate=50), unknown.predict(values, rate={"gyroscope": 50.0}))
    for wrong in (0, -1, np.nan, np.inf):
        with pytest.raises(DataError, match="greater than 0"):
            known.predict(values, rate=wrong)
    with pytest.raises(DataError, match="the signal has 25 samples per second, but rate=50"):
        known.predict(Signal(values, 25.0), rate=50)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"gyroscope": walk(70)}, "the student needs accelerometer; given: gyroscope"),
        ({}, "the student needs accelerometer; given: nothing"),
        ([], "empty list"),
        (None, "a recording must be a path, an array or a Signal, not NoneType"),
        ((walk(70), "fast"), "a tuple is an .array, rate. pair"),
        ("nowhere.npy", "nowhere.npy: no such file"),
        (walk(70).T, r"shape \(3, 70\)"),
        (walk(70)[:, :2], r"the student reads \(time, channel 3\)"),
        (pd.DataFrame(walk(70), columns=["gx", "gy", "gz"]), "no column for channel 'x'"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(folder, given, said):
    with pytest.raises(DataError, match=said):
        kdcore.load_student(folder).predict(given)


def test_an_output_that_is_not_finite_is_refused(folder):
    student = kdcore.load_student(folder)
    torch.nn.init.constant_(student.model.encoder.fc.bias, torch.inf)
    with pytest.raises(DataError, match="output is not finite"), np.errstate(all="ignore"):
        student.predict(walk(70))


def test_loading_moves_no_random_numbers(folder):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    kdcore.load_student(folder)
    torch.testing.assert_close(torch.rand(4), expected)


@pytest.mark.parametrize("documented", [kdcore.load_student, kdcore.Predictor.predict])
def test_examples_in_docstrings(folder, monkeypatch, documented):
    monkeypatch.chdir(folder.parent)
    [example] = doctest.DocTestFinder().find(documented, globs={"student": kdcore.load_student(folder)})
    assert len(example.examples) >= 3
    assert doctest.DocTestRunner().run(example).failed == 0


def test_recordings_of_another_rate_are_refused_where_nothing_resamples(tmp_path):
    """A network reads samples, not seconds: at 100 Hz, a walk would look half as fast."""
    student = kdcore.load_student(saved_student(tmp_path / "a"))
    assert student.rate_read("accelerometer") is None
    for transforms, rate, read in (
        ([Resample(rate=25.0)], 100.0, None),
        ([Crop(length=LENGTH)], 100.0, 50.0),
        ([Crop(length=LENGTH)], 41.0, 50.0),
        ([], 60.0, 50.0),
        ([], 52.0, 50.0),
    ):
        student.branches[0].on_samples = transforms
        assert student.rate_read("accelerometer") == read
        values = walk(LENGTH * 4)
        if read and rate != 52.0:  # clocks of devices are not exact
            for given in (values, (values, rate), Signal(values, rate)):
                with pytest.raises(DataError, match="reads 50 samples per second and does not resample, but the recording has"):
                    student.predict(given, rate=rate)
            with pytest.raises(DataError, match="does not resample"):
                StreamingPredictor(student, rate, (0.5, 0.5)).push(values)
    student.branches[0].modality = replace(student.branches[0].modality, rate=None)
    assert student.rate_read("accelerometer") is None, "it was trained on recordings of any rate"
    both = kdcore.load_predictor(saved_student(tmp_path / "b"))
    assert Ensemble({"a": student, "b": both}).rate_read("accelerometer") is None
    both.branches[0].on_samples = []
    assert Ensemble({"a": student, "b": both}).rate_read("accelerometer") == 50.0


@pytest.mark.parametrize(("pause", "warned"), [(8 / 50, False), (12 / 50, True), (3600.0, True)])
def test_a_gap_in_the_time_column_of_a_plain_table_is_named(folder, pause, warned):
    frame, seconds = pd.DataFrame(walk(70), columns=["x", "y", "z"]), np.arange(70) / 50
    seconds[35:] += pause
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        kdcore.load_student(folder).predict(frame.assign(time=seconds))
    assert (
        any("column 'time' increases by" in str(each.message) and "at row 36" in str(each.message) for each in caught) == warned
    )


def test_rows_of_a_frame_that_are_not_in_the_order_of_time_are_refused(folder):
    student, values = kdcore.load_student(folder), walk(70)
    frame, seconds = pd.DataFrame(values, columns=["x", "y", "z"]), np.arange(70) / 50
    expected = student.predict(values)
    zones = pd.Series(pd.to_datetime(seconds + 1.7e9, unit="s", utc=True))
    for time in (seconds, 1000 * seconds, zones, zones.dt.tz_convert("Asia/Tokyo"), pd.to_timedelta(seconds, unit="s")):
        np.testing.assert_allclose(student.predict(frame.assign(time=time)), expected, atol=1e-5)
    with pytest.raises(DataError, match="no time column, and its index is not sorted; sort the rows by time"):
        student.predict(frame.sample(frac=1, random_state=0))
    halves = pd.concat([frame.assign(time=seconds)[40:], frame.assign(time=seconds)[:40]])
    with pytest.raises(DataError, match="column 'time' decreases at row 31; sort the rows by time"):
        student.predict(halves)
    np.testing.assert_allclose(student.predict(halves.sort_values("time")), expected, atol=1e-5)

"""Recordings that can be read and look wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import toys

from kdcore import Modality, SampleKey, Signal, largest_gap
from kdcore.data.pipeline import Pipeline
from kdcore_inspect.signal_checks import measure, odd_ranges, odd_signals

WATCH = Modality("watch", ("time", "channel"), ("channel", "time"), "m/s^2", 50.0)
TURN = WATCH.renamed("turn", units="rad/s")


def recorded(subject: str, trial: int, factor: float = 1.0, rate: float = 50.0, count: int = 200) -> Signal:
    rng = np.random.default_rng([int(subject), trial])
    return Signal((rng.normal((0, 0, 9.8), size=(count, 3)) * factor).astype(np.float32), rate)


def measured(**changed: Signal):
    """Four subjects with two recordings each; ``s1_0=…`` replaces subject 1's first."""
    signals = {f"s{subject}_{trial}": recorded(str(subject), trial) for subject in range(1, 5) for trial in range(2)}
    return [measure(SampleKey(name[1], "a", name[3]), signal) for name, signal in (signals | changed).items()]


def test_ordinary_recordings_are_not_odd():
    assert odd_signals(WATCH, measured()) == []
    assert odd_ranges(WATCH, measured()) == []


@pytest.mark.parametrize(
    ("signal", "said"),
    [
        (Signal(np.zeros((200, 3)), 50.0), "1 all zero: subject 2, action a, trial 1"),
        (Signal(np.full((200, 3), 4.0), 50.0), "1 constant: subject 2, action a, trial 1"),
        (Signal(recorded("2", 1).values.clip(-0.1, 9.9), 50.0), "1 saturated"),
        (Signal(recorded("2", 1).values[:10], 50.0), r"1 very short \(less than a tenth of the median 4 s\)"),
        (Signal(recorded("2", 1).values, 100.0), "1 not sampled at the 50 Hz that the dataset says: 100 to 100 Hz"),
        (
            Signal(recorded("2", 1).values, 50.0, times=np.r_[np.arange(100) / 50, 10 + np.arange(100) / 50]),
            r"1 interrupted \(a gap of more than ten samples\)",
        ),
        (
            Signal(recorded("2", 1).values, 50.0, times=np.floor(np.arange(200) / 50)),
            r"1 with a clock that is too coarse \(most rows repeat the time stamp of the row before",
        ),
    ],
)
def test_an_odd_recording_is_named(signal, said):
    [line] = odd_signals(WATCH, measured(s2_1=signal))
    assert line.startswith("watch: ")
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(line)


@pytest.mark.parametrize(("samples", "interrupted"), [(9, False), (11, True)])
def test_a_recording_is_interrupted_from_ten_samples_on(samples, interrupted):
    signal, times = recorded("2", 1), np.arange(200) / 50
    times[100:] += (samples - 1) / 50
    lines = odd_signals(WATCH, measured(s2_1=replace(signal, times=times)))
    assert len(lines) == interrupted


@pytest.mark.parametrize(
    ("modality", "factor", "said"),
    [
        (
            WATCH,
            1 / 9.80665,
            "watch: subject 3 measures 0.1.* a factor near 9.807 suggests m/s.2 against g",
        ),
        (WATCH, 9.80665, "a factor near 9.807 suggests m/s.2 against g"),
        (TURN, 57.3, "turn: subject 3 measures 57.* a factor near 57.3 suggests rad/s against deg/s"),
        (WATCH, 30.0, "subject 3 measures 30.* times as much as the others$"),
    ],
)
def test_a_subject_in_another_unit_is_named_with_the_unit(modality, factor, said):
    [line] = odd_ranges(modality, measured(s3_0=recorded("3", 0, factor), s3_1=recorded("3", 1, factor)))
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(line)


def test_one_recording_in_another_unit_is_named():
    [line] = odd_ranges(WATCH, measured(s3_0=recorded("3", 0, 9.80665)))
    assert line.startswith("watch: subject 3, action a, trial 0 measures")


@pytest.mark.parametrize(("factor", "said"), [(180 / np.pi, True), (1.0, False)])
def test_a_gyroscope_in_degrees_is_said(factor, said):
    everything = {f"s{subject}_{trial}": recorded(str(subject), trial, factor) for subject in range(1, 5) for trial in (0, 1)}
    lines = odd_ranges(TURN, measured(**everything))
    assert any(line.endswith("as in deg/s; the dataset says rad/s") for line in lines) == said
    assert not odd_ranges(TURN.renamed("turn", units="deg/s"), measured(**everything))


def test_everything_in_g_is_said():
    everything = {
        f"s{subject}_{trial}": recorded(str(subject), trial, 1 / 9.80665) for subject in range(1, 5) for trial in (0, 1)
    }
    [line] = odd_ranges(WATCH, measured(**everything))
    assert "as in g; the dataset says m/s^2" in line


def test_a_run_names_interrupted_recordings(tmp_path):
    (tmp_path / "recordings").mkdir()

    class Paused(toys.Files):
        """The clock of every wrist of subject s1 jumps by 100 s; that of s0 by nine samples, which is no interruption."""

        def read(self, sample, modality):
            signal = super().read(sample, modality)
            times = signal.clock.copy()
            times[len(times) // 2 :] += {"s1": 100.0, "s0": 8 / signal.rate}.get(sample.key.subject, 0.0)
            return replace(signal, times=times)

    data = Paused(toys.write(tmp_path / "recordings"))
    expected = [str(sample.key) for sample in data.samples() if sample.key.subject == "s1"]
    for _ in range(2):  # read, and from the cache
        with pytest.warns(UserWarning, match=rf"wrist: {len(expected)} interrupted .*: {expected[0]}"):
            table = toys.table(data, {"student": Pipeline([toys.branch()])}, tmp_path / "cache")
        assert sum("interrupted" in line for line in table.warnings) == 1


@pytest.mark.parametrize(("steps", "gap"), [([1, 1, 1, 30], 30), ([2, 2, 2], 1), ([0, 0, 5], np.inf), ([1], 1), ([], 1)])
def test_the_largest_gap_is_in_median_steps(steps, gap):
    times = np.cumsum([0.0, *steps])
    assert largest_gap(Signal(np.zeros((len(times), 3)), 1.0, times=times)) == gap
    assert largest_gap(Signal(np.zeros((5, 3)), 1.0)) == 1

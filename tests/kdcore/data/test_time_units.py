"""Time stamps in another unit than the recipe says."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import toys
import yaml
from sensor_recordings import ACC, dataset, write

import kdcore
from kdcore import Modality, SampleKey
from kdcore.contracts.units import misread_time, time_factor
from kdcore.data.pipeline import Pipeline
from kdcore.data.signal_checks import odd_rates
from kdcore.errors import DataError
from kdcore_inspect.data_check import check

WATCH = Modality("watch", ("time", "channel"), ("channel", "time"), "m/s^2")


@pytest.mark.parametrize("rate", [20, 100, 400])
def test_the_power_of_1000_is_that_of_the_units(rate):
    for factor in (1e-9, 1e-6, 1e-3, 1.0, 1e3, 1e6, 1e9):
        assert time_factor(rate / factor, rate) == pytest.approx(factor)
        assert time_factor(1.3 * rate / factor, rate) == pytest.approx(factor)
        if 0.01 < factor < 100 or not 0.5 <= rate / factor <= 5000:
            assert time_factor(rate / factor) == pytest.approx(factor)
    assert time_factor(10 * rate, rate) == 1


def test_the_units_are_named():
    assert misread_time(0.05) == ", as if time stamps in ms were read as s or us were read as ms or ns were read as us"
    assert misread_time(5e10) == ", as if time stamps in s were read as ns"
    assert misread_time(0.05, 0.05) == misread_time(48.0) == misread_time(3, 30) == ""


def test_one_recording_in_another_unit_is_named():
    rates = {SampleKey("1", "a", str(number)): 100.0 for number in range(5)}
    assert odd_rates(WATCH, rates) == odd_rates(WATCH, {}) == []
    [line] = odd_rates(WATCH, {**rates, SampleKey("2", "a", "1"): 1e5})
    assert line.startswith("watch: 1 sampled at an implausible rate: 1e+05 to 1e+05 Hz, as if time stamps in s were read as ms")
    assert line.endswith(": subject 2, action a, trial 1")
    [line] = odd_rates(WATCH.renamed("watch", rate=100.0), {**rates, SampleKey("2", "a", "1"): 0.1})
    assert "1 not sampled at the 100 Hz that the dataset says: 0.1 to 0.1 Hz, as if time stamps in ms were read as s" in line


@pytest.mark.parametrize(("scale", "unit", "meant"), [(1000, "s", "ms were read as s"), (1, "ms", "s were read as ms")])
@pytest.mark.parametrize("nominal", [None, 20])
def test_check_and_run_say_so(tmp_path, scale, unit, meant, nominal):
    device = {"pattern": "{subject}_{action}.csv", "columns": ACC, "time_column": "t", "time_unit": unit, "rate": nominal}
    for subject in ("s1", "s2", "s3"):
        for action in ("walk", "sit"):
            values = np.random.default_rng([int(subject[1]), len(action)]).normal((0, 0, 9.8), size=(40, 3)).round(3)
            write(tmp_path / f"{subject}_{action}.csv", [[scale * step / 20, *values[step], action] for step in range(40)])
    options = {"name": "sensor-csv", "root": str(tmp_path), "devices": {"watch": device}}
    protocol = {"name": "cross-subject", "train_subjects": ["s1", "s2"], "test_subjects": ["s3"]}
    student = {"modality": "accelerometer-watch", "transforms": [{"name": "resample", "length": 16}], "encoder": "cnn1d"}
    recipe = {"version": 1, "name": "x", "data": {"dataset": options, "protocol": protocol}, "student": student}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({**recipe, "losses": ["cross-entropy"]}))
    [line] = check(tmp_path / "recipe.yaml").odd
    assert f"accelerometer-watch: 6 {'not sampled at the 20 Hz' if nominal else 'sampled at an implausible rate'}" in line
    assert f"as if time stamps in {meant}" in line
    data = dataset(root=tmp_path, devices={"watch": device})
    made = {"student": Pipeline([toys.branch(data.modalities["accelerometer-watch"])])}
    with pytest.warns(UserWarning, match=f"accelerometer-watch: 6 .* as if time stamps in {meant}"):
        toys.table(data, made, tmp_path / "cache")
    if nominal is None or scale == 1:
        with pytest.raises(DataError, match=f"(?s)window.*|no train sample.*as if time stamps in {meant}"):
            toys.table(data, made, tmp_path / "cache", window={"length": 1.0})


def test_times_of_a_table_in_milliseconds():
    table = pd.DataFrame({"sample": np.repeat([0, 1], 30), "time": np.tile(20.0 * np.arange(30), 2), "x": np.arange(60.0)})
    data = kdcore.ArrayDataset({"force": table}, labels=["a", "b"])
    [note] = data.notes
    assert note.startswith("force: sampled at an implausible rate, as if time stamps in ms were read as s")
    table["time"] /= 1000
    assert list(kdcore.ArrayDataset({"force": table}, labels=["a", "b"]).notes) == []

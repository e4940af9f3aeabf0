"""Units that recordings seem to have, checked on simulated sensors whose unit is known."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import toys

from kdcore import Modality
from kdcore.contracts.units import conversion
from kdcore.data.pipeline import Pipeline
from kdcore.data.signal_checks import likely_unit
from kdcore.deploy.recordings import as_signal

ACCELERATION = ("g", "m/s^2", "mg")


def sensor(units: str) -> Modality:
    return Modality("wrist", ("time", "channel"), ("channel", "time"), units, 50.0, ("x", "y", "z"))


def worn(unit: str, seed: int = 0) -> np.ndarray:
    """A wrist that moves: gravity and a little more, or a rotation of up to 9 rad/s."""
    random = np.random.default_rng(seed)
    if unit in ACCELERATION:
        return random.normal((0, 0, 1), 0.15, (200, 3)) * conversion("g", unit)
    return random.uniform(-9, 9, (200, 3)) * conversion("rad/s", unit)


def guess(declared: str, actual: str) -> str:
    values = worn(actual)
    return likely_unit(sensor(declared), float(np.median(np.linalg.norm(values, axis=1))), float(np.abs(values).max()))


@pytest.mark.parametrize("declared", ["g", "m/s^2"])
@pytest.mark.parametrize("actual", ACCELERATION)
def test_the_unit_of_acceleration_is_recognized(declared, actual):
    assert guess(declared, actual) == ("" if actual == declared else actual)


def test_degrees_read_as_radians_are_recognized():
    assert guess("rad/s", "deg/s") == "deg/s"
    assert guess("rad/s", "rad/s") == ""


def test_other_units_are_not_guessed():
    assert guess("1", "g") == guess("m", "m/s^2") == guess("deg/s", "deg/s") == ""


@pytest.mark.parametrize(("declared", "actual"), [("g", "m/s^2"), ("m/s^2", "g"), ("rad/s", "deg/s")])
def test_an_array_in_another_unit_is_warned_of(declared, actual):
    with pytest.warns(
        UserWarning, match=rf"wrist: .*, as if in {actual.replace('^', '.')}, but are read as {declared.replace('^', '.')}"
    ):
        as_signal(worn(actual), sensor(declared), None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        as_signal(worn(declared), sensor(declared), None)


@pytest.mark.parametrize(
    ("declared", "actual"), [("g", "m/s^2"), ("m/s^2", "g"), ("rad/s", "deg/s"), ("g", "g"), ("rad/s", "rad/s")]
)
def test_a_run_names_recordings_that_are_all_in_another_unit(tmp_path, declared, actual):
    (tmp_path / "files").mkdir()
    for subject in range(4):
        for action in range(2):
            values = worn(actual, seed=10 * subject + action)
            np.save(tmp_path / "files" / f"wrist-s{subject}-a{action}-t0.npy", values)
    data = toys.Files(tmp_path / "files")
    data.modalities = {"wrist": sensor(declared)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = toys.table(data, {"student": Pipeline([toys.branch(sensor(declared))])}, tmp_path / "cache")
    said = [line for line in table.warnings if f"as in {actual}; the dataset says {declared}" in line]
    assert len(said) == (declared != actual)

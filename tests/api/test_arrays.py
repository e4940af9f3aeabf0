"""Datasets of arrays in memory."""

from __future__ import annotations

import copy

import numpy as np
import pandas as pd
import pytest
import torch

import kdcore
from kdcore import ArrayDataset, DataError, Modality, Signal
from kdcore.data.fingerprint import Hashes, fingerprint

N = 6
LABELS = ["walk", "sit", "walk", "sit", "run", "walk"]
WRIST = np.random.default_rng(0).normal(size=(N, 20, 3)).astype(np.float32)
BODY = np.random.default_rng(1).normal(size=(N, 12, 4, 3)).astype(np.float32)


def values(data: ArrayDataset, modality: str) -> list[np.ndarray]:
    return [data.read(sample, modality).values for sample in data.samples()]


def test_arrays_are_joined_by_position():
    data = ArrayDataset({"accelerometer": (WRIST, 50.0), "skeleton": (BODY, 30.0)}, LABELS, [1, 1, 2, 2, 3, 3])
    assert data.classes == ("run", "sit", "walk")
    assert [sample.label for sample in data.samples()] == [2, 1, 2, 1, 0, 2]
    assert [sample.key.subject for sample in data.samples()] == ["1", "1", "2", "2", "3", "3"]
    assert [sample.key.trial for sample in data.samples()] == ["1"] * 6
    np.testing.assert_array_equal(values(data, "accelerometer"), WRIST)
    np.testing.assert_array_equal(values(data, "skeleton"), BODY[..., None])  # one person
    assert {data.read(sample, "skeleton").rate for sample in data.samples()} == {30.0}
    accelerometer = data.modalities["accelerometer"]
    assert (accelerometer.units, accelerometer.channels, accelerometer.rate) == ("m/s^2", ("x", "y", "z"), 50.0)
    assert data.modalities["skeleton"].persons == 1


@pytest.mark.parametrize(
    "form",
    [
        torch.from_numpy(WRIST),
        torch.from_numpy(WRIST).requires_grad_(),
        list(WRIST),
        [torch.from_numpy(each) for each in WRIST],
        [Signal(each, 50.0) for each in WRIST],
    ],
    ids=["tensor", "with a graph", "list", "list of tensors", "signals"],
)
def test_forms_of_recordings_mean_the_same(form):
    found = ArrayDataset({"accelerometer": (form, 50.0)}, LABELS)
    np.testing.assert_array_equal(values(found, "accelerometer"), WRIST)


def test_lists_may_have_different_lengths_and_gaps():
    clips = [WRIST[0], WRIST[1][:7], None, WRIST[3], WRIST[4], WRIST[5]]
    data = ArrayDataset({"accelerometer": (clips, 50.0), "skeleton": (BODY, 30.0)}, LABELS)
    assert [sample.sources.keys() for sample in data.samples()][2] == {"skeleton"}
    assert [data.classes[sample.label] for sample in data.samples()] == LABELS
    for clip, body, sample in zip(clips, BODY, data.samples(), strict=True):
        np.testing.assert_array_equal(data.read(sample, "skeleton").values[..., 0], body)
        if clip is not None:
            np.testing.assert_array_equal(data.read(sample, "accelerometer").values, clip)
    lengths = [len(data.read(each, "accelerometer")) for each in data.samples() if "accelerometer" in each.sources]
    assert lengths == [20, 7, 20, 20, 20]


def long_table() -> pd.DataFrame:
    order = ["c", "a", "b", "d", "e", "f"]
    rows = [
        {"sample": order[n], "time": 5.0 + i / 40, "z": v[2], "x": v[0], "y": v[1], "who": f"s{n // 2}", "what": LABELS[n]}
        for n in range(N)
        for i, v in enumerate(WRIST[n].astype(float))
    ]
    return pd.DataFrame(rows)


def test_a_long_table_is_read_by_sample_and_by_the_channels_names():
    data = ArrayDataset({"accelerometer": long_table()}, labels="what", subjects="who")
    np.testing.assert_array_equal(values(data, "accelerometer"), WRIST)
    assert [data.classes[each.label] for each in data.samples()] == LABELS
    assert [each.key.subject for each in data.samples()] == ["s0", "s0", "s1", "s1", "s2", "s2"]
    first = data.read(data.samples()[0], "accelerometer")
    assert (first.rate, first.start, first.times) == (40.0, 5.0, None)


def test_rows_of_samples_may_be_mixed_and_labels_given_by_sample():
    table = long_table().sort_values(["time", "sample"], kind="stable")
    by_name = dict(zip(["c", "a", "b", "d", "e", "f"], LABELS, strict=True))
    for labels in (by_name, pd.Series(by_name)):
        data = ArrayDataset({"accelerometer": table}, labels=labels)
        found = dict(zip("abcdef", values(data, "accelerometer"), strict=True))
        for place, name in enumerate(["c", "a", "b", "d", "e", "f"]):
            np.testing.assert_array_equal(found[name], WRIST[place])
        assert [data.classes[each.label] for each in data.samples()] == [by_name[name] for name in "abcdef"]


def test_labels_in_a_list_of_numpy_numbers_are_positions_and_booleans_are_classes():
    wrist = np.zeros((12, 5, 3))
    data = ArrayDataset({"accelerometer": (wrist, 10.0)}, labels=list(np.arange(12)))
    assert data.classes == tuple(map(str, range(12))), "in the order of the numbers, not of the text"
    data = ArrayDataset({"accelerometer": (wrist[:2], 10.0)}, labels=list(np.arange(2)), classes=["walk", "sit"])
    assert [data.classes[each.label] for each in data.samples()] == ["walk", "sit"]
    for labels in ([True, False, "True", "False"], np.array([True, False, True, False]), list(np.array([True, False] * 2))):
        data = ArrayDataset({"accelerometer": (wrist[:4], 10.0)}, labels=labels)
        assert data.classes == ("False", "True")
        assert [each.label for each in data.samples()] == [1, 0, 1, 0]
    with pytest.raises(DataError, match="labels: some are True or False and others are numbers; use one kind"):
        ArrayDataset({"accelerometer": (wrist[:4], 10.0)}, labels=[True, False, 1, 0])


def test_irregular_times_are_kept():
    times = np.cumsum([0.0, 0.02, 0.05, 0.02, 0.02])
    table = pd.DataFrame({"sample": 1, "time": times, "x": range(5), "y": 0.0, "z": 0.0})
    signal = ArrayDataset({"accelerometer": table}).samples()[0].sources["accelerometer"]
    np.testing.assert_allclose(signal.clock, times)


def test_a_table_of_joints_has_its_columns_joint_by_joint():
    columns = {f"joint{j}_{c}": BODY[:, :, j, k].ravel() for j in range(4) for k, c in enumerate("xyz")}
    table = pd.DataFrame({"sample": np.repeat(np.arange(N), 12), **columns})
    data = ArrayDataset({"skeleton": (table, 30.0), "accelerometer": (WRIST, 50.0)}, LABELS)
    np.testing.assert_array_equal(values(data, "skeleton"), BODY[..., None])
    assert len(data) == N


@pytest.mark.parametrize(
    ("labels", "classes", "names", "numbers"),
    [
        ([1, 0, 1, 0, 2, 1], None, ("0", "1", "2"), [1, 0, 1, 0, 2, 1]),
        (np.array([5, 3, 5, 3, 9, 5]), None, ("3", "5", "9"), [1, 0, 1, 0, 2, 1]),
        (torch.tensor([1, 0, 1, 0, 2, 1]), ("a", "b", "c", "d"), ("a", "b", "c", "d"), [1, 0, 1, 0, 2, 1]),
        (LABELS, ("walk", "run", "sit"), ("walk", "run", "sit"), [0, 2, 0, 2, 1, 0]),
        (["a", None, "b", float("nan"), "a", "b"], None, ("a", "b"), [0, None, 1, None, 0, 1]),
        ([1, -1, 0, -1, 1, 0], None, ("0", "1"), [1, None, 0, None, 1, 0]),
        (pd.Series([1.0, np.nan, 0.0, 1.0, 1.0, 0.0]), None, ("0", "1"), [1, None, 0, 1, 1, 0]),
        (None, ("a", "b"), ("a", "b"), [None] * 6),
    ],
    ids=["numbers", "other numbers", "positions", "names", "some missing", "minus one", "floats", "none"],
)
def test_labels(labels, classes, names, numbers):
    data = ArrayDataset({"accelerometer": (WRIST, 50.0)}, labels, classes=classes)
    assert data.classes == names
    assert [sample.label for sample in data.samples()] == numbers


def test_units_are_converted_and_specs_are_kept():
    told = {"accelerometer": {"units": "g", "placement": "left-wrist"}, "emg": {"units": "mV", "channels": ["a", "b"]}}
    emg = np.ones((N, 9, 2))
    data = ArrayDataset({"accelerometer": (WRIST, 50.0), "emg": (emg, 1000)}, LABELS, modalities=told)
    np.testing.assert_allclose(values(data, "accelerometer"), WRIST * 9.80665, rtol=1e-6)
    assert data.modalities["accelerometer"].units == "m/s^2"
    assert data.modalities["accelerometer"].placement == "left-wrist"
    expected = Modality("emg", ("time", "channel"), ("channel", "time"), "mV", 1000.0, ("a", "b"))
    assert data.modalities["emg"] == expected
    other = ArrayDataset({"ankle": (WRIST, 50.0)}, modalities={"ankle": {"like": "accelerometer"}})
    assert other.modalities["ankle"].units == "m/s^2"
    pictures = Modality("thermal", ("time", "height", "width"), ("time", "height", "width"), "K")
    shaped = ArrayDataset({"thermal": (np.zeros((2, 5, 8, 8)), 9.0)}, modalities={"thermal": pictures})
    assert shaped.modalities["thermal"].rate == 9.0


def test_whole_numbers_become_floats_and_pictures_stay():
    numbers = ArrayDataset({"accelerometer": (np.ones((N, 20, 3), dtype=np.int64), 50.0)})
    assert values(numbers, "accelerometer")[0].dtype == np.float32
    video = ArrayDataset({"rgb": (np.zeros((N, 4, 8, 8, 3), dtype=np.uint8), 15.0)})
    assert values(video, "rgb")[0].dtype == np.uint8


def identity(data: ArrayDataset, folder) -> str:
    return fingerprint(data, data.samples(), {}, Hashes(folder / "hashes.json"))


def test_the_fingerprint_is_that_of_the_content(tmp_path):
    def made(wrist=WRIST, rate=50.0, labels=LABELS, **options):
        return identity(ArrayDataset({"accelerometer": (wrist, rate)}, labels, **options), tmp_path)

    changed = WRIST.copy()
    changed[3, 7, 1] += 1e-3
    assert made() == made(copy.deepcopy(WRIST)) == made(list(WRIST)) == made(torch.from_numpy(WRIST))
    others = {made(changed), made(rate=49.0), made(labels=LABELS[::-1]), made(subjects=[1, 1, 2, 2, 3, 3]), made(WRIST[:, :19])}
    assert len(others | {made()}) == 6


def test_other_keys_and_trials():
    keys = {"session": [1, 1, 2, 2, 1, 1], "view": ["a", "b", "c", "d", "e", "f"]}
    data = ArrayDataset({"accelerometer": (WRIST, 50.0)}, LABELS, keys=keys, trials=[3, 4, 5, 6, 7, 8])
    assert [(each.key.session, each.key.view, each.key.trial) for each in data.samples()][2] == ("2", "c", "5")
    counted = ArrayDataset({"accelerometer": (WRIST, 50.0)}, LABELS)
    assert [each.key.trial for each in counted.samples()] == ["1", "1", "2", "2", "1", "3"]


GOOD = {"accelerometer": (WRIST, 50.0)}
SHORT = long_table().drop(columns="z")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"signals": {}}, "maps each modality"),
        ({"signals": {"accelerometer": WRIST}}, "the sampling rate is missing"),
        ({"signals": {"accelerometer": (WRIST, 0.0)}}, "greater than 0"),
        ({"signals": {"accelerometer": (WRIST[..., :2], 50.0)}}, r"3 channels \(x, y, z\) are expected, but there are 2"),
        ({"signals": {"accelerometer": (WRIST[0], 50.0)}}, "3 channels|has the shape"),
        ({"signals": {"skeleton": (WRIST, 50.0)}}, r"has the axes \(time, joint, channel, person\)"),
        ({"signals": {**GOOD, "skeleton": (BODY[:4], 30.0)}}, "accelerometer 6, skeleton 4"),
        ({"signals": {"accelerometer": (WRIST.astype(str), 50.0)}}, "must hold numbers, not"),
        ({"signals": {"accelerometer": (["a.npy"], 50.0)}}, "a recording cannot be text"),
        ({"signals": {"accelerometer": (3.0, 50.0)}}, "pair|not a float"),
        ({"signals": {"emg": ([np.ones((4, 2)), np.ones((4, 3))], 9.0)}}, "only the time may differ"),
        ({"signals": GOOD, "labels": [1, 2]}, "labels has 2 values for 6 samples"),
        ({"signals": GOOD, "labels": [0.5] * 6}, "0.5 is neither text nor an integer"),
        ({"signals": GOOD, "labels": [0, 1, 2, 0, 1, 7], "classes": ["a", "b", "c"]}, "7 is no position among the 3"),
        ({"signals": GOOD, "labels": LABELS, "classes": ["walk", "sit", "runn"]}, "'run' is not one of the classes"),
        ({"signals": GOOD, "labels": LABELS, "classes": ["walk", "walk"]}, "two classes have the same name"),
        ({"signals": GOOD, "labels": "what"}, "names a column, but no signals are a table"),
        ({"signals": GOOD, "subjects": [1, 2, 3, 4, 5, None]}, "subjects: the sample 5 has none"),
        ({"signals": GOOD, "labels": LABELS, "trials": [1] * 6}, "give each its own trial"),
        ({"signals": GOOD, "keys": {"sesion": [1] * 6}}, "did you mean 'session'"),
        ({"signals": GOOD, "modalities": {"gyro": {}}}, "'gyro', for which there are no signals"),
        ({"signals": GOOD, "modalities": {"accelerometer": {"unit": "g"}}}, "did you mean 'units'"),
        ({"signals": GOOD, "modalities": {"accelerometer": {"units": "rad"}}}, "cannot convert 'rad'"),
        ({"signals": {"a": (WRIST, 5.0)}, "modalities": {"a": {"like": "acelerometer"}}}, "did you mean 'accelerometer'"),
        ({"signals": {"accelerometer": SHORT}, "labels": "what", "subjects": "who"}, "channels x, y, z, but the table has"),
        ({"signals": {"accelerometer": long_table().rename(columns={"sample": "id"})}}, "no column 'sample'"),
        ({"signals": {"accelerometer": long_table()}, "labels": "wat"}, "no table has a column 'wat'.*'what'"),
        ({"signals": {"accelerometer": long_table()}, "labels": {"a": 1}}, "labels has no value for the sample 'c'"),
        ({"signals": {"accelerometer": long_table()}, "labels": "time"}, "says both"),
        ({"signals": {"accelerometer": (long_table(), 100.0)}}, "its times give 40 samples per second, but the rate is 100"),
        ({"signals": {"accelerometer": long_table().assign(time=1.0)}}, "do not increase"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(DataError, match=message):
        ArrayDataset(**arguments)


def test_a_dataset_passes_the_checks_of_datasets():
    """Samples are listed in the same order each time, and recordings are read twice alike."""
    data = ArrayDataset(GOOD, LABELS)
    assert data.samples() == data.samples()
    assert len({sample.key for sample in data.samples()}) == N
    assert isinstance(data, kdcore.Dataset)


def table_of(order: list[str], **columns) -> pd.DataFrame:
    rows = [{"sample": name, "x": v[0], "y": v[1], "z": v[2]} for n, name in enumerate(order) for v in WRIST[n].astype(float)]
    return pd.DataFrame(rows).assign(**columns)


def test_what_is_said_per_sample_goes_by_name_not_by_place():
    order, told = [*"fabcde"], pd.Series(range(6), index=[*"abcdef"], dtype=float)
    given = {"accelerometer": (table_of(order), 20.0)}
    frame = pd.DataFrame({"number": told, "twice": 2 * told})
    expected = [(told[name], 2 * told[name]) for name in order]
    assert [each.target for each in ArrayDataset(given, values=frame).samples()] == expected
    assert [each.target[0] for each in ArrayDataset(given, values={"number": told}).samples()] == [each for each, _ in expected]
    assert [each.weight for each in ArrayDataset(given, LABELS and told.astype(str), weights=told + 1).samples()] == [
        told[name] + 1 for name in order
    ]
    several = pd.DataFrame({"odd": told % 2, "large": told // 3})
    found = ArrayDataset(given, labels=several, classes=["large", "odd"]).samples()
    assert [each.target for each in found] == [(told[name] // 3, told[name] % 2) for name in order]
    with pytest.raises(DataError, match="has no value for the sample 'f'"):
        ArrayDataset(given, values=frame.drop("f"))


@pytest.mark.parametrize(
    ("order", "clear"), [([*"abcdef"], True), (["1", "2", "9", "10", "11", "12"], True), ([*"bacdef"], False)]
)
def test_a_list_for_a_table_whose_samples_are_in_no_order_is_refused(order, clear):
    given = {"accelerometer": (table_of(order), 20.0)}
    if clear:
        assert [data.classes[each.label] for data in [ArrayDataset(given, LABELS)] for each in data.samples()] == LABELS
        return
    for told in ({"labels": LABELS}, {"labels": np.array(LABELS)}, {"values": np.arange(6.0)}, {"subjects": range(6)}):
        with pytest.raises(
            DataError, match=r"a list is ambiguous, because .* \(it begins with 'b'\); give a series or mapping"
        ):
            ArrayDataset(given, **told)


def test_times_may_be_dates_of_any_zone_or_durations():
    seconds = np.tile(np.arange(20) / 50, N)
    dates = pd.Series(pd.to_datetime(seconds + 1.7e9, unit="s", utc=True))
    forms = [dates, dates.dt.tz_convert("Asia/Kathmandu"), dates.dt.tz_localize(None), dates.astype("datetime64[us, UTC]")]
    for time, start in [*((form, 1.7e9) for form in forms), (pd.to_timedelta(seconds, unit="s"), 0.0)]:
        data = ArrayDataset({"accelerometer": table_of([*"abcdef"], time=time)}, LABELS)
        signal = data.read(data.samples()[3], "accelerometer")
        assert signal.rate == pytest.approx(50, rel=1e-4)
        assert signal.start == pytest.approx(start)
    missing = dates.copy()
    missing[7] = pd.NaT
    for time, said in ((missing, "row 7 of the table has no time"), ("noon", "holds neither seconds nor dates")):
        with pytest.raises(DataError, match=said):
            ArrayDataset({"accelerometer": table_of([*"abcdef"], time=time)}, LABELS)
    with pytest.raises(DataError, match="row 2 of the table has no time"):
        ArrayDataset({"accelerometer": table_of([*"abcdef"], time=np.where(np.arange(120) == 2, np.nan, seconds))}, LABELS)


def test_a_shuffled_table_without_times_is_refused():
    table = table_of([*"abcdef"])
    with pytest.raises(DataError, match="its index goes back within the sample; sort the rows by time"):
        ArrayDataset({"accelerometer": (table.sample(frac=1, random_state=0), 20.0)}, dict(zip("abcdef", LABELS, strict=True)))
    apart = pd.concat([table[n::2] for n in range(2)]).reset_index(drop=True)  # of one sample: all in order
    assert len(ArrayDataset({"accelerometer": (apart, 20.0)}, LABELS).samples()) == N


def test_names_in_bytes_are_read_as_text():
    data = ArrayDataset({"accelerometer": (WRIST, 50.0)}, np.array(LABELS).astype("S"), np.array(["ann", "bö"] * 3))
    assert data.classes == ("run", "sit", "walk")
    assert ArrayDataset({"accelerometer": (WRIST, 50.0)}, LABELS, [b"ann", "bö".encode()] * 3).samples()[1].key.subject == "bö"


@pytest.mark.parametrize(
    "index",
    [
        pd.timedelta_range("0s", periods=20, freq="20ms"),
        pd.date_range("2024-01-01", periods=20, freq="20ms", tz="Europe/Madrid"),
        pd.Index(range(20), dtype="Int64"),
    ],
    ids=["durations", "dates with a time zone", "nullable numbers"],
)
def test_rows_out_of_order_by_any_index_of_times_are_refused(index):
    table = pd.DataFrame(WRIST[0], columns=[*"xyz"], index=index).assign(sample="a")
    kept = ArrayDataset({"accelerometer": (table, 50.0)}, {"a": "walk"})
    np.testing.assert_array_equal(values(kept, "accelerometer")[0], WRIST[0])
    with pytest.raises(DataError, match="its index goes back within the sample"):
        ArrayDataset({"accelerometer": (table.iloc[::-1], 50.0)}, {"a": "walk"})


def two_samples() -> pd.DataFrame:
    return pd.DataFrame(WRIST[:2].reshape(-1, 3), columns=[*"xyz"]).assign(sample=["a"] * 20 + ["b"] * 20)


def test_a_series_with_two_values_for_a_sample_is_refused():
    signals = {"accelerometer": (two_samples(), 50.0)}
    with pytest.raises(DataError, match="labels says both 0 and 1 for the sample 'a'"):
        ArrayDataset(signals, pd.Series([0, 1, 1], index=["a", "a", "b"]))
    data = ArrayDataset(signals, pd.Series([0, 0, 1], index=["a", "a", "b"]))
    assert [sample.label for sample in data.samples()] == [0, 1]


def test_a_nullable_column_may_lack_labels():
    table = two_samples().assign(label=pd.array([3] * 20 + [None] * 20, dtype="Int64"))
    data = ArrayDataset({"accelerometer": (table, 50.0)}, labels="label")
    assert [sample.label for sample in data.samples()] == [0, None]
    assert data.classes == ("3",)


def test_names_in_another_encoding_are_refused():
    with pytest.raises(DataError, match=r"b'\\xe9' is not UTF-8"):
        ArrayDataset({"accelerometer": (WRIST[:2], 50.0)}, [b"\xe9", b"\xe8"])
    data = ArrayDataset({"accelerometer": (WRIST[:2], 50.0)}, ["é".encode(), "è".encode()])
    assert set(data.classes) == {"é", "è"}


def test_two_columns_of_labels_with_one_name_are_refused():
    with pytest.raises(DataError, match="labels: two columns have the same name"):
        ArrayDataset({"accelerometer": (WRIST[:2], 50.0)}, pd.DataFrame([[0, 1], [1, 0]], columns=["a", "a"]))


@pytest.mark.parametrize("rate", [25, 31.25, 50, 102.4, 512])
@pytest.mark.parametrize("unit", ["ns", "us"])
def test_dates_do_not_make_a_rate_look_off(rate, unit):
    starts = pd.to_datetime(["2024-01-01 00:00:07.3", "2024-06-30 17:11:01.123456"])
    dates = [start + pd.to_timedelta(np.arange(20) / rate, unit="s").as_unit(unit) for start in starts]
    table = two_samples().assign(time=[each for of in dates for each in of])
    data = ArrayDataset({"accelerometer": table}, {"a": "walk", "b": "sit"})
    assert data.modalities["accelerometer"].rate == rate


def test_dates_in_a_column_of_objects_are_times():
    dates = pd.Series(list(pd.date_range("2024-01-01", periods=20, freq="20ms")) * 2, dtype=object)
    data = ArrayDataset({"accelerometer": two_samples().assign(time=dates)}, {"a": "walk", "b": "sit"})
    assert [data.read(sample, "accelerometer").rate for sample in data.samples()] == pytest.approx([50.0, 50.0], abs=1e-3)

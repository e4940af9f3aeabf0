"""Recordings in Parquet files are read as the same recordings in CSV files are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError
from sensor_recordings import dataset

from kdcore import DataError, Sample
from kdcore_datasets.sensor_csv.dataset import SensorCsv

AXES = ["ax", "ay", "az"]


def frame(seed: int = 0, rows: int = 40) -> pd.DataFrame:
    """A recording at 50 Hz, in which a person walks and then sits."""
    made = pd.DataFrame(np.random.default_rng(seed).normal(0, 3, (rows, 3)).round(4), columns=AXES)
    made.insert(0, "time", np.arange(rows) / 50)
    return made.assign(label=["walk"] * (rows // 2) + ["sit"] * (rows - rows // 2), subject=seed % 4)


def options(root: Path, suffix: str = "parquet", **device: Any) -> dict[str, Any]:
    columns = {"pattern": f"{{session}}.{suffix}", "columns": {"accelerometer": AXES}, "time_column": "time"}
    return {
        "root": root,
        "devices": {"watch": {**columns, **device}},
        "label": {"column": "label"},
        "key_columns": {"subject": "subject"},
    }


def only(data: SensorCsv, number: int = 0) -> tuple[Sample, Any]:
    sample = data.samples()[number]
    return sample, data.read(sample, "accelerometer-watch")


def same(root: Path, device: dict[str, Any] | None = None) -> None:
    """Check that the Parquet files of a folder give the samples and signals that its CSV files give."""
    parquet, text = (dataset(**options(root, suffix, **(device or {}))) for suffix in ("parquet", "csv"))
    assert parquet.classes == text.classes
    mine, theirs = parquet.samples(), text.samples()
    assert theirs
    assert [(each.key, each.label) for each in mine] == [(each.key, each.label) for each in theirs]
    assert [(each.reason, each.fault) for each in parquet.unusable] == [(each.reason, each.fault) for each in text.unusable]
    assert parquet.notes == text.notes
    for one, other in zip(mine, theirs, strict=True):
        a, b = parquet.read(one, "accelerometer-watch"), text.read(other, "accelerometer-watch")
        np.testing.assert_array_equal(a.values, b.values)
        np.testing.assert_allclose(a.clock, b.clock, atol=1e-9)
        assert a.rate == pytest.approx(b.rate)


def test_as_csv(tmp_path: Path):
    for seed in range(4):
        frame(seed).to_parquet(tmp_path / f"r{seed}.parquet")
        frame(seed).to_csv(tmp_path / f"r{seed}.csv", index=False)
    same(tmp_path)
    same(tmp_path, {"units": {"accelerometer": "g"}})


@pytest.mark.parametrize("missing", ["drop", {"interpolate": 0.1}, {"interpolate": 0.05}])
def test_missing_values_as_in_csv(tmp_path: Path, missing: object):
    made = frame()
    made.loc[[5, 6, 7, 30], "ay"] = np.nan
    made.loc[0, "az"] = np.inf
    made.loc[12, "time"] = np.nan
    made.to_parquet(tmp_path / "r.parquet")
    made.to_csv(tmp_path / "r.csv", index=False)
    data = dataset(**options(tmp_path, missing_values=missing))
    data.samples()
    assert "values are missing in" in data.notes[0]
    if missing != {"interpolate": 0.05}:
        same(tmp_path, {"missing_values": missing})
        return
    with pytest.raises(DataError, match=r"is missing for 0\.08 s, more than the 0\.05 s"):
        only(data, [each.key.action for each in data.samples()].index("walk"))


def test_missing_values_are_errors_by_default(tmp_path: Path):
    made = frame()
    made.loc[5, "ay"] = np.nan
    made.to_parquet(tmp_path / "r.parquet")
    data = dataset(**options(tmp_path))
    number = [each.key.action for each in data.samples()].index("walk")
    with pytest.raises(DataError, match=r"r\.parquet: row 6: column 'ay' is missing; `missing_values` says"):
        only(data, number)


@pytest.mark.parametrize("kind", ["datetime64[ns]", "datetime64[us]", "datetime64[ms]", "zone", "duration"])
@pytest.mark.parametrize("unit", ["s", "iso"])
def test_timestamps(tmp_path: Path, kind: str, unit: str):
    made = frame()
    clock = pd.to_timedelta(made["time"], unit="s")
    if kind != "duration":
        clock = pd.Timestamp("2024-05-07 13:29:50.43") + clock
        clock = clock.dt.tz_localize("Europe/Berlin") if kind == "zone" else clock.astype(kind)
    made.assign(time=clock).to_parquet(tmp_path / "r.parquet")
    sample, signal = only(dataset(**options(tmp_path, time_unit=unit)))
    rows = made[made["label"] == sample.key.action]
    np.testing.assert_array_equal(signal.values, rows[AXES].to_numpy(np.float32))
    np.testing.assert_allclose(signal.clock, rows["time"] - rows["time"].iloc[0], atol=1e-6)
    assert signal.rate == pytest.approx(50)


def test_a_missing_timestamp(tmp_path: Path):
    made = frame()
    made["time"] = pd.Timestamp("2024-05-07") + pd.to_timedelta(made["time"], unit="s")
    made.loc[3, "time"] = pd.NaT
    made.to_parquet(tmp_path / "r.parquet")
    data = dataset(**options(tmp_path))
    assert [each.key.action for each in data.samples()] == ["sit"]
    assert [each.detail for each in data.unusable] == [f"{tmp_path / 'r.parquet'}: row 4: column 'time' is missing"]


def test_columns_of_any_type_of_number(tmp_path: Path):
    made = frame()
    counts = (made[AXES] * 100).astype("int16")
    table = pa.table(
        {
            "time": pa.array((made["time"] * 1000).round().astype("int64")),
            "ax": pa.array(counts["ax"]),
            "ay": pa.array(counts["ay"].astype("float32")),
            "az": pa.array(counts["az"].astype("float16")),
            "label": pa.array(made["label"]).dictionary_encode(),
            "subject": pa.array(made["subject"].astype("uint8")),
        }
    )
    pq.write_table(table, tmp_path / "r.parquet", row_group_size=7, compression="zstd")
    sample, signal = only(dataset(**options(tmp_path, time_unit="ms")))
    assert (sample.key.subject, sample.key.action) == ("0", "sit")
    np.testing.assert_allclose(signal.values, counts[made["label"] == "sit"].to_numpy(), rtol=1e-3)
    assert signal.rate == pytest.approx(50)


def test_columns_by_number_and_a_rate(tmp_path: Path):
    frame().drop(columns="time").to_parquet(tmp_path / "r.parquet")
    given = options(tmp_path, columns={"accelerometer": [0, 1, 2]}, rate=25, time_column=None)
    data = dataset(**given)
    sample, signal = only(data)
    assert data.notes == []
    expected = frame()
    np.testing.assert_array_equal(signal.values, expected[expected["label"] == sample.key.action][AXES].to_numpy(np.float32))
    assert signal.rate == 25


def test_labels_that_are_numbers_or_missing(tmp_path: Path):
    made = frame()
    made["label"] = [1] * 10 + [None] * 10 + [2] * 20
    made.astype({"label": "Int64"}).to_parquet(tmp_path / "r.parquet")
    data = dataset(**options(tmp_path))
    assert (data.classes, [each.key.action for each in data.samples()]) == (("1", "2"), ["1", "2"])
    assert [each.reason for each in data.unusable] == ["no label"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"columns": {"accelerometer": ["ax", "ay", "a_z"]}},
            "has no column 'a_z'; its columns are time, ax, ay, az, label, sub",
        ),
        ({"columns": {"accelerometer": [1, 2, 9]}}, "has 6 columns, none with number 9"),
        ({"columns": {"accelerometer": ["ax", "ay", "label"]}}, "row 21: column 'label' is 'sit', not a number"),
    ],
)
def test_wrong_columns(tmp_path: Path, change: dict[str, Any], message: str):
    frame().to_parquet(tmp_path / "r.parquet")
    with pytest.raises(DataError, match=f"r.parquet: {message}"):
        only(dataset(**options(tmp_path, **change)))


def test_dates_and_windows_are_no_signals(tmp_path: Path):
    made = frame().assign(az=pd.Timestamp("2024-05-07"))
    made.to_parquet(tmp_path / "r.parquet")
    with pytest.raises(DataError, match="column 'az' holds timestamp"):
        only(dataset(**options(tmp_path)))
    made.assign(az=[[1.0, 2.0]] * len(made)).to_parquet(tmp_path / "r.parquet")
    with pytest.raises(DataError, match=r"not one value for each time step; .* dataset 'windows'"):
        only(dataset(**options(tmp_path)))


@pytest.mark.parametrize("content", [b"", b"PAR1", b"time,ax\n0,1\n"])
def test_damaged_files_are_bad_samples(tmp_path: Path, content: bytes):
    frame().to_parquet(tmp_path / "good.parquet")
    (tmp_path / "bad.parquet").write_bytes(content)
    data = dataset(**options(tmp_path))
    assert len(data.samples()) == 2
    [bad] = data.unusable
    assert bad.reason == "unreadable"
    assert "bad.parquet: not a readable Parquet file" in bad.detail


def test_a_file_without_rows(tmp_path: Path):
    frame().iloc[:0].to_parquet(tmp_path / "r.parquet")
    data = dataset(**options(tmp_path, suffix="parquet"), classes=["sit"])
    assert not data.samples()
    assert "has no rows" in data.unusable[0].detail


@pytest.mark.parametrize("option", [{"delimiter": ";"}, {"decimal": ","}, {"header": False}, {"record_end": ";"}])
def test_options_of_text_files_are_refused(tmp_path: Path, option: dict[str, Any]):
    with pytest.raises(ValidationError, match=f"{next(iter(option))} is for text files, not for Parquet"):
        dataset(**options(tmp_path, **option))

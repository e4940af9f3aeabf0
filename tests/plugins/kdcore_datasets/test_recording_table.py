"""Labels and subjects of ``sensor-csv`` from a table with one row per recording."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError
from sensor_recordings import ACC, dataset, write

from kdcore import DataError

ROWS = "file;who;what\nrec1.csv;ann;walk\ndata/rec2;ben;sit\nrec3;ann;\nrec9.csv;cem;run\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in (1, 2, 3, 4):
        write(tmp_path / f"data/rec{number}.csv", [[n, number, n, 0.5] for n in range(4)], header="t,x,y,z")
    (tmp_path / "labels.csv").write_text(ROWS)
    return tmp_path


def options(folder: Path, **more: Any) -> dict[str, Any]:
    table = {"file": "labels.csv", "path": "file", "columns": {"subject": "who", "action": "what"}, "delimiter": ";", **more}
    return {"root": folder, "devices": {"w": {"pattern": "data/rec{trial}.csv", "columns": ACC, "rate": 50}}, "table": table}


def test_labels_and_subjects_come_from_the_row_that_names_the_file(folder):
    data = dataset(**options(folder))
    assert data.classes == ("sit", "walk")
    samples = data.samples()
    assert [(each.key.subject, each.key.action, each.key.trial, each.label) for each in samples] == [
        ("ann", "walk", "1", 1),
        ("ben", "sit", "2", 0),
    ]
    assert [float(data.read(each, "accelerometer-w").values[0, 0]) for each in samples] == [1, 2]
    reasons = {Path(each.what).name if "rec" in each.what else each.what: each.reason for each in data.unusable}
    assert "no label" in reasons.values()
    assert reasons["rec4.csv"] == "not in labels.csv"
    assert list(data.notes) == ["labels.csv: rows without a recording (1): rec9.csv"]


def test_a_recording_without_a_label_in_its_row_can_be_kept(folder):
    samples = dataset(**options(folder), unlabelled="keep").samples()
    assert [(each.key.trial, each.label) for each in samples] == [("3", None), ("1", 1), ("2", 0)]


def test_an_empty_cell_is_no_label_and_leaves_other_parts_to_the_placeholder(folder):
    for number in (1, 2, 3):
        write(folder / f"lab/run_{number}.csv", [[n, number, n, 0.5] for n in range(4)], header="t,x,y,z")
    (folder / "labels.csv").write_text("file;who;what\nrun_1;ann;walk\nrun_2;;sit\nrun_3;ben;\n")
    given = options(folder)
    given["devices"]["w"]["pattern"] = "{subject}/{action}_{trial}.csv"
    samples = dataset(**given, unlabelled="keep").samples()
    found = {each.key.trial: (each.key.subject, each.key.action, each.label) for each in samples}
    assert found == {"1": ("ann", "walk", 1), "2": ("lab", "sit", 0), "3": ("ben", "unlabelled", None)}


def test_a_parquet_table(folder):
    rows = {"file": ["rec1", "rec2"], "who": [1, 2], "what": ["walk", "sit"]}
    pq.write_table(pa.table(rows), folder / "labels.parquet")
    given = options(folder, file="labels.parquet")
    del given["table"]["delimiter"]
    assert [each.key.subject for each in dataset(**given).samples()] == ["1", "2"]


def test_tables_that_contradict_themselves_or_lack_columns(folder):
    (folder / "labels.csv").write_text(ROWS + "rec1.csv;ann;sit\n")
    with pytest.raises(DataError, match=r"labels\.csv: two different rows for 'rec1\.csv'"):
        dataset(**options(folder)).samples()
    with pytest.raises(DataError, match="has no column 'name'"):
        dataset(**options(folder, path="name")).samples()
    with pytest.raises(ValidationError, match="name at least one column"):
        dataset(**options(folder, columns={}))
    with pytest.raises(ValueError, match=r"has no \{action\} to take labels from"):
        dataset(**options(folder, columns={"subject": "who"}))

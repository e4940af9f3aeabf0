from __future__ import annotations

from pathlib import Path

import pytest

import kdcore_datasets
from kdcore import Dataset, Modality, Protocol
from kdcore.plugin.option_schema import describe, options_model
from kdcore.plugin.registry import Entry
from kdcore_datasets.sensor_csv.options import Device, Label


def announced(kind: str, plural: str) -> dict[str, Entry]:
    found: dict[str, str] = {}
    getattr(kdcore_datasets, f"register_{plural}")(register=found.__setitem__)
    return {name: Entry(kind, name, "datasets", target) for name, target in found.items()}


DATASETS = announced("dataset", "datasets")
PROTOCOLS = announced("protocol", "protocols")
MODALITIES = announced("modality", "modalities")


@pytest.mark.parametrize("entry", MODALITIES.values(), ids=list(MODALITIES))
def test_modalities_have_the_name_they_are_registered_under(entry: Entry):
    modality = entry.load()
    assert isinstance(modality, Modality)
    assert modality.name == entry.name


@pytest.mark.parametrize("entry", [*DATASETS.values(), *PROTOCOLS.values()], ids=[*DATASETS, *PROTOCOLS])
def test_components_describe_their_options(entry: Entry):
    assert issubclass(entry.load(), Dataset if entry.kind == "dataset" else Protocol)
    description = describe(entry)
    assert description.summary
    for option in description.options:
        assert option.description, f"{option.name} is not described"


REQUIRED = {
    "explicit": {"train_subjects": [1], "test_subjects": ["b"]},
    "leave-one-subject-out": {"test_subject": 3},
    "subject-folds": {"folds": 3, "fold": 1},
    "stratified-subject-folds": {"folds": 3, "fold": 1},
    "held-out-list": {"test": "test.txt"},
    "disjoint-subjects": {"teacher_subjects": [1], "student_subjects": [2, 3], "validation_subjects": ["3"]},
}


@pytest.mark.parametrize("entry", PROTOCOLS.values(), ids=list(PROTOCOLS))
def test_protocols_can_be_made_from_what_recipes_write(entry: Entry):
    options = options_model(entry).model_validate(REQUIRED.get(entry.name, {}))
    values = {name: getattr(options, name) for name in type(options).model_fields}
    assert isinstance(entry.load()(**values), Protocol)


def test_sensor_csv_as_a_recipe_writes_it():
    written = {
        "root": "recordings",
        "devices": {
            "watch": {
                "pattern": "{subject}/{trial}.csv",
                "columns": {"accelerometer": ["x", "y", "z"], "gyroscope": [4, 5, 6]},
                "time_column": "t",
                "time_unit": "ms",
            }
        },
        "label": {"column": "label"},
        "classes": ["walk", "run"],
    }
    options = options_model(DATASETS["sensor-csv"]).model_validate(written)
    values = {name: getattr(options, name) for name in type(options).model_fields}
    assert values["root"] == Path("recordings")
    assert isinstance(values["devices"]["watch"], Device)
    assert values["label"] == Label(column="label")
    made = DATASETS["sensor-csv"].load()(**values)
    assert set(made.modalities) == {"accelerometer-watch", "gyroscope-watch"}
    again = options_model(DATASETS["sensor-csv"]).model_validate_json(options.model_dump_json())
    assert again == options

"""``kdcore data new`` on folders of windows: each set has its own labels, whatever other files hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from kdcore import Builder, DataError, load_recipe
from kdcore_datasets.new.recipe import look, new_recipe

NAMES = ("walk", "sit", "run")


def windows(seed: int, kinds: int = 3) -> dict[str, np.ndarray]:
    """Twelve windows of four subjects, in an order of labels that the seed makes."""
    draw = np.random.default_rng(seed)
    return {
        "X": draw.normal(size=(12, 20, kinds)).astype(np.float32),
        "y": draw.permutation(12) % 3,
        "subject": np.arange(12) // 3 + 4 * seed,
    }


def save_to_disk(folder: Path, columns: dict[str, Any]) -> None:
    """Write a folder as ``datasets.Dataset.save_to_disk`` does, with class labels by number."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.table({name: pa.array(np.asarray(each).tolist()) for name, each in columns.items()})
    with pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": None}
    (folder / "state.json").write_text(json.dumps(state))
    features = {"label": {"names": list(NAMES), "_type": "ClassLabel"}}
    (folder / "dataset_info.json").write_text(json.dumps({"features": features}))


def written(root: Path) -> tuple[dict[str, Any], list[tuple[str, str, int, np.ndarray]]]:
    """The dataset's section that the command writes for a folder, and set, subject, label and window of each sample."""
    target = root.parent / "made.yaml"
    new_recipe(root, target, 50.0)
    dataset = Builder(load_recipe(target)).dataset()
    samples = dataset.samples()
    kind = next(iter(dataset.modalities))
    found = [(each.key.session or "", each.key.subject, each.label or 0, dataset.read(each, kind).values) for each in samples]
    return yaml.safe_load(target.read_text())["data"]["dataset"], found


def check(
    found: list[tuple[str, str, int, np.ndarray]], parts: dict[str, dict[str, np.ndarray]], subjects: bool = True
) -> None:
    """Check that every window has the label and the subject that it was written with."""
    expected = [
        (part, str(who) if subjects else part, int(label), window)
        for part, its in parts.items()
        for window, label, who in zip(its["X"], its["y"], its["subject"], strict=True)
    ]
    assert len(found) == len(expected)
    for part, who, label, window in found:
        [same] = [each for each in expected if np.array_equal(each[3], window)]
        assert same[:3] == (part, who, label)


def test_a_file_for_each_subject(tmp_path: Path):
    parts = {f"subject_{seed}": windows(seed) for seed in range(3)}
    (tmp_path / "raw").mkdir()
    for name, its in parts.items():
        np.savez(tmp_path / "raw" / f"{name}.npz", windows=its["X"], labels=its["y"])
    section, found = written(tmp_path / "raw")
    assert section["sets"]["subject_2"]["labels"] == "subject_2.npz:labels"
    check(found, parts, subjects=False)


def test_arrays_of_two_sets_in_one_file(tmp_path: Path):
    parts = {"train": windows(0), "test": windows(1)}
    (tmp_path / "raw").mkdir()
    np.savez(
        tmp_path / "raw" / "all.npz", **{f"{name}_{part}": each for part, its in parts.items() for name, each in its.items()}
    )
    check(written(tmp_path / "raw")[1], parts)


def test_groups_of_an_hdf5_file(tmp_path: Path):
    h5py = pytest.importorskip("h5py")
    parts = {"test": windows(0), "train": windows(1)}
    (tmp_path / "raw").mkdir()
    with h5py.File(tmp_path / "raw" / "data.h5", "w") as file:
        for part, its in parts.items():
            for name, each in its.items():
                file[f"{part}/{name}"] = each
    check(written(tmp_path / "raw")[1], parts)


def test_arrays_in_files_of_their_own(tmp_path: Path):
    parts = {"alice": windows(0), "bob": windows(1)}
    (tmp_path / "raw").mkdir()
    for part, its in parts.items():
        np.save(tmp_path / "raw" / f"{part}_X.npy", its["X"])
        np.save(tmp_path / "raw" / f"{part}_y.npy", its["y"])
    section, found = written(tmp_path / "raw")
    assert {name: each["labels"] for name, each in section["sets"].items()} == {
        "alice_X": "alice_y.npy",
        "bob_X": "bob_y.npy",
    }
    check(found, {f"{part}_X": its for part, its in parts.items()}, subjects=False)


def test_a_folder_of_hugging_face_datasets(tmp_path: Path):
    its = windows(0)
    save_to_disk(tmp_path / "raw", {"accelerometer": its["X"], "label": its["y"], "subject": its["subject"]})
    section, found = written(tmp_path / "raw")
    assert section["sets"] == {
        "all": {"signals": {"accelerometer": [".:accelerometer"]}, "labels": ".:label", "subjects": ".:subject"}
    }
    order = sorted(NAMES)
    check(found, {"all": {**its, "y": np.array([order.index(NAMES[each]) for each in its["y"]])}})


def test_a_folder_with_splits_of_hugging_face_datasets(tmp_path: Path):
    for part, seed in (("train", 0), ("test", 1)):
        its = windows(seed)
        save_to_disk(tmp_path / "raw" / part, {"accelerometer": its["X"], "gyroscope": its["X"] + 9, "label": its["y"]})
    (tmp_path / "raw" / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    guess = look(tmp_path / "raw", 50.0)
    assert guess.dataset["sets"]["test"] == {
        "signals": {"accelerometer": ["test:accelerometer"], "gyroscope": ["test:gyroscope"]},
        "labels": "test:label",
    }
    assert (guess.protocol, guess.missing) == ("cross-session", [])
    section, found = written(tmp_path / "raw")
    assert section["axes"] == "windows-time-channels"
    assert len(found) == 24


@pytest.mark.parametrize("names", [("ax", "ay", "az"), ("x", "y", "z"), ("acc_x", "acc_y", "acc_z")])
def test_columns_of_lists_in_parquet(tmp_path: Path, names: tuple[str, ...]):
    its = windows(0)
    axes = {name: its["X"][:, :, number].tolist() for number, name in enumerate(names)}
    (tmp_path / "raw").mkdir()
    pq.write_table(pa.table({**axes, "label": its["y"], "subject": its["subject"]}), tmp_path / "raw" / "train.parquet")
    section, found = written(tmp_path / "raw")
    assert section["sets"]["train"]["signals"] == {"accelerometer": [f"train.parquet:{name}" for name in names]}
    check(found, {"train": its})


def test_labels_that_could_be_in_several_arrays_are_left_to_fill_in(tmp_path: Path):
    its = windows(0)
    (tmp_path / "raw").mkdir()
    np.savez(tmp_path / "raw" / "train.npz", X=its["X"], y=its["y"], activity=its["y"][::-1])
    guess = look(tmp_path / "raw", 50.0)
    assert guess.dataset["sets"]["train"]["labels"] is None
    [missing] = guess.missing
    assert missing.endswith("with a label for each window; train.npz:y or train.npz:activity")


def test_arrays_that_cannot_be_read_are_left_out(tmp_path: Path):
    its = windows(0)
    save_to_disk(tmp_path / "raw" / "good", {"accelerometer": its["X"], "label": its["y"]})
    save_to_disk(tmp_path / "raw" / "bad", {"accelerometer": its["X"], "label": its["y"]})
    (tmp_path / "raw" / "bad" / "state.json").write_text(json.dumps({"_data_files": [{"filename": "../good/data.arrow"}]}))
    (tmp_path / "raw" / "bad.parquet").write_bytes(b"PAR1")
    assert list(look(tmp_path / "raw", 50.0).dataset["sets"]) == ["good"]


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("gravity", "turning", "units"), [(1.0, 100, ["g", "deg/s"]), (9.81, 3, []), (1000.0, 3, ["mg"])])
def test_units_are_guessed_from_the_size_of_values(
    tmp_path: Path, gravity: float, turning: float, units: list[str], turned: bool
):
    draw = np.random.default_rng(0)
    acceleration = draw.normal([0, 0, gravity], 0.05 * gravity, (12, 50, 3))
    X = np.concatenate([acceleration, draw.normal(0, turning / 3, (12, 50, 3))], axis=2)
    (tmp_path / "raw").mkdir()
    np.savez(tmp_path / "raw" / "train.npz", X=X.transpose(0, 2, 1) if turned else X, y=np.arange(12) % 2)
    guess = look(tmp_path / "raw", 50.0)
    assert guess.dataset["axes"] == ("windows-channels-time" if turned else "windows-time-channels")
    assert guess.dataset.get("units", {}) == dict(zip(("accelerometer", "gyroscope"), units, strict=False))


def test_normalised_windows_have_no_known_unit(tmp_path: Path):
    its = windows(0)
    (tmp_path / "raw").mkdir()
    np.savez(tmp_path / "raw" / "train.npz", X=its["X"], y=its["y"])
    guess = look(tmp_path / "raw", 50.0)
    assert "units" not in guess.dataset
    assert any("its unit is not known; m/s^2 is assumed" in note for note in guess.notes)


def test_hugging_face_rows_of_time_steps_are_refused_with_advice(tmp_path: Path):
    save_to_disk(tmp_path / "raw", {"ax": np.arange(9.0), "ay": np.arange(9.0), "label": np.arange(9) % 2})
    with pytest.raises(DataError, match=r"needs a window, a list of values, in each row; .* a Parquet file for each recording"):
        look(tmp_path / "raw")

"""A look at recordings before anything is trained on them."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from runs import typed

from kdcore.errors import DataError, RecipeError
from kdcore.runs.run import dry_run
from kdcore_inspect.data_check import check

ENCODER = {"name": "cnn1d", "width": 8}
BOTH = [{"name": "resample", "length": 16}]


@pytest.fixture
def recordings(tmp_path, monkeypatch):
    """A recipe for a watch's recordings: two people, walking and standing, two seconds at 20 Hz each."""
    monkeypatch.setenv("KDCORE_CACHE", str(tmp_path / "cache"))
    for person in (1, 2):
        for action in ("walk", "stand"):
            noise = np.random.default_rng(person * 2 + (action == "walk")).normal((0, 0, 9.8, 0, 0, 0), size=(41, 6))
            rows = [",".join(f"{value:.4f}" for value in (step / 20, *noise[step])) for step in range(41)]
            (tmp_path / f"s{person}_{action}.csv").write_text("\n".join(["t,ax,ay,az,gx,gy,gz", *rows]))
    columns = {"accelerometer": ["ax", "ay", "az"], "gyroscope": ["gx", "gy", "gz"]}
    watch = {"pattern": "s{subject}_{action}.csv", "columns": columns, "time_column": "t", "placement": "left-wrist"}
    recipe = {
        "version": 1,
        "name": "watch",
        "data": {
            "dataset": {"name": "sensor-csv", "root": str(tmp_path), "devices": {"watch": watch}},
            "protocol": {"name": "cross-subject", "train_subjects": [1], "test_subjects": [2]},
            "batch_size": 2,
        },
        "teachers": {"gyro": {"modality": "gyroscope-watch", "transforms": BOTH, "encoder": ENCODER}},
        "student": {"modality": "accelerometer-watch", "transforms": BOTH, "encoder": ENCODER},
        "losses": ["cross-entropy", "soft-target"],
        "schedule": {"name": "two-stage", "teachers": {"epochs": 1}, "student": {"epochs": 1}},
        "engine": {"accelerator": "cpu"},
    }
    (tmp_path / "watch.yaml").write_text(yaml.safe_dump(recipe))
    return tmp_path


def test_windows_are_counted_and_recordings_too_short_for_one_are_named(recordings):
    assert check(recordings / "watch.yaml").windows is None
    found = check(recordings / "watch.yaml", ["data.window={length: 1, hop: 0.5}"])
    assert found.windows == {"train": 6, "test": 6}
    assert (found.short, found.windowless) == ([], []), "that nothing validates is no fault"
    found = check(recordings / "watch.yaml", ["data.window={length: 5}"])
    assert found.windows == {"train": 0, "test": 0}
    assert found.windowless == ["train", "test"]
    assert len(found.short) == 4
    assert found.short[0].endswith(": 2.05 s")


def test_classes_without_windows_are_named(recordings):
    """The standing recording of each person is cut to half a second."""
    for person in (1, 2):
        file = recordings / f"s{person}_stand.csv"
        file.write_text("\n".join(file.read_text().splitlines()[:11]))
    words = ["data.window={length: 1}"]
    assert check(recordings / "watch.yaml", words).warnings == ["classes of which every recording is dropped: 'stand'"]
    words += ["data.dataset.classes=[walk, stand]"]
    file = recordings / "s1_walk.csv"
    file.write_text("\n".join(file.read_text().splitlines()[:11]))
    assert check(recordings / "watch.yaml", words).warnings == [
        "3 of 4 recordings are shorter than a window; choose a smaller data.window.length",
        "classes of which every recording is dropped: 'stand'",
        "classes tested without training samples: 'walk' (1 test samples)",
    ]


def test_shares_left_out_are_those_of_a_run(recordings):
    """As many signals as a run leaves out, the same samples dropped, and the test split whole."""
    words = ["data.missing_shares={accelerometer-watch: 0.5}", "data.missing=mask"]
    found = check(recordings / "watch.yaml", words)
    assert +found.splits == {"train": 1, "test": 2}
    assert found.left_out == ["accelerometer-watch: left out of 1 training samples (50 %, at random, seed 0)"]
    [line] = found.dropped.lines()
    assert "no accelerometer-watch, left out" in line
    kept = check(recordings / "watch.yaml", ["data.missing_shares={gyroscope-watch: 0.5}", "data.missing=mask"])
    assert +kept.splits == {"train": 2, "test": 2}
    assert kept.left_out
    with pytest.raises(DataError, match=r"data\.missing_shares: the recipe does not use 'rgb'"):
        check(recordings / "watch.yaml", ["data.missing_shares={rgb: 0.5}"])


def test_examples_are_the_first_training_recordings_of_every_class(recordings):
    assert check(recordings / "watch.yaml").examples == {}
    found = check(recordings / "watch.yaml", examples=True)
    assert set(found.examples) == set(found.modalities) == {"accelerometer-watch", "gyroscope-watch"}
    for shown in found.examples.values():
        assert {name: (key.subject, key.action) for name, (key, _) in shown.items()} == {
            "walk": ("1", "walk"), "stand": ("1", "stand"),
        }  # fmt: skip
        assert all(len(signal) == 41 for _, signal in shown.values())


def test_a_file_that_two_modalities_come_from_is_broken_once(recordings):
    (recordings / "s1_walk.csv").write_text("t,ax,ay,az,gx,gy,gz\n0,1,2\n")
    [broken] = check(recordings / "watch.yaml").broken
    assert "s1_walk.csv" in broken


def test_a_link_to_nothing_is_one_bad_sample_among_others(recordings):
    (recordings / "s1_walk.csv").unlink()
    (recordings / "s1_walk.csv").symlink_to("nowhere.csv")
    for person in (1, 2):
        rows = [f"{step / 20},{person},{step},9.8,0,{person},{step}" for step in range(41)]
        (recordings / f"s{person}_run.csv").write_text("\n".join(["t,ax,ay,az,gx,gy,gz", *rows]))
    assert [("s1_walk.csv" in line) for line in check(recordings / "watch.yaml").broken] == [True]
    assert dry_run(recordings / "watch.yaml", ["data.on_bad_sample=skip"])


@pytest.mark.parametrize("look", [check, dry_run])
def test_recordings_that_are_not_there_are_a_problem_of_the_recipes_line(look, recordings):
    where = rf"watch\.yaml:\d+: data.dataset: {recordings / 'nowhere'}: no such folder"
    with pytest.raises(RecipeError, match=where):
        look(recordings / "watch.yaml", [f"data.dataset.root={recordings / 'nowhere'}"])


@pytest.mark.parametrize("look", [check, dry_run])
def test_a_split_that_cannot_be_made_is_a_problem_of_the_recipes_line(look, recordings):
    with pytest.raises(RecipeError, match=r"watch\.yaml:\d+: data.protocol: .*9"):
        look(recordings / "watch.yaml", ["data.protocol.test_subjects=[9]"])


def test_copies_other_units_and_constant_signals_are_said(recordings):
    walk = (recordings / "s1_walk.csv").read_text()
    (recordings / "s2_walk.csv").write_text(walk)
    found = check(recordings / "watch.yaml")
    assert [line.startswith("the ") and line.endswith("is the same, value by value") for line in found.leaks] == [True, True]
    header, *rows = (recordings / "s2_stand.csv").read_text().splitlines()
    cells = [row.split(",") for row in rows]
    for person in (1, 3):
        noisy = [[row[0], *(str(float(cell) + 0.2 * person * (n % 7)) for cell in row[1:])] for n, row in enumerate(cells)]
        (recordings / f"s{person}_run.csv").write_text("\n".join([header, *map(",".join, noisy)]))
    in_g = [[row[0], *(str(float(cell) / 9.80665) for cell in row[1:4]), "1", "1", "1"] for row in cells]
    (recordings / "s2_walk.csv").write_text("\n".join([header, *map(",".join, in_g)]))
    (recordings / "s2_stand.csv").write_text("\n".join([header, *map(",".join, in_g[::-1])]))
    found = check(recordings / "watch.yaml", ["data.protocol.test_subjects=[2,3]"])
    assert found.leaks == []
    assert found.ranges["accelerometer-watch"].keys() == {"1", "2", "3"}
    assert any("subject 2 measures" in line and "suggests m/s^2 against g" in line for line in found.odd)
    assert any(line.startswith("gyroscope-watch: 1 constant: subject 2, action walk") for line in found.odd)
    assert found.dropped.counts == {"bad recording": 1}  # its time runs backwards
    assert sum(found.splits.values()) == 5
    assert "stand" in found.warnings[0]


def test_where_all_recordings_are_bad_a_run_says_why(recordings):
    for file in recordings.glob("*.csv"):
        file.write_text(file.read_text().replace("9.", "nine."))
    with pytest.raises(DataError, match=r"bad samples: 4 .*\n.*'nine\."):
        dry_run(str(recordings / "watch.yaml"))


@pytest.mark.parametrize("fault", ["damaged", "leaking"])
def test_the_exit_status_tells_faulty_recordings_from_a_check_that_could_not_be_made(recordings, fault):
    assert typed("data", "check", "watch.yaml", folder=recordings).returncode == 0
    assert typed("data", "check", "watch.yaml", "data.dataset.root=nowhere", folder=recordings).returncode == 2
    text = {"damaged": "t,ax,ay,az,gx,gy,gz\n0,a,b,c,d,e,f\n", "leaking": (recordings / "s1_walk.csv").read_text()}
    (recordings / "s2_walk.csv").write_text(text[fault])
    assert typed("data", "check", "watch.yaml", folder=recordings).returncode == 1
    assert typed("run", "watch.yaml", "--dry-run", folder=recordings).returncode == 2

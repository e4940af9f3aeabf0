"""Samples are read once, and prepared alike in this process and in others."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import warnings
from dataclasses import astuple, replace

import numpy as np
import pytest
import toys

from kdcore.data import reading_processes
from kdcore.data.pipeline import Pipeline
from kdcore.data.reading import Reader
from kdcore.data.reading_processes import Workers, prepared
from kdcore.data.windows import Cutting, WindowError
from kdcore.errors import DataError


class Odd(toys.Files):
    """Warns of a recording; another one ends the process that reads it, unless it is the one that made the dataset."""

    def __init__(self, root):
        super().__init__(root)
        self.home = os.getpid()

    def read(self, sample, modality):
        if sample.key.subject == "s1":
            warnings.warn(f"{sample.key} is odd", UserWarning, stacklevel=2)
        if (sample.key.subject, sample.key.trial) == ("s3", "t1") and os.getpid() != self.home:
            os._exit(1)
        return super().read(sample, modality)


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "recordings"
    folder.mkdir()
    toys.write(folder, trials=4)
    (folder / "wrist-s0-a0-t1.npy").write_bytes(b"nothing")
    np.save(folder / "ankle-s2-a0-t0.npy", np.full((20, 3), np.nan))
    return folder


def reader_of(dataset, cutting=None):
    return Reader(dataset, [toys.branch(), toys.branch(toys.ANKLE, 3.0)], cutting)


def tasks_of(dataset):
    """Every other sample is wanted by one branch only."""
    return [(sample, [0, 1] if number % 2 else [1]) for number, sample in enumerate(dataset.samples())]


def plain(recordings):
    return [
        [([(each.dtype, each.shape, each.tobytes()) for each in one.pieces], astuple(one)[1:]) for one in wanted]
        for wanted in recordings
    ]


def wait_for(condition):
    until = time.monotonic() + 100
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.fixture
def started():
    """Starts processes, and ends them."""
    made = []

    def start(reader, count=1):
        made.append(Workers.start(reader, count))
        assert made[-1]
        wait_for(lambda: made[-1].ready)
        return made[-1]

    yield start
    for each in made:
        each.close()
        assert all(process.returncode is not None for process in each._processes)


@pytest.mark.parametrize("cutting", [None, Cutting(0.5, 0.25, ("ankle", "wrist"))])
def test_other_processes_prepare_the_same(files, started, cutting):
    dataset = toys.Files(files)
    reader, tasks = reader_of(dataset, cutting), tasks_of(dataset)
    here = plain(map(reader.prepare, *zip(*tasks, strict=True)))
    dataset.reads.clear()
    assert plain(started(reader).prepared(tasks, 3)) == here
    assert not dataset.reads
    assert sum(bool(bad) for each in here for _, (bad, *_) in each) == 2 if cutting is None else 3


def test_what_a_process_cannot_prepare_is_prepared_here(files, started):
    dataset = Odd(files)
    reader, tasks = reader_of(dataset), tasks_of(dataset)
    with pytest.warns(UserWarning, match="is odd"):
        here = plain(map(reader.prepare, *zip(*tasks, strict=True)))
    with pytest.warns(UserWarning, match="is odd") as caught:
        assert plain(started(reader, 2).prepared(tasks, 2)) == here  # both processes die of s3
    assert {str(each.message) for each in caught} == {
        f"{sample.key} is odd" for sample, _ in tasks if sample.key.subject == "s1"
    }


def test_an_error_of_the_recipe_is_raised_here(files, started):
    dataset = toys.Files(files)
    reader, tasks = reader_of(dataset, Cutting(0.01, 0.01, ("ankle", "wrist"))), tasks_of(dataset)
    with pytest.raises(WindowError, match=r"data\.window\.length is 0\.01 s"):
        list(started(reader).prepared(tasks, 4))


def test_a_dataset_that_no_other_process_can_make_is_read_here(files):
    class Local(toys.Files):
        pass

    assert Workers.start(reader_of(Local(files)), 2) is None


class Repeating(toys.Files):
    """Gives the same warning from the same line for every value of a recording."""

    def read(self, sample, modality):
        for _ in range(50):
            warnings.warn("this call is deprecated", DeprecationWarning, stacklevel=1)
        return super().read(sample, modality)


def test_a_repeated_warning_of_a_process_is_passed_on_once(files):
    dataset = Repeating(files)
    recordings, caught = reading_processes._prepare_all(reader_of(dataset), tasks_of(dataset)[:2])
    assert len(recordings) == 2
    assert caught == [("this call is deprecated", DeprecationWarning)]


def test_long_reading_goes_on_in_other_processes(files, tmp_path, monkeypatch):
    alone = toys.table(toys.Files(files), {"student": Pipeline([toys.branch()])}, tmp_path / "one", on_bad_sample="skip")
    monkeypatch.setenv(reading_processes.VARIABLE, "2")
    monkeypatch.setattr(reading_processes, "TRIAL", 0.0)
    monkeypatch.setattr(reading_processes, "WORTH", 0.0)
    real = Workers.start.__func__

    def start(cls, reader, count):
        made = real(cls, reader, count)
        wait_for(lambda: made.ready)
        return made

    monkeypatch.setattr(Workers, "start", classmethod(start))
    dataset = toys.Files(files)
    reader = reader_of(dataset)
    together = list(prepared(reader, tasks_of(dataset)))
    assert sum(dataset.reads.values()) == 1  # the first sample, by one branch
    monkeypatch.setenv(reading_processes.VARIABLE, "1")
    assert plain(together) == plain(prepared(reader, tasks_of(dataset)))
    monkeypatch.setenv(reading_processes.VARIABLE, "2")
    spread = toys.table(toys.Files(files), {"student": Pipeline([toys.branch()])}, tmp_path / "two", on_bad_sample="skip")
    assert spread.inputs["student"][0].equal(alone.inputs["student"][0])
    assert spread.dropped.counts == alone.dropped.counts == {"bad recording": 1}


def test_processes_that_read_load_no_torch():
    modules = (
        "kdcore.data.reading_processes kdcore_datasets.synthetic.dataset kdcore_datasets.utd_mhad kdcore_datasets.ntu_rgbd "
    )
    modules += "kdcore_datasets.ntu_rgbd kdcore_signals.lengths kdcore_video.clip kdcore_video.flow"
    code = "import sys, importlib\nfor name in sys.argv[1:]:\n    importlib.import_module(name)\nprint('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code, *modules.split()], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"


@pytest.mark.parametrize("asked", ["none", "0", "-1", "2.5"])
def test_a_wrong_number_of_processes_is_named(files, monkeypatch, asked):
    monkeypatch.setenv(reading_processes.VARIABLE, asked)
    with pytest.raises(DataError, match=f"KDCORE_WORKERS='{asked}': must be a positive integer"):
        list(prepared(reader_of(toys.Files(files)), []))


def test_windows_and_branches_share_one_reading_of_a_signal(files):
    dataset = toys.Files(files)
    reader = Reader(
        dataset, [toys.branch(), toys.branch(factor=2.0), toys.branch(toys.ANKLE)], Cutting(0.5, 0.5, ("ankle", "wrist"))
    )
    sample = dataset.samples()[0]
    once, twice, ankle = reader.prepare(sample, [0, 1, 2])
    assert dataset.reads == {"wrist": 1, "ankle": 1}
    assert len(once.pieces) == len(ankle.pieces) == 2
    np.testing.assert_array_equal(twice.pieces[1], 2 * once.pieces[1])


@pytest.mark.parametrize("rate", [0.0, -5.0, float("nan"), float("inf")])
def test_a_recording_whose_rate_is_not_positive_is_bad(tmp_path, rate):
    (tmp_path / "recordings").mkdir()

    class Unrated(toys.Files):
        def read(self, sample, modality):
            return replace(super().read(sample, modality), rate=rate)

    with pytest.raises(DataError, match="samples per second; it must have more than 0"):
        toys.table(Unrated(toys.write(tmp_path / "recordings")), {"student": Pipeline([toys.branch()])}, tmp_path / "cache")

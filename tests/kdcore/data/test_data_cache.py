"""Columns are read once, kept under the identity of all that made them, and joined by key."""

from __future__ import annotations

import importlib
import importlib.util
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
import toys

from kdcore import Signal
from kdcore.data.branch import Branch
from kdcore.data.data_cache import columns_in, damaged_columns
from kdcore.data.pipeline import Pipeline
from kdcore.data.reading import as_array
from kdcore.data.windows import WindowError, cut, windows
from kdcore.errors import DataError


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "recordings"
    folder.mkdir()
    return toys.write(folder)


def wrist(factor=1.0):
    return {"student": Pipeline([toys.branch(factor=factor)])}


def expected(files, left_out=()):
    """Every wrist recording in the order of subject, action and trial, as (channel, time)."""
    paths = [path for number, path in enumerate(sorted(files.glob("wrist-*.npy"))) if number not in left_out]
    return np.stack([np.load(path).T for path in paths]).astype(np.float32)


def test_a_column_is_read_once(files, tmp_path):
    for reads in (16, 0):
        dataset = toys.Files(files)
        table = toys.table(dataset, wrist(), tmp_path / "cache")
        assert dataset.reads["wrist"] == reads
        np.testing.assert_array_equal(table.inputs["student"][0], expected(files))


def test_participants_with_equal_transforms_share_a_reading(files, tmp_path):
    dataset = toys.Files(files)
    toys.table(dataset, {name: Pipeline([toys.branch()]) for name in ("teacher", "student")}, tmp_path / "cache")
    assert dataset.reads["wrist"] == 16


@pytest.mark.parametrize(
    "change", ["option of a transform", "content", "option of the dataset", "classes", "version", "window"]
)
def test_what_changes_a_column_has_it_read_again(files, tmp_path, change):
    toys.table(toys.Files(files), wrist(), tmp_path / "cache")
    dataset, options, factor = toys.Files(files), {}, 1.0
    if change == "option of a transform":
        factor = 3.0
    elif change == "content":
        np.save(files / "wrist-s1-a1-t0.npy", np.ones((10, 2)))
    elif change == "option of the dataset":
        options["dataset"] = {"name": "files", "units": "g"}
    elif change == "classes":
        dataset.classes = dataset.classes[::-1]
    elif change == "version":
        dataset.version = "2"
    elif change == "window":
        options["window"] = {"length": 0.5}
    table = toys.table(dataset, wrist(factor), tmp_path / "cache", **options)
    assert dataset.reads["wrist"] >= 16
    if change == "content":
        assert (table.inputs["student"][0][5 + 1] == 1).all()  # s1, a1, t0 is the seventh sample
    elif change != "window":
        np.testing.assert_allclose(table.inputs["student"][0], expected(files) * factor, rtol=1e-6)


def test_a_moved_dataset_is_not_read_again(files, tmp_path):
    toys.table(toys.Files(files), wrist(), tmp_path / "cache", dataset={"name": "files", "root": str(files)})
    moved = files.rename(tmp_path / "elsewhere")
    dataset = toys.Files(moved)
    toys.table(dataset, wrist(), tmp_path / "cache", dataset={"name": "files", "root": str(moved)})
    assert not dataset.reads


def test_an_edited_transform_is_not_served_from_before(files, tmp_path, monkeypatch):
    source = tmp_path / "edited.py"
    code = (
        "from kdcore import SampleTransform\n"
        "class Edited(SampleTransform):\n"
        "    def __call__(self, signal):\n"
        "        return signal.with_values({})\n"
    )
    found = []
    for expression in ("signal.values", "signal.values * 5.0"):
        source.write_text(code.format(expression))
        made = importlib.util.spec_from_file_location("edited", source)
        module = importlib.util.module_from_spec(made)
        monkeypatch.setitem(sys.modules, "edited", module)
        made.loader.exec_module(module)
        pipeline = Pipeline([Branch(toys.WRIST, [module.Edited()], [], "[]")])
        found.append(toys.table(toys.Files(files), {"student": pipeline}, tmp_path / "cache").inputs["student"][0])
    np.testing.assert_allclose(found[1], found[0] * 5, rtol=1e-6)


def test_an_edited_helper_of_a_transform_is_not_served_from_before(files, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "helped.py").write_text(
        "from helping import factor\n"
        "from kdcore import SampleTransform\n\n"
        "class Helped(SampleTransform):\n"
        "    def __call__(self, signal):\n"
        "        return signal.with_values(signal.values * factor)\n"
    )
    found = []
    for factor in (1.0, 50.0):
        (tmp_path / "helping.py").write_text(f"factor = {factor}\n")
        for name in ("helped", "helping"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        importlib.invalidate_caches()
        pipeline = Pipeline([Branch(toys.WRIST, [importlib.import_module("helped").Helped()], [], "[]")])
        found.append(toys.table(toys.Files(files), {"student": pipeline}, tmp_path / "cache").inputs["student"][0])
    np.testing.assert_allclose(found[1], found[0] * 50, rtol=1e-6)


def test_data_of_a_class_without_a_source_file_are_not_kept(files, tmp_path, monkeypatch):
    cell = type(sys)("cell_of_a_notebook")
    monkeypatch.setitem(sys.modules, "cell_of_a_notebook", cell)
    kind = type("Typed", (toys.Times,), {"__module__": "cell_of_a_notebook"})
    for factor in (1.0, 5.0):
        pipeline = Pipeline([Branch(toys.WRIST, [kind(factor)], [], "[]")])
        with pytest.warns(UserWarning, match="not cached: the source file of the class 'Typed' is unknown"):
            found = toys.table(toys.Files(files), {"student": pipeline}, tmp_path / "cache").inputs["student"][0]
        np.testing.assert_allclose(found, expected(files) * factor, rtol=1e-6)
    assert not columns_in(tmp_path / "cache")


def test_a_large_column_stays_on_disk_with_the_same_values(files, tmp_path):
    tables = [toys.table(toys.Files(files), wrist(), tmp_path / "cache", memory_limit=limit) for limit in (1 << 30, 100)]
    in_memory, mapped = (table.inputs["student"][0] for table in tables)
    assert torch.equal(in_memory, mapped)
    maps = (tmp_path / "cache").glob("wrist-*/values.bin")
    with open("/proc/self/maps") as lines:
        assert str(next(maps)) in lines.read()
    mapped[0] = 7  # a mapped column is private: what is written to it does not reach the disk
    again = toys.table(toys.Files(files), wrist(), tmp_path / "cache")
    assert torch.equal(again.inputs["student"][0], in_memory)


@pytest.mark.parametrize("loss", ["values.bin", "column.json"])
def test_a_column_cut_short_by_a_crash_is_made_again(files, tmp_path, loss):
    toys.table(toys.Files(files), wrist(), tmp_path / "cache")
    (file,) = (tmp_path / "cache").glob(f"wrist-*/{loss}")
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.warns(UserWarning, match=r"^prepared data in .*wrist-.* are damaged; rebuilding them$"):
        table = toys.table(toys.Files(files), wrist(), tmp_path / "cache")
    np.testing.assert_array_equal(table.inputs["student"][0], expected(files))


def damage(files):
    (files / "wrist-s0-a0-t1.npy").write_bytes(b"nothing")
    np.save(files / "wrist-s1-a0-t0.npy", np.full((10, 2), np.nan))
    np.save(files / "wrist-s3-a1-t1.npy", np.zeros((0, 2)))


def test_bad_samples_are_an_error_that_lists_them_all(files, tmp_path):
    damage(files)
    with pytest.raises(DataError) as error:
        toys.table(toys.Files(files), wrist(), tmp_path / "cache")
    for text in ("bad samples: 3", "wrist-s0-a0-t1.npy: damaged", "s1", "not finite", "empty", "on_bad_sample: skip"):
        assert text in str(error.value)


def test_bad_samples_are_skipped_and_noted(files, tmp_path):
    damage(files)
    for _ in range(2):  # read, then from the cache
        table = toys.table(toys.Files(files), wrist(), tmp_path / "cache", on_bad_sample="skip")
        assert len(table.keys) == 13
        assert table.dropped.counts == {"bad recording": 3}
        assert [(each.subject, each.split) for each in table.dropped] == [("s0", "train"), ("s1", "train"), ("s3", "test")]
        assert "damaged" in table.dropped.entries[0].detail
        assert {split: len(rows) for split, rows in table.rows.items()} == {"train": 6, "validation": 4, "test": 3}
        np.testing.assert_array_equal(table.inputs["student"][0], expected(files, left_out={1, 4, 15}))


def test_unequal_shapes_are_named_with_a_remedy(files, tmp_path):
    np.save(files / "wrist-s1-a0-t0.npy", np.zeros((9, 2)))
    with pytest.raises(DataError, match=r"samples differ in shape .*\(2, 10\).*\(2, 9\).*resample"):
        toys.table(toys.Files(files), wrist(), tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.part"))


def both(dataset, cache, **options):
    pipelines = {"teacher": Pipeline([toys.branch(toys.ANKLE)]), "student": Pipeline([toys.branch()])}
    return toys.table(dataset, pipelines, cache, **options)


class Shuffled(toys.Files):
    """Lists samples backwards, and each one's modalities in another order."""

    def samples(self):
        found = super().samples()[::-1]
        return [
            type(s)(s.key, s.label, dict(sorted(s.sources.items(), reverse=number % 2 > 0))) for number, s in enumerate(found)
        ]


def test_modalities_are_joined_by_key(files, tmp_path):
    table = both(Shuffled(files), tmp_path / "cache")
    assert [table.keys[row].subject for row in (0, -1)] == ["s3", "s0"]
    for row, key in enumerate(table.keys):
        for name, modality in (("student", "wrist"), ("teacher", "ankle")):
            recorded = np.load(files / f"{modality}-{key.subject}-{key.action}-{key.trial}.npy")
            np.testing.assert_array_equal(table.inputs[name][0][row], recorded.T.astype(np.float32))
        assert table.labels[row] == int(key.action[1:])


def test_samples_without_a_modality_are_dropped_or_an_error(files, tmp_path):
    (files / "ankle-s0-a0-t0.npy").unlink()
    (files / "wrist-s3-a0-t1.npy").unlink()
    (files / "ankle-s1-a1-t0.npy").write_bytes(b"")
    table = both(toys.Files(files), tmp_path / "cache", on_bad_sample="skip")
    assert len(table.keys) == 13
    assert len(table.inputs["student"][0]) == len(table.inputs["teacher"][0]) == 13
    assert table.dropped.counts == {"no ankle": 1, "no wrist": 1, "bad recording": 1}
    for row, key in enumerate(table.keys):
        recorded = np.load(files / f"ankle-{key.subject}-{key.action}-{key.trial}.npy")
        np.testing.assert_array_equal(table.inputs["teacher"][0][row], recorded.T.astype(np.float32))
    with pytest.raises(DataError, match=r"s0.*no ankle(.|\n)*no wrist"):
        both(toys.Files(files), tmp_path / "cache", missing="error")


def test_windows_are_cut_from_the_time_that_all_modalities_cover_and_never_cross_splits(tmp_path):
    folder = tmp_path / "recordings"
    folder.mkdir()
    toys.write(folder, seconds=3)
    dataset = toys.Files(folder, starts={"wrist": 0.0, "ankle": 0.5})
    table = both(dataset, tmp_path / "cache", window={"length": 1.0, "hop": 0.5})
    assert len(table.keys) == 16 * 4  # 0.5, 1.0, 1.5 and 2.0 s; both are there until 3 s
    for row, key in enumerate(table.keys):
        start = 0.5 + 0.5 * key.window
        for name, modality, rate, begin in (("student", "wrist", 10, 0.0), ("teacher", "ankle", 20, 0.5)):
            recorded = np.load(folder / f"{modality}-{key.subject}-{key.action}-{key.trial}.npy")
            first = round((start - begin) * rate)
            np.testing.assert_array_equal(table.inputs[name][0][row], recorded[first : first + rate].T.astype(np.float32))
    subjects = {split: {table.keys[row].subject for row in rows} for split, rows in table.rows.items()}
    assert subjects == {"train": {"s0", "s1"}, "validation": {"s2"}, "test": {"s3"}}


@pytest.mark.parametrize("rate", [10.0, 30.0, 50.0, 100 / 3])
@pytest.mark.parametrize("start", [0.0, 0.1, 1.7])
def test_rounding_never_costs_a_window_a_sample(rate, start):
    signal = Signal(np.arange(round(20 * rate)), rate, start)
    length, hop = 15 / rate, 3 / rate
    spans = windows([signal], length, hop)
    assert len(spans) == (round(20 * rate) - 15) // 3 + 1
    for number, span in enumerate(spans):
        np.testing.assert_array_equal(cut(signal, span).values, np.arange(3 * number, 3 * number + 15))


def test_a_recording_shorter_than_a_window_has_none():
    signal = Signal(np.zeros((10, 2)), 10.0)
    assert windows([signal], 1.01, 0.5) == []
    assert windows([signal], 1.0, 0.5) == [(0.0, 1.0)]


@pytest.mark.parametrize(("rate", "decimals"), [(60, 4), (60, 3), (30, 3), (50, 2), (12.5, 3)])
@pytest.mark.parametrize("seconds", [2, 5])
def test_rounded_time_stamps_cost_no_window(rate, decimals, seconds):
    times = np.round(7.003 + np.arange(seconds * rate) / rate, decimals)
    step = float(np.diff(times).mean())
    spans = windows([Signal(np.zeros((len(times), 2)), 1 / step, times=times)], 2.0, 1.0)
    assert len(spans) == seconds - 1
    short = Signal(np.zeros((len(times) - 1, 2)), 1 / step, times=times[:-1])
    assert len(windows([short], 2.0, 1.0)) == seconds - 2, "a missing sample does"


def test_windows_without_samples_of_a_modality_are_left_out():
    """A gap from 1 s to 4 s: windows that begin at 1, 2 and 3 s are empty, that at 0.5 s is half full."""
    times = np.r_[np.arange(10) / 10, 4 + np.arange(20) / 10]
    interrupted, regular = Signal(np.zeros((30, 2)), 10.0, times=times), Signal(np.zeros((60, 2)), 10.0)
    starts = [start for start, _ in windows([regular, interrupted], 1.0, 0.5)]
    assert starts == [0.0, 0.5, 3.5, 4.0, 4.5, 5.0]
    assert all(len(cut(interrupted, (start, start + 1))) for start in starts)
    assert len(windows([regular], 1.0, 0.5)) == 11


@pytest.mark.parametrize(
    ("length", "hop", "said"),
    [(1e-9, None, r"length is 1e-09 s, shorter than one sample of a signal at 10 Hz"), (0.5, 1e-9, r"hop of 1e-09 s cuts a")],
)
def test_windows_without_end_are_refused_at_once_whatever_is_done_about_bad_samples(files, tmp_path, length, hop, said):
    window = {"length": length} | ({"hop": hop} if hop else {})
    for rule in ("error", "skip"):
        with pytest.raises(WindowError, match=f"data.window.{said}"):
            toys.table(toys.Files(files), wrist(), tmp_path / "cache", window=window, on_bad_sample=rule)


def test_recordings_shorter_than_a_window_are_counted(files, tmp_path):
    np.save(files / "wrist-s1-a0-t0.npy", np.random.default_rng(9).normal(size=(4, 2)))
    table = toys.table(toys.Files(files), wrist(), tmp_path / "cache", window={"length": 0.5})
    assert table.dropped.counts == {"shorter than a window": 1}
    assert len(table.keys) == 15 * 2


@pytest.mark.parametrize(
    "content", ["[]", "{}", '{"shape": []}', '{"shape": [1], "keys": [{}], "dtype": "float32"}', "null", "{"]
)
def test_a_damaged_description_of_a_column_is_made_again(files, tmp_path, content):
    toys.table(toys.Files(files), wrist(), tmp_path / "cache")
    (file,) = (tmp_path / "cache").glob("wrist-*/column.json")
    file.write_text(content)
    with pytest.warns(UserWarning, match="rebuilding them"):
        table = toys.table(toys.Files(files), wrist(), tmp_path / "cache")
    np.testing.assert_array_equal(table.inputs["student"][0], expected(files))


def test_what_killed_processes_left_is_removed_at_the_next_start(files, tmp_path):
    cache = tmp_path / "cache"
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    here = socket.gethostname()
    dead, mine = cache / f"wrist-1.{here}~{child.pid}.part", cache / f"wrist-2.{here}~{os.getpid()}.part"
    elsewhere, old = cache / "wrist-3.another~7.part", cache / "wrist-4.another~7.part"
    for folder in (dead, mine, elsewhere, old):
        folder.mkdir(parents=True)
        (folder / "values.bin").write_bytes(b"half")
    os.utime(old, (0, 0))
    toys.table(toys.Files(files), wrist(), cache)
    assert [each.exists() for each in (dead, mine, elsewhere, old)] == [False, True, True, False]


def test_a_flipped_bit_is_found_by_checking(files, tmp_path):
    cache = tmp_path / "cache"
    toys.table(toys.Files(files), wrist(), cache)
    assert damaged_columns(cache) == []
    (file,) = cache.glob("wrist-*/values.bin")
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert damaged_columns(cache) == [file.parent]


def test_the_least_recently_used_columns_make_room(files, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    for factor in (1.0, 2.0):
        toys.table(toys.Files(files), wrist(factor), cache)
    (size,) = {sum(file.stat().st_size for file in path.iterdir()) for path in columns_in(cache)}
    first, second = sorted(columns_in(cache), key=lambda path: path.stat().st_mtime)
    os.utime(first, (2e9, 2e9))  # used after the other one
    monkeypatch.setenv("KDCORE_CACHE_LIMIT", str(int(2.5 * size)))
    toys.table(toys.Files(files), wrist(3.0), cache)
    assert (first.exists(), second.exists(), len(columns_in(cache))) == (True, False, 2)
    monkeypatch.setenv("KDCORE_CACHE_LIMIT", "much")
    with pytest.raises(DataError, match="KDCORE_CACHE_LIMIT: 'much' is not a number of bytes such as '4GiB'"):
        toys.table(toys.Files(files), wrist(4.0), cache)


@pytest.mark.parametrize(
    ("values", "fits"),
    [
        (lambda noise: noise + 1e8, False),
        (lambda noise: noise + 101_325, True),
        (lambda noise: noise, True),
        (lambda noise: 1e8 * noise, True),
        (lambda noise: 0 * noise + 1e8, True),
        (lambda noise: 9.81 + 1e-14 * noise, True),
    ],
    ids=["far offset", "pressure in Pa", "plain", "large", "constant", "rounding of a constant"],
)
def test_what_single_precision_cannot_hold_is_a_bad_sample(values, fits):
    """A signal of deviation 1 about 1e8: neighbours in float32 are 8 apart there."""
    signal = Signal(values(np.random.default_rng(0).normal(size=(50, 2))), 10.0)
    if fits:
        assert as_array(signal, toys.branch()).dtype == np.float32
    else:
        with pytest.raises(ValueError, match=r"wrist signal varies by .* about 1e\+08, less than float32"):
            as_array(signal, toys.branch())

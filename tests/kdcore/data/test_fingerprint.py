"""Fingerprints change with any content that a sample's sources name, and with nothing else."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import toys

from kdcore import Sample, SampleKey
from kdcore.data.fingerprint import Hashes, UnidentifiedError, fingerprint
from kdcore.data.pipeline import Pipeline

KEY = SampleKey("1", "2", "3")


@dataclass(frozen=True)
class Rows:
    path: Path
    first: int


def taken(tmp_path, source, options=None, memory="hashes.json"):
    dataset = toys.Files(tmp_path)
    return fingerprint(dataset, [Sample(KEY, 0, {"wrist": source})], options or {}, Hashes(tmp_path / "memory" / memory))


@pytest.fixture
def file(tmp_path):
    folder = tmp_path / "recordings" / "deep"
    folder.mkdir(parents=True)
    (folder / "a.csv").write_text("1,2,3")
    return folder / "a.csv"


@pytest.mark.parametrize(
    "shape",
    [
        lambda file: file,
        lambda file: str(file),
        lambda file: (file, 3),
        lambda file: [{"at": (0, [file])}],
        lambda file: {file},
        lambda file: Rows(file, 7),
        lambda file: file.parent.parent,
    ],
    ids=["path", "text", "tuple", "nested", "set", "dataclass", "folder above"],
)
def test_changed_content_is_seen_whatever_names_it(tmp_path, file, shape):
    before = taken(tmp_path, shape(file))
    assert taken(tmp_path, shape(file)) == before
    file.write_text("1,2,4")  # same size
    assert taken(tmp_path, shape(file)) != before


def test_text_below_the_root_and_numbers_into_a_file_are_seen_too(tmp_path, file):
    for source, options in (("deep/a.csv", {"root": str(file.parent.parent)}), (7, {"file": str(file)})):
        file.write_text("1,2,3")
        before = taken(tmp_path, source, options)
        file.write_text("1,2,4")
        assert taken(tmp_path, source, options) != before


@pytest.mark.parametrize("options", [lambda f: {"calibration": str(f)}, lambda f: {"devices": {"watch": [f, 1]}}])
def test_a_file_that_an_option_of_the_dataset_names_counts_by_its_content(tmp_path, file, options):
    calibration, found = tmp_path / "calibration.json", []
    for text in ("[1.0]", "[9.8]", "[1.0]"):
        calibration.write_text(text)
        found.append(taken(tmp_path, file, options(calibration)))
    assert found[0] != found[1]
    assert found[0] == found[2]


def test_the_middle_of_a_large_file_counts(tmp_path):
    large = tmp_path / "large.bin"
    content = bytearray(40 << 20)
    large.write_bytes(content)
    before = taken(tmp_path, large)
    content[20 << 20] = 1
    large.write_bytes(content)
    assert taken(tmp_path, large) != before


def test_a_moved_folder_is_the_same_and_other_values_are_not(tmp_path, file):
    sources = [(file, 1), (file, 2), (file, "1"), (file, None), [file, 1], (file, np.arange(3)), (file, np.arange(3.0))]
    prints = [taken(tmp_path, source) for source in sources]
    assert len(set(prints)) == len(prints)
    moved = (tmp_path / "recordings").rename(tmp_path / "elsewhere") / "deep" / "a.csv"
    assert taken(tmp_path, (moved, 1)) == prints[0]


def test_a_source_of_unknown_content_is_not_cached_and_this_is_said(tmp_path):
    with pytest.raises(UnidentifiedError, match=r"subject 1.* its wrist is of the type object"):
        taken(tmp_path, (object(),))
    folder = tmp_path / "recordings"
    folder.mkdir()

    class Odd(toys.Files):
        def samples(self):
            return [type(s)(s.key, s.label, {**s.sources, "odd": object()}) for s in super().samples()]

    for _ in range(2):
        dataset = Odd(toys.write(folder))
        with pytest.warns(UserWarning, match="prepared data are not cached: subject s0"):
            table = toys.table(dataset, {"student": Pipeline([toys.branch()])}, tmp_path / "cache", memory_limit=100)
        assert dataset.reads["wrist"] == 16
        assert float(table.inputs["student"][0].abs().sum()) > 0  # mapped, though the files are gone
        assert not list((tmp_path / "cache").glob("wrist-*"))


def test_an_unchanged_file_is_not_read_again_and_a_fresh_hash_is_not_trusted(tmp_path, file, monkeypatch):
    opened = []
    monkeypatch.setattr("builtins.open", lambda *args, _open=open, **options: opened.append(args[0]) or _open(*args, **options))
    os.utime(file, ns=(10**18, 10**18))
    prints = [taken(tmp_path, file) for _ in range(2)]
    assert prints[0] == prints[1]
    assert opened.count(file) == 1

    stat = file.stat()
    file.write_text("1,2,4")
    os.utime(file, ns=(stat.st_mtime_ns, stat.st_mtime_ns))
    replaced = file.with_name("new")
    replaced.write_text("1,2,5")
    os.utime(replaced, ns=(stat.st_mtime_ns, stat.st_mtime_ns))
    replaced.replace(file)  # same name, size and time, another inode
    assert taken(tmp_path, file) != prints[0]

    file.write_text("1,2,6")  # within the clock's tick, a second write may leave the same stamp
    before = taken(tmp_path, file)
    stamp = file.stat().st_mtime_ns
    file.write_text("1,2,7")
    os.utime(file, ns=(stamp, stamp))
    assert taken(tmp_path, file) != before


@pytest.mark.parametrize("content", ["", "{", "[]", '{"x": 1}'])
def test_a_damaged_memory_counts_as_empty(tmp_path, file, content):
    before = taken(tmp_path, file)
    (tmp_path / "memory").mkdir(exist_ok=True)
    (tmp_path / "memory" / "hashes.json").write_text(content)
    assert taken(tmp_path, file) == before


def test_pipes_and_circular_links_are_passed_over(tmp_path, file):
    os.mkfifo(file.parent / "pipe")
    (file.parent / "circle").symlink_to(file.parent.parent)
    (file.parent / "self").symlink_to("self")
    assert taken(tmp_path, file.parent.parent) == taken(tmp_path, file.parent.parent)

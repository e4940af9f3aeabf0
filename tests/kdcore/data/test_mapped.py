"""Large tensors stay on disk, hold what those in memory hold, and leave the memory of a process alone."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
import toys
from torch import nn

from kdcore import Join
from kdcore.data import mapped
from kdcore.data.pipeline import Pipeline
from kdcore.errors import DataError
from kdcore.training.trained_teachers import _digest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NOTHING, EVERYTHING = 0, 1 << 30


@pytest.fixture
def numbers(tmp_path):
    values = np.random.default_rng(0).standard_normal((50, 3, 700)).astype(np.float32)
    values.tofile(tmp_path / "values.bin")
    return torch.from_numpy(values), mapped.opened(tmp_path / "values.bin", values.shape, values.dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.uint8, torch.int64, torch.bfloat16, torch.bool])
def test_a_tensor_on_disk_holds_what_is_written_to_it(tmp_path, dtype):
    found = mapped.Storage(NOTHING, tmp_path).empty((5, 4), dtype)
    expected = torch.arange(20).view(5, 4).remainder(2).to(dtype)
    found[:] = expected
    assert found.dtype == dtype
    assert torch.equal(found, expected)
    assert not list(tmp_path.iterdir())  # the file has no name, so that nothing is left behind


def test_a_full_disk_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no room for 1000000000\.0 GB of data"):
        mapped.Storage(NOTHING, tmp_path).empty((10**18,), torch.uint8)


@pytest.mark.parametrize("rows", [[7, 3, 3, 49], list(range(5, 30)), [8], list(range(49, -1, -1))])
def test_rows_are_those_of_the_tensor(numbers, tmp_path, rows):
    here, there = numbers
    rows = torch.tensor(rows)
    for limit in (NOTHING, EVERYTHING):
        assert torch.equal(mapped.Storage(limit, tmp_path).rows(there, rows), here[rows])
    mapped.read_ahead(there, rows)
    mapped.read_ahead(here, rows)
    assert torch.equal(there.index_select(0, rows), here[rows])


def test_rows_that_follow_one_another_are_no_copy_and_are_read_ahead(numbers, monkeypatch):
    _, there = numbers
    part = mapped.Storage(NOTHING).rows(there, torch.arange(10, 40))
    assert part.data_ptr() == there[10].data_ptr()
    asked = []

    class File:
        def madvise(self, advice, start, length):
            asked.append((start, length))

        def __len__(self):
            return there.nbytes

    monkeypatch.setitem(mapped._FILES, part, (File(), there.data_ptr()))
    mapped.read_ahead(part, torch.tensor([0, 29]))
    row = 3 * 700 * 4
    for (start, length), number in zip(asked, (10, 39), strict=True):
        assert start % 4096 == 0
        assert start <= number * row
        assert start + length == (number + 1) * row


class Halved(nn.Module):
    """Half of the values, of another type."""

    per_batch = True

    def forward(self, x):
        return x.double() / 2


@pytest.mark.parametrize("joined", [False, True])
def test_what_is_fitted_on_disk_is_fitted_on_the_same_values(tmp_path, joined):
    rng = torch.Generator().manual_seed(0)
    columns = [torch.randn(600, 2, 10, generator=rng) + number for number in range(2 if joined else 1)]
    train = torch.randperm(600, generator=rng)[:400].sort().values
    seen = []
    for limit in (EVERYTHING, 4096):
        centre = toys.Centre()
        branches = [toys.branch(on_batches=[Halved()]) for _ in columns]
        pipeline = Pipeline(branches, [Join(), centre] if joined else [centre])
        done = pipeline.prepare(columns, train, mapped.Storage(limit, tmp_path))
        batch = tuple(part[train[:5]] for part in done)
        seen.append((*centre.seen, pipeline.batch_transforms.eval()(batch if joined else batch[0])))
    expected = torch.cat(columns, 1)[train].double() / 2
    for fitted, batch in seen:
        assert torch.equal(fitted, expected)
        torch.testing.assert_close(batch, expected[:5] - expected.mean())


@pytest.mark.parametrize("made", [lambda: torch.randn(9, 5), lambda: torch.arange(12).view(3, 4).T, lambda: torch.tensor(3.0),
                                  lambda: torch.zeros(0, 4), lambda: torch.ones(3, 1).expand(3, 4)])  # fmt: skip
def test_a_tensor_is_hashed_in_parts_like_a_whole(made, monkeypatch):
    monkeypatch.setattr("kdcore.training.trained_teachers.HASHED", 7)
    tensor = made()
    expected = hashlib.sha256(np.ascontiguousarray(tensor.numpy()).tobytes()).hexdigest()
    assert _digest(tensor) == f"{tensor.dtype}{tuple(tensor.shape)}{expected}"


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_memory_does_not_grow_with_the_size_of_samples(tmp_path):
    """Samples of 2.4 and of 96 kB, one of them bad; with a fitted normalisation and some steps of training."""
    code = """
        import json, sys
        from pathlib import Path
        import larger_than_memory as benchmark
        length, folder = int(sys.argv[1]), Path(sys.argv[2])
        benchmark.LENGTH, benchmark.LIMIT = length, 1 << 20
        before = benchmark.anonymous_memory()
        with benchmark.watched_memory() as peak:
            for start in range(2):
                table, pipeline = benchmark.table_of(benchmark.Generated(1500, length=length, bad=700), folder)
            assert len(table.keys) == 1499
            benchmark.train(table, pipeline, 5, 4)
        print(json.dumps([peak.most - before, table.inputs["student"][0].nbytes]))
    """
    found = []
    for length in (8, 320):
        words = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code), str(length), str(tmp_path / str(length))]
        (tmp_path / str(length)).mkdir()
        done = subprocess.run(words, capture_output=True, text=True, cwd=BENCHMARKS, check=False)
        assert not done.returncode, done.stderr
        found.append(json.loads(done.stdout))
    (small, little), (large, much) = found
    assert much - little > 140e6
    assert large - small < 70e6


def test_a_file_that_cannot_be_created_is_not_called_a_full_disk(tmp_path):
    with pytest.raises(DataError, match=r"cannot create a temporary file of 0\.0 GB in .*missing.*No such file"):
        mapped.Storage(NOTHING, tmp_path / "missing").empty((5,), torch.float32)

"""Memory and speed of data that are larger than memory: prepared, opened again, and trained on for a part of an epoch.

    OMP_NUM_THREADS=1 python tests/benchmarks/larger_than_memory.py --samples 10000 100000 --noise
    OMP_NUM_THREADS=1 python tests/benchmarks/larger_than_memory.py --samples 1000000 --folder /scratch

A sample is a window of 64 instants of 75 numbers in float32, 19.2 kB: a million take 19 GB. Each size is measured in two
processes. The first prepares the data through `load_table`, as a run does, and fits a normalisation. The second opens what is
prepared and trains a linear student on batches in random order, first from the disk, then from the page cache. Memory is the
peak of anonymous memory (``RssAnon``), without mapped files, which the system takes back when it needs room. Recordings are
constant in time, which costs the least to make; with ``--noise`` they are noise, so that the search for copies has all of its
work. The disk's own speed is that of reading the prepared file in order. Other work on the machine slows a training that waits
for the disk more than one that does not, so samples are also counted by CPU seconds of this process, the system's work for it
included.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from kdcore import Dataset, Modality, Sample, SampleKey, Signal
from kdcore.data.branch import Branch
from kdcore.data.pipeline import Pipeline
from kdcore.data.preparation import load_table
from kdcore.data.table import Table
from kdcore.recipe.data_models import DataSpec
from kdcore_datasets.protocols.subjects import CrossSubject
from kdcore_signals.transforms import Normalise

LENGTH, CHANNELS, CLASSES, SUBJECTS = 64, 75, 10, 50
LIMIT = 64 << 20
"""Bytes above which tensors are memory-mapped here, so that small sizes go the way of large ones."""


class Generated(Dataset):
    """A simulation: recordings are computed from their number.

    Args:
        count: Number of samples.
        noise: Noise in place of recordings that are constant in time.
        length: Instants of a recording.
        bad: Number of a sample that cannot be read; none by default.
    """

    classes = tuple(map(str, range(CLASSES)))

    def __init__(self, count: int, noise: bool = False, length: int = LENGTH, bad: int = -1):
        self.modalities = {"pose": Modality("pose", ("time", "channel"), ("channel", "time"), "", rate=30.0)}
        self.count, self.noise, self.length, self.bad = count, noise, length, bad

    def samples(self) -> Sequence[Sample]:
        """All samples."""
        return [
            Sample(SampleKey(str(number % SUBJECTS), str(number % CLASSES), str(number)), number % CLASSES, {"pose": number})
            for number in range(self.count)
        ]

    def read(self, sample: Sample, modality: str) -> Signal:
        """Numbers around the sample's class.

        Raises:
            ValueError: If it is the bad sample.
        """
        if sample.sources[modality] == self.bad:
            raise ValueError("it is bad")
        rng = np.random.default_rng(int(str(sample.sources[modality])))
        rows = self.length if self.noise else 1
        values = rng.standard_normal((rows, CHANNELS), dtype=np.float32) + np.float32(sample.label or 0)
        return Signal(np.broadcast_to(values, (self.length, CHANNELS)), 30.0)


@dataclass
class Peak:
    """The most anonymous memory that this process had while it was watched, in bytes."""

    most: int = 0


@contextmanager
def watched_memory() -> Iterator[Peak]:
    """Watch the anonymous memory of this process from a thread."""
    peak, done = Peak(), threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            peak.most = max(peak.most, anonymous_memory())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()
        peak.most = max(peak.most, anonymous_memory())


def anonymous_memory() -> int:
    """Bytes of this process's memory that belong to no file."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10
    raise OSError("this system does not say RssAnon in /proc/self/status")


def table_of(dataset: Dataset, folder: Path, fitted: bool = True) -> tuple[Table, Pipeline]:
    """The data as a run prepares them, with statistics of the training split for normalisation."""
    pipeline = Pipeline([Branch(dataset.modalities["pose"], on_batches=[Normalise()] if fitted else [])])
    spec = DataSpec.model_validate({"dataset": "generated", "protocol": "cross-subject", "on_bad_sample": "skip"})
    return load_table(dataset, CrossSubject(), spec, {"student": pipeline}, folder, LIMIT), pipeline


def train(table: Table, pipeline: Pipeline, steps: int, batch: int) -> tuple[float, float]:
    """Train a linear student for some steps of an epoch; returns wall and CPU seconds."""
    torch.manual_seed(0)
    student = torch.nn.Linear(LENGTH * CHANNELS, CLASSES)
    optimizer = torch.optim.SGD(student.parameters(), 0.001)
    order = table.epoch_order(table.training_rows("train"), 0)[: (steps + 1) * batch]
    began = clock = 0.0
    batches = order.split(batch)
    for number, rows in enumerate(batches):
        if number == 1:  # after libraries have loaded what a first step needs
            began, clock = time.perf_counter(), time.process_time()
        table.read_ahead(batches[number + 1 : number + 2], ["student"])
        found = table.batch(rows, ["student"])
        assert found.labels is not None
        logits = student(pipeline.batch_transforms.train()(found.signals["student"]).flatten(1))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, found.labels).backward()
        optimizer.step()
    return time.perf_counter() - began, time.process_time() - clock


def forget(path: Path) -> None:
    """Ask the system to drop a file from the page cache, so that it is read from the disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def speed_of_disk(path: Path, most: int = 1 << 30) -> float:
    """Bytes a second of reading the first part of a file in order, from the disk."""
    forget(path)
    began, size = time.perf_counter(), 0
    with open(path, "rb", buffering=0) as file:
        while size < most and (part := file.read(8 << 20)):
            size += len(part)
    seconds = time.perf_counter() - began
    forget(path)
    return size / seconds


def measure(count: int, noise: bool, folder: Path, steps: int, batch: int) -> None:
    """Print what one process measured, as JSON: it prepares the data if the folder is empty, else it trains."""
    kept = [*folder.glob("pose-*/values.bin")]
    found = {"disk": speed_of_disk(kept[0])} if kept else {}
    before, clock = anonymous_memory(), time.process_time()
    with watched_memory() as peak:
        table, pipeline = table_of(Generated(count, noise), folder, fitted=not kept)
    found |= {"cpu": time.process_time() - clock, "start": peak.most - before}
    if kept:
        steps = min(steps, len(table.rows["train"]) // batch - 1)
        with watched_memory() as peak:
            for kind in ("cold", "warm"):
                found[kind], found[f"{kind} CPU"] = (steps * batch / each for each in train(table, pipeline, steps, batch))
        found["train"] = peak.most - before
    print(json.dumps(found))


def main() -> None:
    """Measure every size, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--noise", action="store_true")
    parser.add_argument("--folder", type=Path, help="where to put the data; by default, where temporary files are")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.inside:
        measure(asked.samples[0], asked.noise, asked.inside, asked.steps, asked.batch)
        return
    size = LENGTH * CHANNELS * 4
    titles = "samples, data MB, first start CPU s, its memory MB, next start CPU s, its memory MB, training memory MB"
    titles += ", disk in order MB/s, training from disk MB/s, training from disk samples/s, from page cache samples/s"
    titles += ", training from disk samples/CPU s, from page cache samples/CPU s"
    print("| " + " | ".join(titles.split(", ")) + " |\n|" + " ---: |" * 13)
    for count in asked.samples:
        with TemporaryDirectory(dir=asked.folder) as folder:
            words = [sys.executable, __file__, "--samples", str(count), "--inside", folder, "--steps", str(asked.steps)]
            words += ["--batch", str(asked.batch), *(["--noise"] if asked.noise else [])]
            first, second = (json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout) for _ in "12")
        cells = [count, count * size / 1e6, first["cpu"], first["start"] / 1e6, second["cpu"], second["start"] / 1e6]
        cells += [second["train"] / 1e6, second["disk"] / 1e6, second["cold"] * size / 1e6, second["cold"], second["warm"]]
        cells += [second["cold CPU"], second["warm CPU"]]
        print("| " + " | ".join(f"{each:.0f}" if each >= 10 else f"{each:.1f}" for each in cells) + " |", flush=True)


if __name__ == "__main__":
    main()

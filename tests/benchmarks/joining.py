"""CPU seconds of a start on prepared data: list, split, fingerprint, audit and join the keys of many samples.

OMP_NUM_THREADS=1 python tests/benchmarks/joining.py --samples 100000
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from kdcore import Dataset, Modality, Sample, SampleKey, Signal
from kdcore.data.branch import Branch
from kdcore.data.pipeline import Pipeline
from kdcore.data.preparation import load_table
from kdcore.recipe.data_models import DataSpec
from kdcore_datasets.protocols.subjects import CrossSubject

SUBJECTS, CLASSES, LENGTH = 50, 20, 8


class Numbers(Dataset):
    """Random recordings of two modalities; a source is its own seed."""

    classes = tuple(map(str, range(CLASSES)))

    def __init__(self, count: int):
        channels = [Modality(name, ("time", "channel"), ("channel", "time"), "") for name in ("teacher", "student")]
        self.modalities = {each.name: each for each in channels}
        self.count = count

    def samples(self) -> Sequence[Sample]:
        """All samples."""
        return [self._sample(number) for number in range(self.count)]

    def _sample(self, number: int) -> Sample:
        subject, action = number % SUBJECTS, number // SUBJECTS % CLASSES
        key = SampleKey(str(subject), str(action), str(number // (SUBJECTS * CLASSES)))
        return Sample(key, action, dict.fromkeys(self.modalities, number))

    def read(self, sample: Sample, modality: str) -> Signal:
        """Random numbers."""
        seed = [int(str(sample.sources[modality])), modality == "student"]
        return Signal(np.random.default_rng(seed).standard_normal((LENGTH, 1), dtype=np.float32), 10.0)


def starts(count: int, runs: int) -> Iterator[float]:
    """CPU seconds of every start but the first, which prepares the data."""
    gc.freeze()  # as kdcore run does
    with TemporaryDirectory() as folder:
        for run in range(runs + 1):
            dataset = Numbers(count)
            pipelines = {name: Pipeline([Branch(modality)]) for name, modality in dataset.modalities.items()}
            spec = DataSpec.model_validate({"dataset": "numbers", "protocol": "cross-subject"})
            began = time.process_time()
            load_table(dataset, CrossSubject(), spec, pipelines, Path(folder), 2**30)
            if run:
                yield time.process_time() - began


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=3)
    asked = parser.parse_args()
    for seconds in starts(asked.samples, asked.runs):
        print(f"{asked.samples} samples: {seconds:.2f} CPU seconds")

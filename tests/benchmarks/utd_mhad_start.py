"""CPU seconds until UTD-MHAD's recordings are a table, at the first and at later starts, beside reading all files with SciPy.

    OMP_NUM_THREADS=1 KDCORE_DATA=… python tests/benchmarks/utd_mhad_start.py

Accelerometer, gyroscope and skeleton are resampled, as recipes do; the folder ``utd-mhad`` below ``KDCORE_DATA`` holds the
recordings. The operating system's file cache is warm.
"""

from __future__ import annotations

import argparse
import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from tempfile import TemporaryDirectory

from scipy.io import loadmat

from kdcore.data.branch import Branch
from kdcore.data.pipeline import Pipeline
from kdcore.data.preparation import load_table
from kdcore.recipe.data_models import DataSpec
from kdcore_datasets.protocols.subjects import CrossSubject
from kdcore_datasets.utd_mhad import UtdMhad
from kdcore_signals.lengths import Resample

MODALITIES = {"accelerometer": 128, "gyroscope": 128, "skeleton": 64}


def recordings() -> Path | None:
    """The folder of the recordings, if it is there."""
    folder = Path(os.environ.get("KDCORE_DATA", "shared/data")) / "utd-mhad"
    return folder if (folder / "Inertial").is_dir() else None


def load_all(root: Path) -> None:
    """Read every file once."""
    for folder in ("Inertial", "Skeleton"):
        for path in sorted((root / folder).glob("*.mat")):
            loadmat(path)


def start(root: Path, cache: Path) -> None:
    """Read, split, prepare and join."""
    dataset = UtdMhad(root=root)
    pipelines = {
        name: Pipeline([Branch(dataset.modalities[name], [Resample(length=length)], identity=f"resample {length}")])
        for name, length in MODALITIES.items()
    }
    spec = DataSpec.model_validate({"dataset": {"name": "utd-mhad", "root": str(root)}, "protocol": "cross-subject"})
    load_table(dataset, CrossSubject(), spec, pipelines, cache, 2**30)


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of this process and of those it started and waited for."""

    def now() -> float:
        usage = map(getrusage, (RUSAGE_SELF, RUSAGE_CHILDREN))
        return sum(each.ru_utime + each.ru_stime for each in usage)

    began = now()
    work()
    return now() - began


def ratios(root: Path, runs: int) -> Iterator[tuple[float, float]]:
    """First and second start ÷ reading all files, in turn."""
    load_all(root)
    gc.freeze()  # as kdcore run does
    for _ in range(runs):
        with TemporaryDirectory() as folder:
            read = seconds(lambda: load_all(root))
            first, second = (seconds(lambda: start(root, Path(folder))) for _ in range(2))
        yield first / read, second / read


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    asked = parser.parse_args()
    root = recordings()
    if root is None:
        parser.exit(message="UTD-MHAD is not there: set KDCORE_DATA\n")
    for first, second in ratios(root, asked.runs):
        print(f"first start {first:.2f}, second start {second:.3f} of reading all files")

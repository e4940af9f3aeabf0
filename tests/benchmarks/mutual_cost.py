"""Cost of K students that learn side by side, beside K runs with one student each.

By hand: ``OMP_NUM_THREADS=1 python tests/benchmarks/mutual_cost.py``

One student learns from a teacher's likeliest classes; K do, and from each other. Every epoch of students is timed; the first of
each run, in which the teacher is asked, stands apart. A teacher's answers, the batches and their augmentation are shared.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from kdcore import RunListener, Stage
from kdcore.runs.run import run

RECIPE = [
    "teachers.flow=null",
    "teachers.watch={modality: accelerometer, transforms: [{name: resample, length: 128}, normalise], encoder: cnn1d}",
    "data.dataset.trials=2",
    "schedule.teachers.epochs=1",
    "baseline=false",
    "engine.threads=1",
    "engine.reuse_teachers=true",
]


class Stopwatch(RunListener):
    """Seconds of each epoch in which students learn."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.since = 0.0

    def stage_started(self, stage: Stage, steps: int) -> None:
        """An epoch begins."""
        self.since = time.perf_counter()

    def epoch_finished(self, stage: Stage, epoch: int, metrics: Mapping[str, float]) -> None:
        """An epoch ends, and the next begins."""
        now = time.perf_counter()
        if stage.name != "teachers":
            self.seconds.append(now - self.since)
        self.since = now


def epochs(copies: int, encoder: str, count: int) -> list[float]:
    """Seconds of each epoch with so many students."""
    watch = Stopwatch()
    peers = [] if copies > 1 else ["losses.mutual=null"]
    run(
        "crossmodal-mutual",
        [*RECIPE, *peers, f"student.copies={copies}", f"student.encoder={encoder}", f"schedule.student.epochs={count}"],
        callbacks=[watch],
    )
    return watch.seconds


def main() -> None:
    """Print one line per number of students."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--most", type=int, default=4)
    parser.add_argument("--encoder", default="{name: hcn, width: 16, point_channels: 16, embedding: 64}")
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        os.environ |= {"KDCORE_RUNS": folder, "MLFLOW_TRACKING_URI": f"sqlite:///{Path(folder) / 'mlflow.db'}"}
        found: dict[int, list[float]] = {copies: [] for copies in range(1, options.most + 1)}
        for _ in range(options.rounds):
            for copies, times in found.items():
                times += epochs(copies, options.encoder, options.epochs)[1:]
    alone = statistics.median(found[1])
    for copies, times in found.items():
        seconds = statistics.median(times)
        print(f"{copies} at once {seconds:6.3f} s an epoch   {seconds / (copies * alone):5.3f} of {copies} alone")


if __name__ == "__main__":
    main()

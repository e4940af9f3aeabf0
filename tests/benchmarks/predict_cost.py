"""Milliseconds of CPU time that a saved student takes for one window, beside its encoder alone.

OMP_NUM_THREADS=1 python tests/benchmarks/predict_cost.py --student runs/…/students/seed-0/student
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from kdcore import load_student
from kdcore.deploy.student import AT_ONCE


def window_costs(folder: Path, windows: int, rounds: int, rate: float = 50.0) -> Iterator[tuple[float, float]]:
    """Milliseconds per window of `predict` on a long recording, and of the encoder on as many ready inputs."""
    student = load_student(folder)
    [modality] = student.reads.values()
    length, channels = 2.0, student.description["recorded"][modality.name]["shape"][-1]
    frames = int(rate * (length + (windows - 1) * length / 2))
    recording = np.random.default_rng(0).standard_normal((frames, channels)).astype(np.float32)
    ready = student.preprocess(recording, (length, length / 2), rate=rate)
    for number in range(rounds + 1):
        began = time.process_time()
        found = student.predict(recording, (length, length / 2), rate=rate)
        predicted = time.process_time()
        with torch.inference_mode():
            for part in ready.split(AT_ONCE):
                student(part)
        ended = time.process_time()
        if number:
            yield 1e3 * (predicted - began) / len(found), 1e3 * (ended - predicted) / len(found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", type=Path, required=True)
    parser.add_argument("--windows", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    for whole, encoder in window_costs(asked.student, asked.windows, asked.rounds):
        print(f"{whole:.3f} ms a window, the encoder alone {encoder:.3f} ms")

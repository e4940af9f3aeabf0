"""Costs of the students of finished runs: training, size, and time for one recording.

OMP_NUM_THREADS=1 python tests/benchmarks/student_cost.py RUN …

RUN is a run folder. Times are medians, on a made-up recording of the shape of those of training.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch.utils.flop_counter import FlopCounterMode

from kdcore import Signal, Student, load_student

ROUNDS = 30


def median_ms(act: Callable[[], object]) -> float:
    """Median time of `act`, ms."""
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        act()
        times.append(1e3 * (time.perf_counter() - began))
    return statistics.median(times)


def made_up(student: Student) -> dict[str, Signal]:
    """Recordings of random numbers, of the shapes and types of those of training."""
    rng, found = np.random.default_rng(0), {}
    for name, recorded in student.description["recorded"].items():
        shape, dtype = recorded["shape"], recorded["dtype"]
        whole = np.issubdtype(dtype, np.integer)
        values = rng.integers(500, 4000, shape) if whole else rng.standard_normal(shape)
        found[name] = Signal(values.astype(dtype), recorded["rate"])
    return found


def size(file: Path) -> int:
    """Number of values in a weights file."""
    with safe_open(file, "np") as saved:
        return sum(int(np.prod(saved.get_slice(name).get_shape())) for name in saved.keys())  # noqa: SIM118 - not a dict


def student_costs(folder: Path) -> str:
    """Size of a student, and its time for one recording, with preprocessing and without."""
    student = load_student(folder)
    recordings = made_up(student)
    ready = student.preprocess(recordings)
    with torch.inference_mode(), FlopCounterMode(display=False) as counted:
        student(ready)
    with torch.inference_mode():
        network = median_ms(lambda: student(ready))
    whole = median_ms(lambda: student.predict(recordings))
    parameters = sum(parameter.numel() for parameter in student.parameters())
    return (
        f"{parameters:,} parameters, {counted.get_total_flops() / 2e6:.2f} M multiply-adds, "
        f"{whole:.2f} ms per recording, of which {network:.2f} ms network"
    )


def print_costs(run: Path) -> None:
    """Print the costs of a run and of each of its students of the first seed."""
    about = json.loads((run / "run.json").read_text())
    seed = f"seed-{about['seeds'][0]}"
    minutes = sum(about["phases"].values()) / 60 / len(about["seeds"])
    teachers = {file.stem: size(file) for file in sorted((run / "teachers" / seed).glob("*.safetensors"))}
    print(f"{about['name']}: {minutes:.1f} minutes per seed, with baseline and report; values of teachers: {teachers}")
    for file in sorted((run / "students" / seed).glob("*/weights.safetensors")):
        print(f"  {file.parent.name}: {student_costs(file.parent)}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for folder in sys.argv[1:]:
        print_costs(Path(folder))

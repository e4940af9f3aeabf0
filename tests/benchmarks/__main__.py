"""All benchmarks of speed, or those that are named, as one table beside their goals.

    OMP_NUM_THREADS=1 python -m tests.benchmarks [ROW …] [--runs 5]

Ratios are of neighbours in time, and times are CPU seconds, so that other work on the machine does little harm. Rows that
start a process count all of it. Times depend on the machine, so the last column says how many times ``import torch`` they
take. Larger measurements are scripts of their own beside this one: batched_seeds, larger_than_memory (memory, disk), loss_cost,
mutual_cost, kill_loop.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parent))  # the scripts are run by their paths, too

import gaf_cost
import joining
import predict_cost
import skeleton_reading
import utd_mhad_start

TORCH = [sys.executable, "-c", "import torch"]
SHORT = ["schedule.teachers.epochs=1", "schedule.student.epochs=1", "seeds=[0]"]


class SkippedError(Exception):
    """A row that cannot be measured here; the message says why."""


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        what: The work.
        goal: The largest acceptable median, on the machine of docs/results/speed.md where it is in seconds; the smallest where
            `more`.
        unit: ``s`` for CPU seconds, ``ms``, or empty for a ratio.
        measure: Gives so many values.
        more: Whether larger values are better.
    """

    what: str
    goal: float
    unit: str
    measure: Callable[[int], Iterator[float]]
    more: bool = False


def cpu_seconds(command: Sequence[str], **environment: str) -> float:
    """User and system seconds of a command and all that it waits for, with these variables in its environment.

    Modules are compiled once, as in an installation, even if the environment says otherwise.

    Raises:
        SkippedError: If it fails.
    """
    before = os.times()
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"PYTHONDONTWRITEBYTECODE": ""} | environment
    )
    after = os.times()
    if done.returncode:
        raise SkippedError(f"{' '.join(command)}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
    return after.children_user + after.children_system - before.children_user - before.children_system


def command(*words: str) -> Callable[[int], Iterator[float]]:
    """Measure a kdcore command, after a run that fills the cache."""

    def measure(runs: int) -> Iterator[float]:
        asked = [sys.executable, "-m", "kdcore", *words]
        cpu_seconds(asked)
        yield from (cpu_seconds(asked) for _ in range(runs))

    return measure


def utd_mhad(which: int) -> Callable[[int], Iterator[float]]:
    """Measure the first (0) or second (1) start."""

    def measure(runs: int) -> Iterator[float]:
        root = utd_mhad_start.recordings()
        if root is None:
            raise SkippedError("UTD-MHAD is not there: set KDCORE_DATA")
        yield from (found[which] for found in utd_mhad_start.ratios(root, runs))

    return measure


def student() -> Path:
    """A student of the quickstart, trained for one epoch if no run has left one.

    Raises:
        SkippedError: If it cannot be trained.
    """
    from kdcore.errors import KdcoreError
    from kdcore.runs.find_student import find_student

    try:
        return find_student("quickstart")
    except KdcoreError:
        cpu_seconds([sys.executable, "-m", "kdcore", "run", "quickstart", *SHORT])
        return find_student("quickstart")


def predict_start(runs: int) -> Iterator[float]:
    """A whole `kdcore predict` of one recording with a student's weights."""
    with TemporaryDirectory() as folder:
        yield from predict(str(student()), folder, runs)


def predict_window(runs: int) -> Iterator[float]:
    """A window of a long recording."""
    return (whole for whole, _ in predict_cost.window_costs(student(), 2000, runs))


def validate_all(runs: int) -> Iterator[float]:
    """`kdcore validate` of every recipe in one process, each time with an empty cache."""
    recipes = sorted(map(str, (Path(__file__).parents[2] / "recipes").rglob("*.yaml")))
    for _ in range(runs):
        with TemporaryDirectory() as cache:
            yield cpu_seconds([sys.executable, "-m", "kdcore", "validate", *recipes], KDCORE_CACHE=cache)


def step(pair: str, epochs: int) -> Callable[[int], Iterator[float]]:
    """Measure a training step of a pair of networks against a loop by hand."""

    def measure(runs: int) -> Iterator[float]:
        import engine_overhead

        yield from engine_overhead.ratios(pair, runs, epochs)

    return measure


def teacher_cache(pair: str, epochs: int) -> Callable[[int], Iterator[float]]:
    """Measure the gain of the teacher cache as a share of the possible gain."""

    def measure(runs: int) -> Iterator[float]:
        import engine_overhead

        yield from engine_overhead.cache_shares(pair, runs, epochs)

    return measure


def gsdm(way: str) -> Callable[[int], Iterator[float]]:
    """Measure a student's step with GSDM against the published computation."""

    def measure(runs: int) -> Iterator[float]:
        import gsdm_cost

        yield from gsdm_cost.ratios(way, runs)

    return measure


def graph_encoder(name: str, batch: int) -> Callable[[int], Iterator[float]]:
    """Measure a training step of a graph encoder as a share of the speed of matrix products."""

    def measure(runs: int) -> Iterator[float]:
        import gcn_throughput

        yield from gcn_throughput.peak_shares(getattr(gcn_throughput, name), batch, runs)

    return measure


def skeleton_files(runs: int) -> Iterator[float]:
    """Prepare 1,000 skeleton files in one process that starts for it."""
    script = str(Path(skeleton_reading.__file__))
    yield from (cpu_seconds([sys.executable, script, "--files", "1000"], KDCORE_WORKERS="1") for _ in range(runs))


def onnx_start(runs: int) -> Iterator[float]:
    """A whole `kdcore predict` of one recording with an ONNX file."""
    with TemporaryDirectory() as folder:
        exported = str(Path(folder) / "student.onnx")
        cpu_seconds([sys.executable, "-m", "kdcore", "export", str(student()), "--output", exported])
        yield from predict(exported, folder, runs)


def predict(source: str, folder: str, runs: int) -> Iterator[float]:
    """A whole `kdcore predict` of one recording of five seconds, which is written to `folder`."""
    table = Path(folder) / "recording.csv"
    table.write_text("x,y,z\n" + "0.1,9.8,0.2\n0.3,9.6,0.1\n" * 125)
    yield from command("predict", source, str(table), "--rate", "50")(runs)


def beside_training(runs: int) -> Iterator[float]:
    """Share of the wall time of ``kdcore run sakdn`` in which nothing is trained or evaluated; a run takes minutes."""
    from kdcore.training.phases import CHECKPOINTS, CHECKS, DATA, REPORT, START, TRACKING

    for _ in range(runs):
        with TemporaryDirectory() as folder:
            asked = ["run", "sakdn", "engine.threads=1", "engine.reuse_teachers=false", f"tracking.uri=sqlite:///{folder}/m.db"]
            cpu_seconds([sys.executable, "-m", "kdcore", *asked], KDCORE_RUNS=folder)
            [record] = Path(folder).glob("*/run.json")
            phases = json.loads(record.read_text())["phases"]
            beside = sum(phases.get(phase, 0.0) for phase in (START, DATA, CHECKS, CHECKPOINTS, TRACKING, REPORT))
            yield beside / sum(phases.values())


ROWS = {
    "help": Row("kdcore --help", 0.15, "s", command("--help")),
    "list": Row("kdcore list", 0.15, "s", command("list")),
    "validate": Row("kdcore validate sakdn", 0.6, "s", command("validate", "sakdn")),
    "validate-all": Row("kdcore validate of all recipes, empty cache", 10.0, "s", validate_all),
    "step": Row("KD step, linear pair b16 ÷ loop by hand", 1.10, "", step("linear", 20)),
    "step-small": Row("KD step, 1-D CNN pair b16 ÷ loop by hand", 1.03, "", step("small", 2)),
    "step-large": Row("KD step, ResNet pair b16 ÷ loop by hand", 0.90, "", step("large", 1)),
    "cache-small": Row("teacher cached, 1-D CNN pair, share of the possible gain", 0.95, "", teacher_cache("small", 6), True),
    "cache-large": Row("teacher cached, ResNet pair, share of the possible gain", 0.95, "", teacher_cache("large", 2), True),
    "gsdm-cached": Row("student step with GSDM, cached teachers ÷ as published", 0.42, "", gsdm("with")),
    "gsdm-live": Row("student step with GSDM, live teachers ÷ as published", 0.58, "", gsdm("teachers")),
    "st-gcn": Row("ST-GCN step b16, share of matmul peak", 0.80, "", graph_encoder("StGcn", 16), True),
    "agcn": Row("2s-AGCN step b16, share of matmul peak", 0.80, "", graph_encoder("Agcn", 16), True),
    "st-gcn-b4": Row("ST-GCN step b4, share of matmul peak", 0.85, "", graph_encoder("StGcn", 4), True),
    "agcn-b4": Row("2s-AGCN step b4, share of matmul peak", 0.85, "", graph_encoder("Agcn", 4), True),
    "beside-training": Row("share of kdcore run sakdn beside training", 0.07, "", beside_training),
    "dry-run": Row("kdcore run --dry-run quickstart", 3.0, "s", command("run", "--dry-run", "quickstart")),
    "predict-start": Row("kdcore predict, one recording", 1.0, "s", predict_start),
    "predict-onnx": Row("kdcore predict, one recording, ONNX file", 0.3, "s", onnx_start),
    "predict-window": Row("kdcore predict, a window", 0.35, "ms", predict_window),
    "joining": Row("joining keys, 100,000 samples", 0.5, "s", lambda runs: joining.starts(100_000, runs)),
    "skeletons": Row("1,000 skeleton files prepared in one process", 18.9, "s", skeleton_files),
    "utd-mhad-first": Row("UTD-MHAD, first start ÷ scipy.loadmat of all", 0.7, "", utd_mhad(0)),
    "utd-mhad-second": Row("UTD-MHAD, second start ÷ scipy.loadmat of all", 0.03, "", utd_mhad(1)),
    "gaf": Row("GAF 180² × 3 ÷ plain write, batch 128", 2.1, "", lambda runs: gaf_cost.ratios(128, runs)),
}


LONG = ("beside-training",)
"""Rows that take minutes a run, and are measured only if they are named."""


def line(row: Row, values: Sequence[float], torch_seconds: float) -> str:
    """A row of the Markdown table."""
    low, middle, high = (f"{value:.3g}" for value in (min(values), statistics.median(values), max(values)))
    unit = f" {row.unit}" if row.unit else ""
    beside = f"{statistics.median(values) / torch_seconds:.2f}" if row.unit == "s" else ""
    return f"| {row.what} | {low} – {middle} – {high}{unit} | {'≥' if row.more else '≤'} {row.goal:g}{unit} | {beside} |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "rows", nargs="*", metavar="ROW", help=f"one or more of {', '.join(ROWS)}; by default all but {', '.join(LONG)}"
    )
    parser.add_argument("--runs", type=int, default=5)
    asked = parser.parse_args()
    if unknown := sorted({*asked.rows} - {*ROWS}):
        parser.error(f"no row {unknown[0]!r} (there are {', '.join(ROWS)})")
    torch_seconds = statistics.median(cpu_seconds(TORCH) for _ in range(3))
    print(f"import torch: {torch_seconds:.2f} CPU seconds\n")
    print("| work | minimum – median – maximum | goal | ÷ import torch |\n| --- | ---: | ---: | ---: |")
    for name in asked.rows or [name for name in ROWS if name not in LONG]:
        try:
            print(line(ROWS[name], [*ROWS[name].measure(asked.runs)], torch_seconds), flush=True)
        except SkippedError as error:
            print(f"| {ROWS[name].what} | skipped: {error} | | |", flush=True)


if __name__ == "__main__":
    main()

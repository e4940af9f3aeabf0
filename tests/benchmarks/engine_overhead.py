"""Cost of the engine beside a loop written by hand, and the gain of asking a frozen teacher once.

    OMP_NUM_THREADS=1 python tests/benchmarks/engine_overhead.py

Both sides train the same student from the same teacher on the same batches with the same optimizer. Rounds alternate, and the
median of the ratios of neighbours is printed, so that a machine whose speed drifts does no harm.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdcore import Example, Outputs, Participant, RunJournal, SampleKey, Splits, StagePlan, Training
from kdcore.data.table import Table, shuffled
from kdcore.recipe.models import EngineSpec
from kdcore.training.engine import Engine, Settings
from kdcore.training.fabric import make_fabric
from kdcore.training.participants import Distiller, TermSpec
from kdcore.training.randomness import derive
from kdcore_losses.cross_entropy import CrossEntropy
from kdcore_losses.soft_target import SoftTarget
from kdcore_mlflow.tracker import MlflowTracker
from kdcore_signals.encoders import Cnn1d

BATCH, CLASSES = 16, 10


def linear() -> tuple[nn.Module, nn.Module]:
    """Teacher and student: one layer on 64 numbers each, so that nearly all of a step is Python's time."""
    return nn.Linear(64, CLASSES), nn.Linear(64, CLASSES)


def small() -> tuple[nn.Module, nn.Module]:
    """Teacher and student: 1-D CNNs on three channels of 128 samples."""
    return Cnn1d(CLASSES, (3, 128), width=32), Cnn1d(CLASSES, (3, 128), width=16, dropout=0.0)


def large() -> tuple[nn.Module, nn.Module]:
    """Teacher and student: ResNets on pictures of 64 pixels."""
    return timm.create_model("resnet18", num_classes=CLASSES), timm.create_model("resnet10t", num_classes=CLASSES)


PAIRS = {"linear": (linear, (64,), 1600), "small": (small, (3, 128), 1600), "large": (large, (3, 64, 64), 96)}


def table_of(shape: tuple[int, ...], count: int) -> Table:
    """Random samples."""
    torch.manual_seed(0)
    keys = tuple(SampleKey("1", "1", str(number)) for number in range(count))
    x, labels, rows = torch.randn(count, *shape), torch.randint(0, CLASSES, (count,)), torch.arange(count)
    splits = Splits({"train": (), "test": ()}, "random numbers")
    names = tuple(map(str, range(CLASSES)))
    return Table(keys, labels, labels, {"train": rows}, {"teacher": (x,), "student": (x,)}, names, splits, "")


def with_engine(pair, table: Table, cache: bool, epochs: int, folder: Path | None) -> float:
    """CPU seconds of some epochs through kdcore, tracked in `folder`; not tracked without one."""
    torch.manual_seed(0)
    teacher, student = pair()
    distiller = Distiller({"teacher": Participant("teacher", teacher)}, {"student": Participant("student", student)})
    terms = [TermSpec("cross-entropy", 1.0, CrossEntropy), TermSpec("soft-target", 1.0, SoftTarget, ("teacher",))]
    distiller.add_terms("student", terms, lambda _: Example(Outputs(torch.zeros(2, CLASSES))))
    settings, record = Settings(0, BATCH, teacher_cache=cache), None
    if folder:
        tracker = RunJournal(folder, MlflowTracker(f"sqlite:///{folder}/mlflow.db"), "benchmark")
        tracker.start("root", "benchmark")
        record = lambda metrics, step: tracker.metrics("root", metrics, step)  # noqa: E731
    engine = Engine(make_fabric(EngineSpec(accelerator="cpu")), distiller, table, settings, *([record] if record else []))
    training = {"student": Training(epochs=epochs)}
    stage = StagePlan("student", ("student",), ("teacher",), training, epochs, "train", BATCH, "student")
    began = time.process_time()
    engine.fit([stage])
    taken = time.process_time() - began
    if folder:
        tracker.close(0)
    return taken


def by_hand(pair, table: Table, teacher_logits: Tensor | None, epochs: int) -> float:
    """CPU seconds of the same epochs in plain PyTorch; `teacher_logits` stand in for the teacher where given."""
    torch.manual_seed(0)
    teacher, student = pair()
    teacher.eval()
    student.train()
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3, fused=True)
    (shown,), (x,), labels = table.inputs["teacher"], table.inputs["student"], table.labels
    began = time.process_time()
    for rows in _batches(len(x), epochs):
        batch = x[rows]
        with torch.no_grad():
            taught = teacher(shown[rows]) if teacher_logits is None else teacher_logits[rows]
        logits = student(batch)
        soft = F.kl_div(F.log_softmax(logits / 4, -1), F.softmax(taught / 4, -1), reduction="batchmean") * 16
        loss = F.cross_entropy(logits, labels[rows]) + soft
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.process_time() - began


def _batches(count: int, epochs: int) -> Iterator[Tensor]:
    for epoch in range(epochs):
        order = shuffled(count, derive(0, "student", epoch))
        yield from (order[start : start + BATCH] for start in range(0, count - BATCH + 1, BATCH))


def ratios(name: str, rounds: int, epochs: int = 20) -> Iterator[float]:
    """CPU seconds through the engine ÷ by hand, untracked, neighbours in time; the first of all warms up and is left out."""
    pair, shape, count = PAIRS[name]
    table = table_of(shape, count)
    for number in range(rounds + 1):
        found = with_engine(pair, table, False, epochs, None) / by_hand(pair, table, None, epochs)
        if number:
            yield found


def cache_shares(name: str, rounds: int, epochs: int) -> Iterator[float]:
    """Gain of the teacher cache ÷ the largest possible gain, untracked; the first round warms up and is left out.

    The largest possible gain is that of the loop by hand with given logits, plus the teacher's forward passes of one epoch.
    """
    pair, shape, count = PAIRS[name]
    table, logits = table_of(shape, count), torch.zeros(count, CLASSES)
    for number in range(rounds + 1):
        live, cached = (with_engine(pair, table, cache, epochs, None) for cache in (False, True))
        hand, ideal = (by_hand(pair, table, given, epochs) for given in (None, logits))
        if number:
            yield live / cached / (hand / (ideal + (hand - ideal) / epochs))


def measure(name: str, rounds: int, epochs: int, tracked: bool) -> None:
    """Print the ratios for one pair."""
    pair, shape, count = PAIRS[name]
    table, logits = table_of(shape, count), torch.zeros(count, CLASSES)
    ratios, gains, best = [], [], []
    for number in range(rounds + 1):
        with TemporaryDirectory() as one, TemporaryDirectory() as two:
            first, second = (Path(one), Path(two)) if tracked else (None, None)
            ours, hand = with_engine(pair, table, False, epochs, first), by_hand(pair, table, None, epochs)
            cached, ideal = with_engine(pair, table, True, epochs, second), by_hand(pair, table, logits, epochs)
        if number:  # the first round warms up
            ratios.append(ours / hand)
            gains.append(ours / cached)
            best.append(hand / ideal)
    low, high = min(ratios), max(ratios)
    print(f"{name:6} engine / by hand      {statistics.median(ratios):.3f} ({low:.3f} to {high:.3f})")
    print(f"{'':6} teacher asked once    {statistics.median(gains):.2f} times as fast, {epochs} epochs, the asking included")
    print(f"{'':6} teacher costs nothing {statistics.median(best):.2f} times as fast, by hand")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--pairs", nargs="+", default=list(PAIRS), choices=list(PAIRS))
    parser.add_argument("--untracked", action="store_true", help="send no metrics to MLflow, as the loop by hand")
    arguments = parser.parse_args()
    for each in arguments.pairs:
        measure(each, arguments.rounds, arguments.epochs, not arguments.untracked)

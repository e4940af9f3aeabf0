"""What the engine costs beside a loop written by hand, and what asking a frozen teacher once gains.

    OMP_NUM_THREADS=1 python tests/benchmarks/engine_overhead.py

Both sides train the same student from the same teacher on the same batches with the same optimizer. Rounds alternate, and the
median of the ratios of neighbours is printed, so that a machine whose speed drifts does no harm.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import timm
import torch
import torch.nn.functional as F
from kdcore_standard.losses.cross_entropy import CrossEntropy
from kdcore_standard.losses.soft_target import SoftTarget
from kdcore_wearable.cnn import Cnn1d
from lightning_fabric import Fabric
from torch import Tensor, nn

from kdcore import Example, Outputs, Participant, SampleKey, Split, Stage, Training
from kdcore.results.tracking import Tracker
from kdcore.training.data import Table, epoch_order
from kdcore.training.distiller import Distiller, TermSpec
from kdcore.training.engine import Engine, Settings
from kdcore.training.randomness import derive

BATCH, CLASSES = 16, 10


def small() -> tuple[nn.Module, nn.Module]:
    """Teacher and student: 1-D CNNs on three channels of 128 samples."""
    return Cnn1d(CLASSES, (3, 128), width=32), Cnn1d(CLASSES, (3, 128), width=16, dropout=0.0)


def large() -> tuple[nn.Module, nn.Module]:
    """Teacher and student: ResNets on pictures of 64 pixels."""
    return timm.create_model("resnet18", num_classes=CLASSES), timm.create_model("resnet10t", num_classes=CLASSES)


PAIRS = {"small": (small, (3, 128), 1600), "large": (large, (3, 64, 64), 96)}


def table_of(shape: tuple[int, ...], count: int) -> Table:
    """Random samples."""
    torch.manual_seed(0)
    keys = tuple(SampleKey("1", "1", str(number)) for number in range(count))
    x, labels, rows = torch.randn(count, *shape), torch.randint(0, CLASSES, (count,)), torch.arange(count)
    split = Split({"train": (), "test": ()}, "random numbers")
    names = tuple(map(str, range(CLASSES)))
    return Table(keys, labels, labels, {"train": rows}, {"teacher": (x,), "student": (x,)}, names, split, "")


def with_engine(pair, table: Table, cache: bool, folder: Path) -> float:
    """Seconds of one epoch through kdcore, tracked."""
    torch.manual_seed(0)
    teacher, student = pair()
    distiller = Distiller({"teacher": Participant("teacher", teacher)}, {"student": Participant("student", student)})
    terms = [TermSpec("cross-entropy", 1.0, CrossEntropy), TermSpec("soft-target", 1.0, SoftTarget)]
    distiller.add_terms("student", terms, Example(Outputs(torch.zeros(2, CLASSES))))
    fabric = Fabric(accelerator="cpu", devices=1)
    tracker = Tracker(folder, f"sqlite:///{folder}/mlflow.db", "benchmark")
    tracker.start("root", "benchmark")
    settings = Settings(0, BATCH, teacher_cache=cache)
    engine = Engine(fabric, distiller, table, settings, lambda metrics, step: tracker.metrics("root", metrics, step))
    stage = Stage("student", ("student",), Training(epochs=1), 1, ("teacher",))
    began = time.perf_counter()
    engine.fit([stage])
    taken = time.perf_counter() - began
    tracker.close(0)
    return taken


def by_hand(pair, table: Table, teacher_logits: Tensor | None) -> float:
    """Seconds of the same epoch in plain PyTorch; `teacher_logits` stand in for the teacher where given."""
    torch.manual_seed(0)
    teacher, student = pair()
    teacher.eval()
    student.train()
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3, fused=True)
    x, labels = table.inputs["student"][0], table.labels
    order = epoch_order(len(x), derive(0, "student", 0))
    began = time.perf_counter()
    for start in range(0, len(order) - BATCH + 1, BATCH):
        rows = order[start : start + BATCH]
        batch = x[rows]
        with torch.no_grad():
            taught = teacher(batch) if teacher_logits is None else teacher_logits[rows]
        logits = student(batch)
        soft = F.kl_div(F.log_softmax(logits / 4, -1), F.softmax(taught / 4, -1), reduction="batchmean") * 16
        loss = F.cross_entropy(logits, labels[rows]) + soft
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.perf_counter() - began


def measure(name: str, rounds: int) -> None:
    """Print the ratios for one pair."""
    pair, shape, count = PAIRS[name]
    table = table_of(shape, count)
    ratios, gains, best = [], [], []
    for number in range(rounds + 1):
        with TemporaryDirectory() as one, TemporaryDirectory() as two:
            ours, hand = with_engine(pair, table, False, Path(one)), by_hand(pair, table, None)
            cached, ideal = with_engine(pair, table, True, Path(two)), by_hand(pair, table, torch.zeros(count, CLASSES))
        if number:  # the first round warms up
            ratios.append(ours / hand)
            gains.append(ours / cached)
            best.append(hand / ideal)
    print(
        f"{name:6} engine/hand {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})   "
        f"teacher asked once, first epoch included: {statistics.median(gains):.2f}x faster; without any teacher {statistics.median(best):.2f}x"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--pairs", nargs="+", default=list(PAIRS), choices=list(PAIRS))
    arguments = parser.parse_args()
    for each in arguments.pairs:
        measure(each, arguments.rounds)

"""Throughput of distillation in two processes beside PyTorch's own DistributedDataParallel, for a pair of ResNets.

    OMP_NUM_THREADS=1 python tests/benchmarks/ddp_throughput.py [--batch 16 64] [--rounds 5]

Both sides train the same student from the same frozen teacher in two processes on the CPU, each on half of the batch. Rounds
alternate, and wall times are compared. The second ratio is for a loop whose batch normalisation uses the statistics of the
whole batch, too: kdcore synchronises it, so that a run equals one in a single process.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

import timm
import torch
import torch.distributed as dist
import torch.nn.functional as F
from engine_overhead import CLASSES, table_of
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from kdcore import Example, Outputs, Participant, StagePlan, Training
from kdcore.data.table import Table, shuffled
from kdcore.recipe.models import EngineSpec
from kdcore.training.distributed import synchronise_batch_norm
from kdcore.training.engine import Engine, Settings
from kdcore.training.fabric import launch, make_fabric
from kdcore.training.participants import Distiller, TermSpec
from kdcore.training.randomness import derive
from kdcore_losses.cross_entropy import CrossEntropy
from kdcore_losses.soft_target import SoftTarget

SIDE, STEPS, WARM = 64, 12, 1


def pair() -> tuple[nn.Module, nn.Module]:
    """Teacher and student."""
    torch.manual_seed(0)
    return timm.create_model("resnet18", num_classes=CLASSES), timm.create_model("resnet10t", num_classes=CLASSES)


def ours(table: Table, batch: int, fabric) -> float:
    """Seconds of an epoch through kdcore."""
    teacher, student = pair()
    distiller = Distiller({"teacher": Participant("teacher", teacher)}, {"student": Participant("student", student)})
    terms = [TermSpec("cross-entropy", 1.0, CrossEntropy), TermSpec("soft-target", 1.0, SoftTarget, ("teacher",))]
    distiller.add_terms("student", terms, lambda _: Example(Outputs(torch.zeros(2, CLASSES))))
    engine = Engine(fabric, distiller, table, Settings(0, batch, teacher_cache=False))
    stage = StagePlan("student", ("student",), ("teacher",), {"student": Training(epochs=1)}, 1, "train", batch, "student")
    return timed(lambda: engine.fit([stage]))


def by_hand(table: Table, batch: int, synchronised: bool) -> float:
    """Seconds of the same epoch in plain PyTorch."""
    teacher, student = pair()
    if synchronised:
        synchronise_batch_norm(student)
    teacher.eval()
    learner = DistributedDataParallel(student.train())
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3, fused=True)
    (x,), labels, share = table.inputs["student"], table.labels, batch // dist.get_world_size()

    def epoch() -> None:
        for rows in shuffled(len(x), derive(0, "student", 0)).split(batch):
            own = rows.split(share)[dist.get_rank()]
            with torch.no_grad():
                taught = teacher(x[own])
            logits = learner(x[own])
            soft = F.kl_div(F.log_softmax(logits / 4, -1), F.softmax(taught / 4, -1), reduction="batchmean") * 16
            loss = F.cross_entropy(logits, labels[own]) + soft
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return timed(epoch)


def timed(work) -> float:
    """Wall seconds until all processes have done their work."""
    dist.barrier()
    began = time.perf_counter()
    work()
    dist.barrier()
    return time.perf_counter() - began


def measure(batch: int, rounds: int, fabric) -> None:
    """Print bare DDP's time ÷ kdcore's: the share of its throughput."""
    table = table_of((3, SIDE, SIDE), STEPS * batch)
    plain, synchronised = [], []
    for number in range(rounds + WARM):
        one, bare, synced = ours(table, batch, fabric), by_hand(table, batch, False), by_hand(table, batch, True)
        if number >= WARM:
            plain.append(bare / one)
            synchronised.append(synced / one)
    if dist.get_rank() == 0:
        for what, ratios in (("DDP", plain), ("DDP with synchronised batch normalisation", synchronised)):
            print(f"b{batch:3} throughput ÷ {what}: {min(ratios):.2f} – {statistics.median(ratios):.2f} – {max(ratios):.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    if "LOCAL_RANK" not in os.environ:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
        sys.exit(subprocess.run([*launcher, *sys.argv]).returncode)
    together = make_fabric(EngineSpec(accelerator="cpu", strategy="ddp"))
    launch(together)
    for each in arguments.batch:
        measure(each, arguments.rounds, together)

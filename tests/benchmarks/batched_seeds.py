"""CPU time of a training step of several seeds of one student: one after another, and batched with `torch.func.vmap`.

OMP_NUM_THREADS=1 python tests/benchmarks/batched_seeds.py
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from kdcore.functional import softened_kl
from kdcore_signals.encoders import Cnn1d

CLASSES, CHANNELS, LENGTH = 27, 3, 64


def seeds_of(count: int, width: int) -> list[nn.Module]:
    """Students that differ in their weights. Batch normalisation keeps no running statistics, which vmap cannot update."""
    students = []
    for seed in range(count):
        torch.manual_seed(seed)
        student = Cnn1d(CLASSES, (CHANNELS, LENGTH), width=width, dropout=0)
        for module in student.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.track_running_stats = False
                module.running_mean = module.running_var = module.num_batches_tracked = None
        students.append(student)
    return students


def loss(logits: Tensor, labels: Tensor, teacher: Tensor) -> Tensor:
    """Cross-entropy and soft targets."""
    return nn.functional.cross_entropy(logits, labels) + softened_kl(logits, teacher, 4.0).mean()


def steps(count: int, width: int, batch: int) -> tuple[Callable[[], None], Callable[[], None]]:
    """A step of all seeds, one after another, and the same step batched."""
    inputs = torch.randn(count, batch, CHANNELS, LENGTH)
    labels = torch.randint(CLASSES, (count, batch))
    teacher = torch.randn(count, batch, CLASSES)
    students = seeds_of(count, width)
    optimizers = [torch.optim.AdamW(student.parameters()) for student in students]
    skeleton = copy.deepcopy(students[0]).to("meta")
    stacked, buffers = stack_module_state(students)
    stacked = {name: value.detach().requires_grad_() for name, value in stacked.items()}
    optimizer = torch.optim.AdamW(stacked.values())

    def one_after_another() -> None:
        for seed, student in enumerate(students):
            optimizers[seed].zero_grad()
            loss(student(inputs[seed]), labels[seed], teacher[seed]).backward()
            optimizers[seed].step()

    def of_one(weights: dict[str, Tensor], x: Tensor, y: Tensor, t: Tensor) -> Tensor:
        return loss(functional_call(skeleton, (weights, {}), (x,)), y, t)

    def batched() -> None:
        optimizer.zero_grad()
        vmap(of_one)(stacked, inputs, labels, teacher).sum().backward()
        optimizer.step()

    assert not buffers
    return one_after_another, batched


def milliseconds(step: Callable[[], None], repeats: int = 20) -> float:
    """CPU milliseconds of a step."""
    step()
    began = time.process_time()
    for _ in range(repeats):
        step()
    return 1e3 * (time.process_time() - began) / repeats


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    for batch in (16, 32):
        for width in (4, 8, 24, 48):
            alone, together = steps(asked.seeds, width, batch)
            pairs = [(milliseconds(alone), milliseconds(together)) for _ in range(asked.rounds)]
            ratio = median(one / other for one, other in pairs)
            first, second = (median(side) for side in zip(*pairs, strict=True))
            print(f"batch {batch}, width {width}: {first:.1f} ms, batched {second:.1f} ms, {ratio:.2f} times as fast")

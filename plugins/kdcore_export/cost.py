"""What an exported student costs to run."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

RUNS, FIRST = 200, 20


def parameters(graph: nn.Module) -> int:
    """Numbers that were learnt."""
    return sum(each.numel() for each in graph.parameters())


@torch.no_grad()
def operations(graph: nn.Module, example: tuple[Tensor, ...]) -> int:
    """Multiply-adds of convolutions and matrix products for `example`, preprocessing included."""
    from torch.utils.flop_counter import FlopCounterMode

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with FlopCounterMode(display=False) as counter, torch.backends.mkldnn.flags(enabled=False):  # its LSTM is not counted
            graph(*example)
    return counter.get_total_flops() // 2


def latency(call: Callable[[], object]) -> float:
    """Median seconds of a call on one core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        taken = []
        for _ in range(FIRST + RUNS):
            began = time.perf_counter()
            call()
            taken.append(time.perf_counter() - began)
    finally:
        torch.set_num_threads(threads)
    return statistics.median(taken[FIRST:])

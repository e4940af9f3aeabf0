"""Cost of Gramian angular fields of 180² × 3 beside writing as many numbers.

OMP_NUM_THREADS=1 python tests/benchmarks/gaf_cost.py
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator

import torch

from kdcore_images.gramian import GramianAngularField

SIZE, CHANNELS = 180, 3


def ratios(batch: int, rounds: int) -> Iterator[float]:
    """CPU time of a batch of fields ÷ that of filling a new tensor of the same shape, in turn."""
    torch.manual_seed(0)
    transform, series = GramianAngularField(size=SIZE, resize="series"), torch.randn(batch, CHANNELS, 2 * SIZE)

    def write() -> None:
        torch.empty(batch, CHANNELS, SIZE, SIZE).fill_(1.0)

    for number in range(rounds + 1):
        fields, plain = _seconds(lambda: transform(series)), _seconds(write)
        if number:
            yield fields / plain


def _seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=15)
    asked = parser.parse_args()
    found = sorted(ratios(asked.batch, asked.rounds))
    print(f"{found[0]:.2f}  {found[len(found) // 2]:.2f}  {found[-1]:.2f}  (minimum, median, maximum)")

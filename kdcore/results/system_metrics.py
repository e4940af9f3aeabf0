"""How busy the machine is while a run learns, under the names that MLflow shows as system metrics."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import psutil
import torch

PAUSE = 10.0
"""Seconds between two looks."""


class MachineLoad:
    """Records the machine's load now and then, whenever it is reminded to.

    Args:
        record: Takes (metrics, step); steps count the looks.
    """

    def __init__(self, record: Callable[[Mapping[str, float], int], None]):
        self._record, self._due, self._looks = record, time.monotonic(), 0
        psutil.cpu_percent()  # the next call tells of the time since this one

    def remind(self) -> None:
        """Record the load, if the last look is long enough ago."""
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + PAUSE
            self._record(load(), self._looks)
            self._looks += 1


def load() -> dict[str, float]:
    """Processors and memory in use, in % and MB; on accelerators the memory alone."""
    memory = psutil.virtual_memory()
    found = {
        "system/cpu_utilization_percentage": psutil.cpu_percent(),
        "system/system_memory_usage_megabytes": memory.used / 1e6,
        "system/system_memory_usage_percentage": memory.percent,
    }
    for index in range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0):
        free, total = torch.cuda.mem_get_info(index)
        found[f"system/gpu_{index}_memory_usage_megabytes"] = (total - free) / 1e6
        found[f"system/gpu_{index}_memory_usage_percentage"] = 100 * (1 - free / total)
    return found

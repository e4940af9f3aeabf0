"""The machine's load while a run learns, under the names that MLflow shows as system metrics."""

from __future__ import annotations

import time

import psutil

PAUSE = 10.0
"""Seconds between two looks."""


class MachineLoad:
    """Looks at the machine's load now and then, whenever it is asked to."""

    def __init__(self) -> None:
        self._due, self._looks = time.monotonic(), 0
        psutil.cpu_percent()  # the next call tells of the time since this one

    def due(self) -> tuple[int, dict[str, float]] | None:
        """Number of this look, and the load; None if the last look was short ago."""
        if time.monotonic() < self._due:
            return None
        self._due, self._looks = time.monotonic() + PAUSE, self._looks + 1
        return self._looks - 1, load()


def load() -> dict[str, float]:
    """Processors and memory in use, in % and MB; on accelerators the memory alone."""
    import torch  # `kdcore sync` needs none of it

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

"""System load during a run, under the names that MLflow shows as system metrics."""

from __future__ import annotations

import time

import psutil

PAUSE = 10.0
"""Minimum interval between two measurements, in seconds."""


class MachineLoad:
    """Measures the system load periodically, when called."""

    def __init__(self) -> None:
        self._due, self._looks = time.monotonic(), 0
        psutil.cpu_percent()  # the next call measures the time since this one

    def due(self) -> tuple[int, dict[str, float]] | None:
        """Return the number of the measurement and the load, or None if the last measurement was too recent."""
        if time.monotonic() < self._due:
            return None
        self._due, self._looks = time.monotonic() + PAUSE, self._looks + 1
        return self._looks - 1, load()


def load() -> dict[str, float]:
    """Return processor load and memory in % and MB; for accelerators only memory."""
    import torch  # not required by `kdcore sync`

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

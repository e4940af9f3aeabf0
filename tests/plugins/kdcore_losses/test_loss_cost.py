"""The benchmark of losses has inputs for every loss."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from kdcore import plugin_manager

COST = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks/loss_cost.py"))
NAMES = [entry.name for entry in plugin_manager().registry.entries("loss") if entry.plugin == "losses"]


@pytest.mark.parametrize("name", NAMES)
def test_the_benchmark_measures_every_loss(name):
    ((_, loss),) = COST["losses"]([name])
    step, _ = COST["fitting"](loss, 4, 9, 8, "cpu")
    step()

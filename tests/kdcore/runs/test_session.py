"""What a run keeps in memory for its report, and what its result knows once the tracker is closed."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from kdcore import Tracker, hookimpl
from kdcore.plugin.manager import PluginManager
from kdcore.runs.run import run
from kdcore.runs.session import RunSession

SHORT = {
    "schedule": {"name": "two-stage", "teachers": {"epochs": 1}, "student": {"epochs": 1}},
    "seeds": [0],
    "baseline": False,
    "engine": {"accelerator": "cpu"},
}


@pytest.mark.parametrize(("seed", "processes", "compiled"), [(3, 1, False), (4, 1, False), (3, 2, False), (3, 1, True)])
def test_networks_are_kept_for_the_report_unless_processes_or_the_compiler_changed_them(seed, processes, compiled):
    recipe = SimpleNamespace(seeds=[3, 4], engine=SimpleNamespace(compile=compiled))
    context = SimpleNamespace(trained={})
    session = SimpleNamespace(recipe=recipe, fabric=SimpleNamespace(world_size=processes), context=context)
    network = nn.Linear(2, 1)
    network(torch.ones(1, 2)).sum().backward()
    RunSession._keep(session, network, seed, "distilled")
    kept = (seed, processes, compiled) == (3, 1, False)
    assert context.trained == ({(3, "distilled"): network} if kept else {})
    if kept:
        assert not network.training
        assert network.weight.grad is None


class SlowTracker(Tracker):
    """Knows the service's ids only after it was closed, as when the service is slow."""

    closed = False

    def close(self, timeout=30):
        self.closed = True
        return True

    def run_ids(self):
        return {"root": "17"} if self.closed else {}


class Tracks:
    """A plugin with a tracker of its own."""

    @hookimpl(tryfirst=True)
    def open_tracker(self):
        return SlowTracker()


@pytest.mark.slow
def test_a_result_has_the_ids_that_the_tracker_knows_after_it_was_closed(home, monkeypatch):
    plugins = PluginManager()
    plugins.register("tracks", Tracks())
    monkeypatch.setattr("kdcore.runs.run.plugin_manager", lambda: plugins)
    assert run(home.write(**SHORT).recipe).run_ids == {"root": "17"}

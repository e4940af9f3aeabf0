"""Recipes of other papers, on little data and ready to be trained."""

from __future__ import annotations

import pytest
import torch
from by_hand import TINY, OneBatch, Trial, activations, step_of, weights_of

from kdcore.data.preparation import load_table
from kdcore.plugin.manager import plugin_manager
from kdcore.recipe.build import Builder
from kdcore.recipe.load import load_recipe
from kdcore.recipe.plan import make_plan
from kdcore.training.assembly import Assembly


@pytest.fixture
def trial(tmp_path):
    def make(recipe: str, *overrides: str) -> Trial:
        plugins = plugin_manager()
        loaded = load_recipe(f"methods/{recipe}", [*TINY, *overrides], plugins)
        builder = Builder(loaded, plugins)
        dataset, data = builder.dataset(), loaded.filled_data
        assembly = Assembly(builder, dataset, make_plan(loaded))
        return Trial(assembly, load_table(dataset, builder.protocol(), data, assembly.pipelines, tmp_path, data.memory_bytes))

    return make


@pytest.fixture
def one_batch(trial):
    def make(recipe: str, *overrides: str, rows: int = 6) -> OneBatch:
        made = trial(recipe, *overrides)
        distiller = made.distiller()
        stage = made.stages()[-1]
        weights = {name: weights_of(distiller.participant(name)) for name in distiller.networks}
        step, _ = step_of(made, distiller, stage)
        chosen = made.table.rows["train"][:: len(made.table.rows["train"]) // rows][:rows]  # of several classes
        by_hand = {name: activations(each, made.input(name, chosen), name in stage.learners) for name, each in weights.items()}
        with torch.random.fork_rng():
            total, values = step(chosen, chosen)
        return OneBatch(
            made, distiller, step, chosen, by_hand, dict(zip(step.names, map(float, values), strict=True)), total.detach()
        )

    return make

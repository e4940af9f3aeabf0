"""The scale of the loss, as for float16."""

from __future__ import annotations

from dataclasses import replace

import learning
import pytest
import torch
from learning import Labels, Recorded, engine, state_of
from lightning_fabric.plugins.precision import MixedPrecision
from lone_student import stage, student
from torch.nn import functional as F

from kdcore.errors import TrainingError


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return learning.table(tmp_path_factory.mktemp("data"))


def scaled(table, made, scaler, plan, **options):
    """An engine whose losses a scaler scales, as for float16, with arithmetic that stays as it is."""
    runner = engine(made, table, scaler=scaler, record=Recorded(), **options)
    precision = MixedPrecision("bf16-mixed", "cpu")
    precision.scaler = scaler
    runner.fabric._precision = runner.fabric._strategy.precision = precision
    runner.fit(plan)
    return runner


@pytest.mark.parametrize("options", [{}, {"accumulate": 3, "gradient_clip": 0.05}], ids=["plain", "accumulated"])
def test_the_scale_of_a_loss_changes_nothing(table, options):
    states = []
    for scale in (1.0, 2.0**12):
        made, _, _ = student(table)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=10**6)
        runner = engine(made, table, scaler=scaler)
        runner.updates.reset_scaler = lambda state: None
        precision = MixedPrecision("bf16-mixed", "cpu")
        precision.scaler = scaler
        runner.fabric._precision = runner.fabric._strategy.precision = precision
        runner.fit([stage(**options)])
        assert scaler.get_scale() == scale
        states.append(state_of(made))
    for name in states[0]:
        torch.testing.assert_close(states[0][name], states[1][name], rtol=1e-4, atol=1e-6)


class Overflows(Labels):
    """Cross-entropy whose gradient is infinite while the loss is scaled by 2 ** 14 or more."""

    def forward(self, ctx):
        logits = ctx.student.logits.clone()
        logits.register_hook(lambda gradient: gradient / 0 if float(gradient.abs().max()) > self.most else gradient)
        return F.cross_entropy(logits, ctx.labels)


@pytest.mark.parametrize("skipped", [None, 0])
def test_an_overflow_lowers_the_scale_and_is_no_step_that_is_skipped(table, skipped):
    Overflows.most = 2.0**13
    made, _, _ = student(table)
    made.terms["student"]["labels"] = Overflows()
    settings = replace(learning.SETTINGS, skipped_steps=skipped)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    runner = scaled(table, made, scaler, [stage()], settings=settings)
    assert 2.0**10 < scaler.get_scale() < 2.0**16
    assert runner.learners["student"].steps == 8
    assert all(bool(torch.isfinite(each).all()) for each in made.state_dict().values())


def test_gradients_that_no_scale_makes_finite_are_an_error(table):
    Overflows.most = 0.0
    made, _, _ = student(table)
    made.terms["student"]["labels"] = Overflows()
    with pytest.raises(TrainingError, match="in 16-mixed, gradients are not finite numbers however small the loss is scaled"):
        scaled(table, made, torch.amp.GradScaler("cpu"), [stage(20)])

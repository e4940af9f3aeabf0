"""Shipped losses and fusions in half precision: finite, and close to float64 on the same rounded numbers."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch

from kdcore import Batch, Example, LossContext, Outputs
from kdcore.plugin.manager import plugin_manager
from kdcore.testing.fusions import bench as fusion_bench
from kdcore.testing.gradients import gradients
from kdcore.testing.loss_inputs import cast, mapped
from kdcore.testing.losses import Bench
from kdcore.testing.losses import bench as loss_bench
from kdcore.testing.run import trials

SHIPPED = [name for name, plugin in plugin_manager().plugins.items() if plugin.distribution == "kdcore"]
SUBJECTS = {
    (trial.subject.entry.kind, trial.subject.entry.name): trial.subject
    for plugin in SHIPPED
    for trial in trials(plugin)
    if trial.subject.entry.kind in ("loss", "fusion")
}
LOSSES = sorted(name for kind, name in SUBJECTS if kind == "loss")
FUSIONS = sorted(name for kind, name in SUBJECTS if kind == "fusion")
HALF = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])


def judged(loss, ctx: LossContext, autocast: torch.dtype | None = None) -> tuple[float, torch.Tensor]:
    """A loss's value and its whole gradient on the student's outputs; autocast, as in training, for the forward pass only."""
    with torch.autocast("cpu", autocast, enabled=autocast is not None):
        value = Bench(loss, ctx).value()
    return value.item(), torch.cat([each.double().flatten() for each in gradients(value, ctx).values()])


def assert_close(found: tuple[float, torch.Tensor], wanted: tuple[float, torch.Tensor]) -> None:
    assert found[0] == pytest.approx(wanted[0], rel=1e-2, abs=1e-4)
    assert found[1].isfinite().all()
    assert torch.cosine_similarity(found[1], wanted[1], dim=0) > 0.999 or wanted[1].norm() == 0


@HALF
@pytest.mark.parametrize("scale", [1.0, 30.0])  # squares of the larger activations overflow float16
@pytest.mark.parametrize("name", LOSSES)
class TestLosses:
    def context(self, name: str, scale: float, dtype: torch.dtype):
        found = loss_bench(SUBJECTS["loss", name])
        ctx = mapped(found.ctx, lambda key, x: x * scale if ".features." in key else x)
        return found.loss, cast(ctx, dtype)

    def test_autocast(self, name, scale, dtype):
        loss, ctx = self.context(name, scale, dtype)
        wanted = judged(deepcopy(loss).double(), cast(ctx, torch.float64))
        assert_close(judged(loss, ctx, dtype), wanted)

    def test_cast(self, name, scale, dtype):
        loss, ctx = self.context(name, scale, dtype)
        loss = loss.to(dtype)
        assert_close(judged(loss, ctx), judged(deepcopy(loss).double(), cast(ctx, torch.float64)))


@HALF
@pytest.mark.parametrize("autocast", [True, False], ids=["autocast", "cast"])
@pytest.mark.parametrize("name", FUSIONS)
def test_fusions(name, autocast, dtype):
    found = fusion_bench(SUBJECTS["fusion", name])
    wanted = found.outputs()
    signals = {key: x if autocast else x.to(dtype) for key, x in found.batch.signals.items()}
    if not autocast:
        found.fusion.to(dtype)
        for teacher in found.teachers.values():
            teacher.to(dtype)
    with torch.autocast("cpu", dtype, enabled=autocast):
        outputs = found.outputs(Batch(found.batch.rows, signals, found.batch.labels))
    for key, each in outputs.items():
        for one, other in [
            (each.logits, wanted[key].logits),
            *((each.features[tap], x) for tap, x in wanted[key].features.items()),
        ]:
            assert one.isfinite().all()
            torch.testing.assert_close(one.float(), other, rtol=0.05, atol=0.02 * other.abs().max().item())


def test_losses_and_fusions_are_found():
    assert {"gsdm", "rkd", "acs", "kl", "semantic-match"} <= set(LOSSES)
    assert FUSIONS == ["spamfm"]


@pytest.mark.parametrize("name", ["fitnet", "ca-mkd"])
@pytest.mark.parametrize(
    ("change", "dtype", "device"),
    [
        (lambda loss: loss.bfloat16(), torch.float32, "cpu"),
        (lambda loss: loss.to("meta", torch.float16), torch.float32, "meta"),
        (lambda loss: loss.double(), torch.float64, "cpu"),
    ],
    ids=["bfloat16", "float16 elsewhere", "float64"],
)
def test_parameters_of_feature_losses_stay_in_float32_at_least(name, change, dtype, device):
    options = {"features": 1.0} if name == "ca-mkd" else {"regressor": "always"}
    ctx = loss_bench(SUBJECTS["loss", name]).ctx
    loss = SUBJECTS["loss", name].made(options)
    tap = torch.ones(len(ctx.batch), 3, 4)
    student, teacher = Outputs(ctx.student.logits, {"features": tap}), Outputs(ctx.student.logits, {"features": tap[:, :2]})
    loss.setup(Example(student, {"teacher": teacher}, 5))
    before = [parameter.detach().clone() for parameter in loss.parameters()]
    changed = list(change(loss).parameters())
    assert len(changed) == 1
    assert {(each.dtype, each.device.type) for each in changed} == {(dtype, device)}
    if device == "cpu":
        assert all(one.equal(other.to(one.dtype)) for one, other in zip(changed, before, strict=True))

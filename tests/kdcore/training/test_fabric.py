"""Devices that a recipe asks for and a machine has not got."""

from __future__ import annotations

import learning
import pytest
import torch
from lightning_fabric import Fabric

from kdcore.errors import KdcoreError
from kdcore.recipe.models import EngineSpec
from kdcore.training.engine import Engine
from kdcore.training.fabric import make_fabric, one_cpu


@pytest.mark.parametrize(
    ("accelerator", "there"),
    [
        ("mps", torch.backends.mps.is_available()),
        ("cuda", torch.cuda.is_available()),
        ("gpu", torch.cuda.is_available() or torch.backends.mps.is_available()),
    ],
)
def test_an_accelerator_that_is_not_there_is_named_with_those_that_are(accelerator, there):
    if there:
        assert make_fabric(EngineSpec(accelerator=accelerator)).device.type != "cpu"
        return
    said = rf"^engine.accelerator: accelerator '{accelerator}' is not available \(available: cpu\)$"
    with pytest.raises(KdcoreError, match=said):
        make_fabric(EngineSpec(accelerator=accelerator))


def test_half_precision_that_a_cpu_would_replace_by_another_is_refused():
    with pytest.raises(KdcoreError, match="16-mixed is for GPUs; on a CPU write bf16-mixed"):
        make_fabric(EngineSpec(accelerator="cpu", precision="16-mixed"))


@pytest.mark.parametrize("accelerator", ["cpu", "auto"])
def test_more_devices_than_there_are_start_no_process(accelerator):
    with pytest.raises(
        KdcoreError, match=r"^engine\.devices: 1024 requested, but this machine has only \d+ (processor cores?|GPUs?)$"
    ):
        make_fabric(EngineSpec(accelerator=accelerator, devices=1024))


@pytest.mark.parametrize(
    "options",
    [{"devices": 2}, {"devices": "auto"}, {"strategy": "ddp"}, {"precision": "bf16-mixed"}, {"accelerator": "cuda"}],
    ids=str,
)
def test_a_rehearsal_without_fabric_is_for_one_process_on_the_cpu_in_float32(options, monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    here = one_cpu(EngineSpec(accelerator="cpu"))
    assert here is not None
    assert here.device == make_fabric(EngineSpec(accelerator="cpu")).device
    assert one_cpu(EngineSpec(**{"accelerator": "cpu", **options})) is None
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    assert one_cpu(EngineSpec(accelerator="cpu")) is None


def test_one_cpu_trains_to_the_same_bits_as_fabric(tmp_path, monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    table, states = learning.table(tmp_path), []
    for fabric in (make_fabric(EngineSpec(accelerator="cpu")), Fabric(accelerator="cpu", devices=1)):
        made = learning.distiller(table)
        Engine(fabric, made, table, learning.SETTINGS).fit([learning.teachers(), learning.students(gradient_clip=1.0)])
        states.append(learning.state_of(made))
    assert learning.same_state(*states)

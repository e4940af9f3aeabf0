"""Half precision that gives other logits than float32 stops a run before it trains."""

from __future__ import annotations

import pytest
import torch
import toys
from lightning_fabric import Fabric
from torch import nn

from kdcore.data.pipeline import Pipeline
from kdcore.errors import TrainingError
from kdcore.training.participants import Distiller
from kdcore.training.precision_check import check_precision


class WrongUnderAutocast(nn.Module):
    """Scales what it gets by `factor` under autocast, in the first `times` passes."""

    def __init__(self, factor: float, times: int):
        super().__init__()
        self.factor, self.left = factor, times

    def forward(self, x):
        if not torch.is_autocast_enabled("cpu") or not self.left:
            return x
        self.left -= 1
        return x * self.factor


@pytest.fixture
def table(tmp_path):
    folder = tmp_path / "recordings"
    folder.mkdir()
    return toys.table(toys.Files(toys.write(folder)), {"student": Pipeline([toys.branch()])}, tmp_path / "cache")


def checked(table, *layers, precision="bf16-mixed"):
    member = toys.participant("student", 2)
    member.encoder = nn.Sequential(member.encoder, *layers)
    distiller = Distiller({}, {"student": member}).train()
    fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
    check_precision(distiller, table, table.rows["train"][:4], fabric, precision)
    assert all(module.training for module in distiller.modules())


def test_rounding_is_accepted(table):
    checked(table)


def test_a_network_whose_values_do_not_fit_is_refused(table):
    with pytest.raises(TrainingError, match=r"student: logits .* in bf16-mixed do not agree .* Its values do not fit"):
        checked(table, WrongUnderAutocast(1e30, times=-1))


@pytest.mark.parametrize("factor", [1e36, float("nan")])
def test_a_fault_that_a_repetition_does_not_show_is_the_platforms(table, factor):
    with pytest.raises(TrainingError, match="The same pass repeated gave other values"):
        checked(table, WrongUnderAutocast(factor, times=1))


def test_float32_is_not_checked(table):
    checked(table, WrongUnderAutocast(1e30, times=-1), precision="32-true")

"""Losses learn the shapes of inputs before training, for example for a generator."""

from __future__ import annotations

import pytest
import torch

from kdcore import Example, Outputs
from kdcore.runs.run import dry_run

LOSS = """
import torch
from kdcore import DistillationLoss, Needs, hookimpl

class Generated(DistillationLoss):
    needs = Needs(teachers=1, forward_passes="all")

    def setup(self, example):
        self.shapes = {name: example.input_shape(name) for name in ("", *example.teachers)}

    def forward(self, ctx):
        assert self.shapes == {name: tuple(ctx.input(name).shape[1:]) for name in self.shapes}
        assert self.shapes[""] != self.shapes["skeleton"]
        return ctx.forward(torch.ones(2, *self.shapes[""])).logits.square().mean()

@hookimpl
def register_losses(register):
    register("generated", "shape_loss:Generated")
"""


def test_a_loss_knows_the_shapes_of_inputs_when_it_is_set_up(home):
    home.write(seeds=[0], losses=["cross-entropy", "generated"], plugins=["shape_loss.py"])
    (home.recipe.parent / "shape_loss.py").write_text(LOSS)
    assert [term.term for term in dry_run(home.recipe).terms] == ["cross-entropy", "cross-entropy", "generated"]


def test_an_unknown_shape_is_an_error():
    example = Example(Outputs(torch.zeros(2, 3)), input_shapes={"": (3, 8)})
    assert example.input_shape() == (3, 8)
    with pytest.raises(ValueError, match="the shape of the input of 'camera' is unknown"):
        example.input_shape("camera")

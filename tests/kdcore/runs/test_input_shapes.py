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


SUBJECTS = """
import torch
from kdcore import DistillationLoss, hookimpl

class Subjects(DistillationLoss):
    def setup(self, example):
        keys = [(key.subject, key.action, key.trial) for key in example.keys]
        assert sorted(keys) == sorted((s, a, t) for s in ("1", "2") for a in ("1", "6", "13") for t in ("1", "2", "3")), keys
        self.known = set(keys)
        self.head = torch.nn.Linear(3, len({key.subject for key in example.keys}))

    def forward(self, ctx):
        assert all((key.subject, key.action, key.trial) in self.known for key in ctx.batch.keys)
        return self.head(ctx.student.logits).square().mean()

@hookimpl
def register_losses(register):
    register("subjects", "subject_loss:Subjects")
"""


def test_a_loss_knows_the_samples_that_its_learner_is_trained_on(home):
    protocol = {"name": "cross-subject", "train_subjects": [1, 2], "test_subjects": [3]}
    dataset = {"name": "synthetic-motion", "subjects": 3, "trials": 3, "actions": ["wave", "punch", "sit down"]}
    data = {"dataset": dataset, "protocol": protocol, "batch_size": 3}
    schedule = {"name": "two-stage", "teachers": {"epochs": 1}, "student": {"epochs": 1}}
    home.write(
        seeds=[0],
        losses=["cross-entropy", "soft-target", "subjects"],
        plugins=["subject_loss.py"],
        data=data,
        schedule=schedule,
    )
    (home.recipe.parent / "subject_loss.py").write_text(SUBJECTS)
    assert dry_run(home.recipe).terms[-1].term == "subjects"


def test_an_unknown_shape_is_an_error():
    example = Example(Outputs(torch.zeros(2, 3)), input_shapes={"": (3, 8)})
    assert example.input_shape() == (3, 8)
    with pytest.raises(ValueError, match="the shape of the input of 'camera' is unknown"):
        example.input_shape("camera")

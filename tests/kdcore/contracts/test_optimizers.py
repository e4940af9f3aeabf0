"""Optimizers that a recipe may name, and what is said of those it may not."""

import inspect
import subprocess
import sys

import pytest
import torch
from torch import nn

from kdcore.contracts.optimizers import _classes, build_optimizer, problem_with

OFFERED = sorted(name.lower() for name in dir(torch.optim) if not problem_with({"name": name}))


@pytest.mark.parametrize("name", OFFERED)
def test_whatever_is_offered_trains_a_network(name):
    network = nn.Sequential(nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3), nn.Flatten(), nn.Linear(6, 2))
    before = [parameter.detach().clone() for parameter in network.parameters()]
    optimizer = build_optimizer({"name": name}, network.parameters())
    network(torch.randn(5, 2, 4)).square().sum().backward()
    optimizer.step()
    assert any(not torch.equal(*pair) for pair in zip(before, network.parameters(), strict=True))


def test_the_usual_ones_are_offered():
    assert {"adam", "adamw", "sgd", "rmsprop", "adagrad"} <= set(OFFERED)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("LBFGS", "needs a closure"), ("sparseadam", "requires sparse gradients"), ("muon", "optimizes matrices only")],
)
def test_those_that_cannot_work_here_are_refused_with_the_reason(name, reason):
    assert problem_with({"name": name}).startswith(f"optimizer {name.lower()!r} cannot be used: it {reason}")
    assert name.lower() not in problem_with({"name": "zzz"}), "nor are they among the known ones"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lr": "1e-3x"}, "option 'lr' must be a number, not '1e-3x'"),
        ({"lr": None}, "option 'lr' must be a number, not None"),
        ({"lr": True}, "option 'lr' must be a number, not True"),
        ({"betas": 0.9}, "option 'betas' must be a list of 2 numbers, not 0.9"),
        ({"betas": [0.9]}, "option 'betas' must be a list of 2 numbers, not [0.9]"),
        ({"betas": [0.9, None]}, "option 'betas' must be a list of 2 numbers, not [0.9, None]"),
        ({"amsgrad": "yes"}, "option 'amsgrad' must be true or false, not 'yes'"),
    ],
)
def test_options_of_the_wrong_kind(options, said):
    assert problem_with(options) == f"optimizer 'adamw': {said}"


def test_options_of_the_right_kind():
    assert not problem_with({"lr": 1, "betas": [0.9, 0.95], "amsgrad": True, "foreach": None})
    assert not problem_with({"name": "adafactor", "eps": [None, 1e-3]})


@pytest.mark.parametrize("name", OFFERED)
def test_steps_are_those_of_torch_to_the_bit(name):
    options = {"name": name, "lr": 0.01} | ({"momentum": 0.9} if name == "sgd" else {})
    weights, states = [], []
    for build in (build_optimizer, as_torch_has_it):
        torch.manual_seed(0)
        parameters = [torch.nn.Parameter(torch.randn(4, 3)), torch.nn.Parameter(torch.randn(3))]
        optimizer = build(options, parameters)
        for _ in range(4):
            for parameter in parameters:
                parameter.grad = torch.randn_like(parameter)
            optimizer.step()
            optimizer.load_state_dict(optimizer.state_dict())
        weights.append(torch.cat([each.detach().flatten() for each in parameters]))
        states.append(optimizer.state_dict())
    assert torch.equal(*weights)
    assert str(states[0]) == str(states[1])


def as_torch_has_it(options, parameters):
    cls = _classes()[options["name"]]
    fused = {"fused": True} if "fused" in inspect.signature(cls).parameters else {}
    return cls(parameters, **{key: value for key, value in options.items() if key != "name"}, **fused)


def test_training_on_a_cpu_imports_neither_fabric_nor_the_compiler():
    code = """
import sys, torch
from kdcore.contracts.optimizers import build_optimizer
from kdcore.recipe.models import EngineSpec
from kdcore.training.fabric import make_fabric
weight = torch.nn.Parameter(torch.ones(2))
optimizer = build_optimizer({"name": "adamw"}, [weight])
make_fabric(EngineSpec(accelerator="cpu")).backward(weight.sum())
optimizer.step()
optimizer.zero_grad()
print({"torch._dynamo", "lightning_fabric"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr

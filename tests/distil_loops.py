"""Students, and the training loops of `kdcore.distil` written by hand."""

from __future__ import annotations

import torch
from torch import nn

CLASSES = 3
SGD = {"name": "sgd", "lr": 0.1, "momentum": 0.9, "foreach": False, "fused": False}


def mlp(width: int, inputs: int = 6, dropout: float = 0.0) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, CLASSES))


def soft_target(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """Hinton's loss, written as in his paper: T² KL(teacher ‖ student)."""
    p, log_q = (teacher / temperature).softmax(-1), (student / temperature).log_softmax(-1)
    return temperature**2 * (p * (p.log() - log_q)).sum(-1).mean()


def by_hand(student, teacher, loader, epochs: int, lr: float, objective) -> nn.Module:
    optimizer = torch.optim.SGD(student.parameters(), lr=lr, momentum=0.9)
    student.train()
    teacher.eval()
    for _ in range(epochs):
        for x, y in loader:
            z = student(x)
            with torch.no_grad():
                t = teacher(x)
            optimizer.zero_grad()
            objective(z, t, y).backward()
            optimizer.step()
    return student


def same(one: nn.Module, other: nn.Module, **tolerance: float) -> None:
    for (name, a), (_, b) in zip(one.state_dict().items(), other.state_dict().items(), strict=True):
        torch.testing.assert_close(a, b, msg=name, **(tolerance or {"rtol": 0, "atol": 0}))


def lambda_module(teacher: nn.Module, factor: float) -> nn.Module:
    class Scaled(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return teacher(factor * x)

    return Scaled()

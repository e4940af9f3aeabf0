"""A student that is trained alone, to be compared with plain loops of PyTorch."""

from __future__ import annotations

import copy
from dataclasses import replace

import learning
import torch
from learning import Labels
from torch import nn

from kdcore import Participant
from kdcore.training.participants import Distiller, TermSpec

SGD = {"name": "sgd", "lr": 0.1, "momentum": 0.9}


def layers(norm=True):
    middle = nn.BatchNorm1d(4) if norm else nn.Identity()
    return [nn.Conv1d(2, 4, 3), middle, nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 2)]


class Rows(Labels):
    """Cross-entropy; notes the rows of each batch, and the parameters before it."""

    def __init__(self, rows, encoder=None, weights=None):
        super().__init__()
        self.rows, self.watched, self.weights = rows, [encoder], weights

    def forward(self, ctx):
        self.rows.append(ctx.batch.rows.tolist())
        if self.weights is not None:
            self.weights.append([p.detach().double().clone() for p in self.watched[0].parameters()])
        return super().forward(ctx)


def student(table, norm=False, double=True, weights=None):
    """A student that draws no random numbers, its first state, and the batches that it will see."""
    torch.manual_seed(5)
    encoder = nn.Sequential(*layers(norm))
    rows: list[list[int]] = []
    made = Distiller({}, {"student": Participant("student", encoder)})
    made.add_terms("student", [TermSpec("labels", 1.0, lambda: Rows(rows, encoder, weights))], lambda _: None)
    return made, copy.deepcopy(encoder), rows


def stage(epochs=2, **options):
    made = learning.students(epochs=epochs, taught=(), **{"optimizer": SGD} | options)
    return replace(made, accumulate=options.get("accumulate", 1))

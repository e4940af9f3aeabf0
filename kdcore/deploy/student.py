"""Trained students as PyTorch modules: single students and ensembles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from kdcore.contracts.modality import Modality, Signal
from kdcore.contracts.target import with_units
from kdcore.data.branch import Branch
from kdcore.data.pipeline import BatchTransforms, bare
from kdcore.data.reading import as_array
from kdcore.deploy.predictor import Predictor, Rate
from kdcore.errors import DataError

Rule = Literal["average", "max"]
"""The rule by which an ensemble combines the probabilities of its students."""

AT_ONCE = 256
"""Number of recordings or windows in one forward pass."""


class Model(nn.Module):
    """A student's transforms on batches and its encoder, as one module."""

    def __init__(self, batch_transforms: BatchTransforms, encoder: nn.Module):
        super().__init__()
        self.batch_transforms = batch_transforms
        self.encoder = encoder

    def forward(self, signal: Tensor | tuple[Tensor, ...]) -> Tensor:
        """Logits (B, classes)."""
        return self.encoder(self.batch_transforms(signal))


class Student(Predictor, nn.Module):
    """A trained student: a module in evaluation mode, with its preprocessing.

    `predict` takes raw recordings. Called as a module, it maps preprocessed ones to logits:
    ``student(student.preprocess(x))``.

    Args:
        branches: Transforms of the recordings of each modality.
        model: Batch transforms and encoder.
        description: Classes, inputs, preprocessing and versions.
    """

    def __init__(self, branches: Sequence[Branch], model: Model, description: Mapping[str, Any]):
        nn.Module.__init__(self)
        self.branches = list(branches)
        self.model = model
        self.description = description
        self._reads = {branch.modality.name: branch.modality for branch in self.branches}
        self._in_shape = tuple(description["in_shape"])
        self.eval()

    @property
    def reads(self) -> dict[str, Modality]:
        """Modalities it reads, by name, in order."""
        return self._reads

    def rate_read(self, name: str) -> float | None:
        """Samples per second that recordings of a modality must have; None if they are resampled, or have no rate of their own.

        Args:
            name: Of the modality.
        """
        for branch in self.branches:
            if branch.modality.name == name and (rate := branch.modality.rate):
                other = replace(branch, modality=replace(branch.modality, rate=2 * rate))
                return rate if other.spec.rate == 2 * rate else None
        return None

    def extra_repr(self) -> str:
        """Inputs, the rate it was trained at, and classes, for ``print(student)``."""
        lines = []
        for name, modality in self.reads.items():
            shape = self.recorded(name).get("shape") or [0] * len(modality.axes)
            sizes = [
                axis if axis == "time" or not size else f"{axis} {size}"
                for axis, size in zip(modality.axes, shape, strict=True)
            ]
            rate = f"{modality.rate:g} Hz" if modality.rate else "any rate, to be given"
            units = f" in {modality.units}" if modality.units else ""
            lines.append(f"{name}: ({', '.join(sizes)}){units} at {rate}")
        return "\n".join([*lines, f"{self.target.kind}: {', '.join(with_units(self.classes, self.target))}"])

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, classes) of preprocessed recordings (B, …)."""
        return self.model.encoder(x)

    def preprocess(self, recordings: Any, window: tuple[float, float] | None = None, *, rate: Rate = None) -> Tensor:
        """The encoder's input (B, …): B recordings, or all of their windows in order.

        Args:
            recordings: As `predict` takes them.
            window: Length and hop in seconds; those it was trained on by default.
            rate: Samples per second of arrays; the modality's by default.

        Raises:
            DataError: If a recording is unfit, or a modality or rate is missing.
        """
        _, pieces = self._pieces_of_each(recordings, window, rate)
        with torch.no_grad():
            return self._ready(list(chain.from_iterable(pieces)))

    def logits(self, pieces: Sequence[Mapping[str, Signal]]) -> np.ndarray:
        """Logits (pieces, classes)."""
        was = self.training
        if was:
            self.eval()
        try:
            with torch.inference_mode():
                parts = [pieces[first : first + AT_ONCE] for first in range(0, len(pieces), AT_ONCE)]
                return np.concatenate([self.model.encoder(self._ready(part)).numpy() for part in parts])
        finally:
            if was:
                self.train()

    def _ready(self, pieces: Sequence[Mapping[str, Signal]]) -> Tensor:
        try:
            ready = self.model.batch_transforms(
                bare(tuple(torch.from_numpy(_stacked(pieces, branch)) for branch in self.branches))
            )
        except (ValueError, RuntimeError) as error:
            raise DataError(str(error)) from error
        if ready.shape[1:] != self._in_shape:
            raise DataError(
                f"the recording becomes a tensor of shape {tuple(ready.shape[1:])}, but the student reads {self._in_shape}; "
                "check its sampling rate and length"
            )
        return ready


def _stacked(pieces: Sequence[Mapping[str, Signal]], branch: Branch) -> np.ndarray:
    arrays = [as_array(piece[branch.modality.name], branch) for piece in pieces]
    if len({array.shape for array in arrays}) > 1:
        shapes = " and ".join(sorted({str(array.shape) for array in arrays})[:2])
        raise ValueError(f"recordings of a batch become tensors of different shapes: {shapes}")
    return np.stack(arrays)


class Ensemble(Predictor):
    """An ensemble of students; its `members` can also be used alone.

    Args:
        members: Name → student, with the same classes and windows.
        rule: ``average`` of their probabilities, or the ``max`` over students, normalised to sum to 1.

    Raises:
        DataError: If their classes or windows differ, or there is no such rule.
    """

    def __init__(self, members: Mapping[str, Student], rule: Rule = "average"):
        if rule not in get_args(Rule):
            raise DataError(f"an ensemble combines its students by {' or '.join(get_args(Rule))}, not {rule!r}")
        first = next(iter(members.values()))
        for name, other in members.items():
            if (other.classes, other.window, other.target) != (first.classes, first.window, first.target):
                raise DataError(f"student {name!r} has other classes or windows than {next(iter(members))!r}")
        if first.target.kind == "values" and rule != "average":
            raise DataError(f"the {rule} of several students' values means nothing: combine them by average")
        self.members = dict(members)
        self.rule: Rule = rule
        recorded = {key: each for member in members.values() for key, each in member.description.get("recorded", {}).items()}
        self.description = {**first.description, "recorded": recorded}

    @property
    def reads(self) -> dict[str, Modality]:
        """Modalities that any of its members reads."""
        return {name: modality for member in self.members.values() for name, modality in member.reads.items()}

    def rate_read(self, name: str) -> float | None:
        """That of the first of its members that has one."""
        return next((rate for member in self.members.values() if (rate := member.rate_read(name))), None)

    def logits(self, pieces: Sequence[Mapping[str, Signal]]) -> np.ndarray:
        """Logarithms of the combined probabilities, (pieces, classes); of labels log-odds, of values their mean."""
        return self.combine([torch.from_numpy(member.logits(pieces)) for member in self.members.values()]).numpy()

    def combine(self, logits: Sequence[Tensor]) -> Tensor:
        """Logarithms of the combined probabilities, (B, classes).

        .. math:: p = \\tfrac1K \\textstyle\\sum_k p_k \\quad\\text{or}\\quad p_c = \\max_k p_{kc} / \\sum_d \\max_k p_{kd}

        Of labels, the log-odds of the mean or of the largest probability; of values, their mean.

        Args:
            logits: (B, classes) of each member.
        """
        kind = self.target.kind
        if kind == "values":
            return torch.stack(list(logits)).mean(0)
        if kind == "labels":
            chances = torch.stack([each.double().sigmoid() for each in logits])
            together = chances.mean(0) if self.rule == "average" else chances.amax(0)
            return together.logit(eps=torch.finfo(torch.float64).eps).to(logits[0].dtype)
        logs = torch.stack([each.log_softmax(-1) for each in logits])
        together = logs.logsumexp(0) if self.rule == "average" else logs.amax(0)
        return together.log_softmax(-1)

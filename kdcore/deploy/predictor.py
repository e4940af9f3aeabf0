"""What answers for raw signals: a trained student, or several of them taken together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from kdcore.contracts.modality import Modality, Signal
from kdcore.data.data_cache import as_array
from kdcore.data.pipeline import Branch, Live, bare
from kdcore.data.windows import Span, cut, windows
from kdcore.errors import DataError

Rule = Literal["average", "max"]
"""How the probabilities of several students become one answer."""

AT_ONCE = 256
"""Windows answered in one pass."""


class Predictor(ABC):
    """Class probabilities for raw recordings.

    Attributes:
        description: What its folder says about it.
    """

    description: Mapping[str, Any]

    @property
    @abstractmethod
    def reads(self) -> dict[str, Modality]:
        """What it reads, by name, in order."""

    @abstractmethod
    def answers(self, signals: Mapping[str, Signal], spans: Sequence[Span | None]) -> Tensor:
        """Logits (spans, classes) of these stretches of a recording; None stands for all of it.

        Raises:
            DataError: If the recording is unfit.
        """

    @property
    def classes(self) -> list[str]:
        """Class names, in the order of the probabilities."""
        return list(self.description["classes"])

    @property
    def modalities(self) -> list[str]:
        """Names of what it reads, in order."""
        return list(self.reads)

    @property
    def window(self) -> tuple[float, float] | None:
        """Length and hop in seconds of the windows it was trained on; None for whole recordings."""
        window = self.description.get("window")
        return (window["length"], window["hop"] or window["length"]) if window else None

    def spans(self, signals: Mapping[str, Signal], window: tuple[float, float] | None = None) -> list[Span | None]:
        """The stretches of a recording that are answered for: its windows, or ``[None]``, all of it.

        Args:
            signals: Modality → recording.
            window: Length and hop in seconds, in place of those it was trained on.

        Raises:
            DataError: If a modality is absent, or the recording is empty or shorter than a window.
        """
        for name in self.modalities:
            if name not in signals:
                raise DataError(f"the student needs {name}; given: {', '.join(signals) or 'nothing'}")
        window = window or self.window
        if not window:
            return [None]
        try:
            spans = windows([signals[name] for name in self.modalities], *window)
        except ValueError as error:
            raise DataError(str(error)) from error
        if not spans:
            raise DataError(f"the recording is shorter than a window of {window[0]:g} s")
        return list(spans)

    def pieces(self, signals: Mapping[str, Signal]) -> list[dict[str, Signal]]:
        """What of a recording is answered for, piece by piece: its windows, or all of it.

        Raises:
            DataError: As `spans`.
        """
        spans = self.spans(signals)
        return [{name: cut(signals[name], span) if span else signals[name] for name in self.modalities} for span in spans]

    def predict(self, signals: Mapping[str, Signal], window: tuple[float, float] | None = None) -> np.ndarray:
        """Class probabilities, (windows, classes); one row for all of a recording where there are no windows.

        Args:
            signals: Modality → recording.
            window: Length and hop in seconds, in place of those it was trained on.

        Raises:
            DataError: If a modality is absent or its recording unfit.
        """
        return self.answers(signals, self.spans(signals, window)).softmax(-1).numpy()


class Model(nn.Module):
    """A student's transforms on batches and its encoder, as one module."""

    def __init__(self, live: Live, encoder: nn.Module):
        super().__init__()
        self.live = live
        self.encoder = encoder

    def forward(self, signal: Tensor | tuple[Tensor, ...]) -> Tensor:
        """Logits (B, classes)."""
        return self.encoder(self.live(signal))


@dataclass
class Student(Predictor):
    """A trained student, ready for raw signals.

    Args:
        branches: Per modality, how a recording becomes a tensor.
        model: Tensors of the branches → logits.
        description: What the folder says about it.
    """

    branches: list[Branch]
    model: Model
    description: Mapping[str, Any]

    @property
    def reads(self) -> dict[str, Modality]:
        """What it reads, by name, in order."""
        return {branch.modality.name: branch.modality for branch in self.branches}

    @torch.no_grad()
    def answers(self, signals: Mapping[str, Signal], spans: Sequence[Span | None]) -> Tensor:
        """Logits (spans, classes)."""
        fit = {name: self._fitting(name, signals[name]) for name in self.modalities}
        parts = [spans[first : first + AT_ONCE] for first in range(0, len(spans), AT_ONCE)]
        return torch.cat([self._pass(fit, part) for part in parts])

    def _pass(self, signals: Mapping[str, Signal], spans: Sequence[Span | None]) -> Tensor:
        wanted = tuple(self.description["in_shape"])
        try:
            tensors = tuple(
                torch.from_numpy(_stacked(signals[branch.modality.name], spans, branch)) for branch in self.branches
            )
            ready = self.model.live(bare(tensors))
        except (ValueError, RuntimeError) as error:
            raise DataError(str(error)) from error
        if tuple(ready.shape[1:]) != wanted:
            raise DataError(
                f"the recording becomes a tensor of shape {tuple(ready.shape[1:])}, but the student reads {wanted}: "
                "was it recorded at another rate, or is it of another length?"
            )
        return self.model.encoder(ready)

    def _fitting(self, name: str, signal: Signal) -> Signal:
        """The signal, if it is shaped as those the student has learnt from."""
        modality, values = self.reads[name], np.asarray(signal.values)
        recorded = self.description.get("recorded", {}).get(name, {})
        shape = recorded.get("shape") or _shape_of(modality)
        same = [axis in ("channel", "joint") and size for axis, size in zip(modality.axes, shape, strict=True)]
        if values.ndim != len(shape) or any(size and size != here for size, here in zip(same, values.shape, strict=True)):
            wanted = ", ".join(f"{axis} {size}" if size else axis for axis, size in zip(modality.axes, same, strict=True))
            raise DataError(f"{name}: the student reads ({wanted}), the recording has shape {values.shape}")
        if values.dtype.kind not in "fiub":
            raise DataError(f"{name}: the recording holds no numbers but {values.dtype}")
        whole = values.dtype.kind in "iub" and recorded.get("dtype", "").startswith("float")
        return signal.with_values(values.astype(np.float32)) if whole else signal


def _shape_of(modality: Modality) -> list[int]:
    return [len(modality.channels) if axis == "channel" else 0 for axis in modality.axes]


def _stacked(signal: Signal, spans: Sequence[Span | None], branch: Branch) -> np.ndarray:
    return np.stack([as_array(cut(signal, span) if span else signal, branch) for span in spans])


class Ensemble(Predictor):
    """Several students that answer as one. Each can still be asked alone: they are `members`.

    Args:
        members: Students by name, of the same classes.
        rule: ``average`` of their probabilities, or the ``max`` over students, scaled to sum to 1 again.

    Raises:
        DataError: If they do not know the same classes and windows, or there is no such rule.
    """

    def __init__(self, members: Mapping[str, Student], rule: Rule = "average"):
        if rule not in get_args(Rule):
            raise DataError(f"students are taken together by {' or '.join(get_args(Rule))}, not {rule!r}")
        first = next(iter(members.values()))
        for name, other in members.items():
            if other.classes != first.classes or other.window != first.window:
                raise DataError(f"student {name!r} knows other classes or windows than {next(iter(members))!r}")
        self.members = dict(members)
        self.rule: Rule = rule
        self.description = first.description

    @property
    def reads(self) -> dict[str, Modality]:
        """What any of its members reads."""
        return {name: modality for member in self.members.values() for name, modality in member.reads.items()}

    def answers(self, signals: Mapping[str, Signal], spans: Sequence[Span | None]) -> Tensor:
        """Logarithms of the probabilities taken together, (spans, classes)."""
        return self.taken_together([member.answers(signals, spans) for member in self.members.values()])

    def taken_together(self, logits: Sequence[Tensor]) -> Tensor:
        """One answer of all, as logits that are logarithms of probabilities.

        .. math:: p = \\tfrac1K \\textstyle\\sum_k p_k \\quad\\text{or}\\quad p_c = \\max_k p_{kc} / \\sum_d \\max_k p_{kd}

        Args:
            logits: (B, classes) of each member.
        """
        logs = torch.stack([each.log_softmax(-1) for each in logits])
        together = logs.logsumexp(0) if self.rule == "average" else logs.amax(0)
        return together.log_softmax(-1)

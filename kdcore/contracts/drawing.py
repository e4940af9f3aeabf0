"""Drawings of recordings that the core asks plugins for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kdcore.contracts.modality import Modality, Signal
from kdcore.contracts.target import TargetKind


@dataclass(frozen=True)
class Labelled:
    """A class that a part of a recording was taken for, or a label that it was found to have.

    Args:
        start: In seconds, on the recording's clock.
        end: In seconds.
        label: Name of the class or label.
        probability: Of it, 0 to 1.
    """

    start: float
    end: float
    label: str
    probability: float


@dataclass(frozen=True)
class Estimated:
    """Values that were estimated for a part of a recording.

    Args:
        start: In seconds, on the recording's clock.
        end: In seconds.
        values: Name, with the unit if there is one → value.
    """

    start: float
    end: float
    values: Mapping[str, float]


@dataclass(frozen=True)
class Drawing:
    """A recording to draw.

    Args:
        heading: Drawings of one heading stand together.
        caption: Below the drawing.
        modality: Of the recording.
        signal: What was recorded.
        predictions: Classes or labels along its time, to be drawn below it.
        estimates: Values along its time, likewise.
        kind: What is drawn along its time.
    """

    heading: str
    caption: str
    modality: Modality
    signal: Signal
    predictions: Sequence[Labelled] = ()
    estimates: Sequence[Estimated] = ()
    kind: TargetKind = "classes"

"""Drawings of recordings that the core asks plugins for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kdcore.contracts.modality import Modality, Signal


@dataclass(frozen=True)
class Labelled:
    """A class that a part of a recording was taken for.

    Args:
        start: In seconds, on the recording's clock.
        end: In seconds.
        label: Class name.
        probability: Of that class, 0 to 1.
    """

    start: float
    end: float
    label: str
    probability: float


@dataclass(frozen=True)
class Drawing:
    """A recording to draw.

    Args:
        heading: Drawings of one heading stand together.
        caption: Below the drawing.
        modality: Of the recording.
        signal: What was recorded.
        predictions: Classes along its time, to be drawn below it.
    """

    heading: str
    caption: str
    modality: Modality
    signal: Signal
    predictions: Sequence[Labelled] = ()

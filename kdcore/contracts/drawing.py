"""Data for drawings of recordings, which plugins render."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kdcore.contracts.modality import Modality, Signal
from kdcore.contracts.target import TargetKind


@dataclass(frozen=True)
class Labelled:
    """A predicted class or label of an interval of a recording.

    Args:
        start: Start of the interval in seconds, on the recording's clock.
        end: End of the interval in seconds.
        label: Name of the class or label.
        probability: Predicted probability, 0 to 1.
    """

    start: float
    end: float
    label: str
    probability: float


@dataclass(frozen=True)
class Estimated:
    """Predicted values of an interval of a recording.

    Args:
        start: Start of the interval in seconds, on the recording's clock.
        end: End of the interval in seconds.
        values: Name, including the unit if there is one → value.
    """

    start: float
    end: float
    values: Mapping[str, float]


@dataclass(frozen=True)
class Drawing:
    """A recording to draw.

    Args:
        heading: Heading of the group of drawings that this one belongs to.
        caption: Caption below the drawing.
        modality: Modality of the recording.
        signal: The recorded signal.
        predictions: Predicted classes or labels over time, drawn below the signal.
        estimates: Predicted values over time, drawn below the signal.
        kind: Kind of the predictions.
    """

    heading: str
    caption: str
    modality: Modality
    signal: Signal
    predictions: Sequence[Labelled] = ()
    estimates: Sequence[Estimated] = ()
    kind: TargetKind = "classes"

"""Checks of modalities."""

from __future__ import annotations

from kdcore.contracts.modality import Modality
from kdcore.testing.case import require
from kdcore.testing.checks import Subject, check


@check("modality")
def well_formed(subject: Subject) -> None:
    """It is a `Modality` registered under its own name, with units, and with a channel axis if it names channels."""
    modality = subject.entry.load()
    require(isinstance(modality, Modality), f"{subject.entry.target} is a {type(modality).__name__}, not a Modality object")
    require(modality.name == subject.entry.name, f"it is registered as {subject.entry.name!r} but named {modality.name!r}")
    require("time" in modality.axes, f"recordings need a time axis, but its axes are {modality.axes}")
    require(modality.units, "it does not state its units")
    require(not modality.channels or "channel" in modality.axes, f"it names channels, but has axes {modality.axes}")
    require(modality.rate is None or modality.rate > 0, f"its rate is {modality.rate}")

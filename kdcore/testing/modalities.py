"""Checks of modalities."""

from __future__ import annotations

from kdcore.contracts.modality import Modality
from kdcore.testing.case import require
from kdcore.testing.checks import Subject, check


@check("modality")
def well_formed(subject: Subject) -> None:
    """It is a `Modality` registered under its own name, with units, and with a channel axis if it names channels."""
    found = subject.entry.load()
    require(isinstance(found, Modality), f"{subject.entry.target} is a {type(found).__name__}, not a Modality object")
    require(found.name == subject.entry.name, f"it is registered as {subject.entry.name!r} but named {found.name!r}")
    require("time" in found.axes, f"recordings have time as their first axis, its axes are {found.axes}")
    require(found.units, "it does not state its units")
    require(not found.channels or "channel" in found.axes, f"it names channels, but has axes {found.axes}")
    require(found.rate is None or found.rate > 0, f"its rate is {found.rate}")

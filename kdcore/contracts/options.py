"""Marks of constructor parameters, which are a component's options."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class IfSet:
    """An option that a filled recipe leaves out while it has its default.

    A component that is given a new option marks it so, as ``Annotated[int, IfSet()]``; recipes from before then keep their
    hash, and data that were prepared by them stay valid.
    """

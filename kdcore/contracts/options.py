"""Annotations for constructor parameters, which are a component's options."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class IfSet:
    """Marks an option that filled recipes omit while it has its default value.

    Annotate a new option of an existing component as ``Annotated[int, IfSet()]``: older recipes then keep their hash, and
    their prepared data stay valid.
    """

"""A guess at the dataset that reads a folder, and its text in a recipe."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

FILL_IN = "FILL IN"
"""Starts the comment of a value that the files do not tell."""

Place = tuple[str, ...]
"""Keys from the dataset's section to a value."""


@dataclass
class Guess:
    """The dataset that reads a folder.

    Args:
        dataset: The section ``data.dataset``. A value of None is one that the files do not tell.
        why: Place of a value → the reason for it, or what to fill in.
        notes: Sentences on what was found and what is left out.
        protocol: The section ``data.protocol``.
        window: True for long recordings, which are cut into windows.
        gaps: True if recordings may be broken or lack signals.
    """

    dataset: dict[str, Any]
    why: dict[Place, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    protocol: str = "cross-subject"
    window: bool = False
    gaps: bool = False

    @property
    def missing(self) -> list[str]:
        """A sentence for each value to fill in."""
        return [
            f"data.dataset.{'.'.join(place)}: {said.removeprefix(FILL_IN).lstrip(': ')}"
            for place, said in self.why.items()
            if said.startswith(FILL_IN)
        ]

    @property
    def guessed(self) -> list[str]:
        """A sentence for each value that was guessed."""
        return [f"{'.'.join(place)}: {said}" for place, said in self.why.items() if not said.startswith(FILL_IN)]


def section(values: Mapping[str, Any], why: Mapping[Place, str], indent: int, place: Place = ()) -> Iterator[str]:
    """Lines of YAML for nested values, each with its comment."""
    for key, value in values.items():
        here = (*place, key)
        comment = f"  # {why[here]}" if here in why else ""
        start = f"{' ' * indent}{scalar(key)}:"
        if isinstance(value, Mapping) and value and not _short(value, why, here):
            yield start + comment
            yield from section(value, why, indent + 2, here)
        else:
            yield f"{start} {scalar(value)}".rstrip() + comment


def _short(value: Mapping[str, Any], why: Mapping[Place, str], place: Place) -> bool:
    """True for a mapping that fits into one line and has no comments of its own."""
    commented = any(each[: len(place)] == place and len(each) > len(place) for each in why)
    plain = not any(isinstance(each, Mapping) for each in value.values())
    return not commented and plain and len(scalar(value)) <= 60


def scalar(value: Any) -> str:
    """A value in YAML's flow style; empty for None."""
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{scalar(key)}: {scalar(each)}" for key, each in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(map(scalar, value)) + "]"
    if isinstance(value, str) and _plain(value):
        return value
    return json.dumps(value, ensure_ascii=False)


def _plain(text: str) -> bool:
    """True for text that YAML reads as the same text without quotes, here and inside brackets."""
    import yaml

    try:
        return yaml.safe_load(f"[{text}]") == [text] and yaml.safe_load(f"{{{text}: 1}}") == {text: 1} and "#" not in text
    except yaml.YAMLError:
        return False

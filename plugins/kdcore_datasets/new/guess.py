"""A detected dataset for a folder, and its text in a recipe."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

FILL_IN = "FILL IN"
"""Prefix of comments for values that could not be detected."""

Place = tuple[str, ...]
"""Path of a value in the dataset's section."""


@dataclass
class Guess:
    """A dataset that reads a folder.

    Args:
        dataset: The section ``data.dataset``. Values that could not be detected are None.
        why: Reasons for values, or what to fill in, by path of the value.
        notes: Sentences about what was found and what is skipped.
        protocol: The section ``data.protocol``.
        window: Whether recordings are long and cut into windows.
        length: Length of the windows in seconds.
        gaps: Whether recordings may be broken or lack signals.
    """

    dataset: dict[str, Any]
    why: dict[Place, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    protocol: str = "cross-subject"
    window: bool = False
    length: float = 2.0
    gaps: bool = False

    @property
    def missing(self) -> list[str]:
        """Return one sentence for each value to fill in."""
        return [
            f"data.dataset.{'.'.join(place)}: {said.removeprefix(FILL_IN).lstrip(': ')}"
            for place, said in self.why.items()
            if said.startswith(FILL_IN)
        ]

    @property
    def guessed(self) -> list[str]:
        """Return one sentence for each value that was guessed."""
        return [f"{'.'.join(place)}: {said}" for place, said in self.why.items() if not said.startswith(FILL_IN)]


def section(values: Mapping[str, Any], why: Mapping[Place, str], indent: int, place: Place = ()) -> Iterator[str]:
    """Return lines of YAML for nested values with their comments."""
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
    """Return whether a mapping fits on one line and contains no comments."""
    commented = any(each[: len(place)] == place and len(each) > len(place) for each in why)
    plain = not any(isinstance(each, Mapping) for each in value.values())
    return not commented and plain and len(scalar(value)) <= 60


def scalar(value: Any) -> str:
    """Format a value in YAML flow style; empty for None."""
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
    """Return whether YAML reads text as the same text without quotes, also inside brackets."""
    import yaml

    try:
        return yaml.safe_load(f"[{text}]") == [text] and yaml.safe_load(f"{{{text}: 1}}") == {text: 1} and "#" not in text
    except yaml.YAMLError:
        return False

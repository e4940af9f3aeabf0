"""File name patterns such as ``s{subject}/{action}_{trial}.csv``, which describe the recordings in files."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from kdcore import SampleKey
from kdcore_datasets.folders import refuse_folder

FIELDS = ("subject", "action", "trial", "view", "scene", "session")
"""Fields of `kdcore.SampleKey` that can be placeholders."""


@dataclass(frozen=True)
class FoundFile:
    """A file that matches a pattern, and the values of its placeholders."""

    path: Path
    values: dict[str, str]

    def key(self) -> SampleKey:
        """Return the values as a key; subject, action and trial are empty if the pattern does not contain them."""
        return replace(SampleKey("", "", ""), **self.values)


@dataclass(frozen=True)
class PathPattern:
    """A path relative to a folder, with placeholders.

    Args:
        text: ``{subject}``, ``{action}``, ``{trial}``, ``{view}``, ``{scene}`` and ``{session}`` match part of a name. A
            repeated placeholder must match the same text. ``*`` matches anything except a slash.

    Raises:
        ValueError: If another placeholder is used.
    """

    text: str
    fields: tuple[str, ...] = field(init=False)
    _regex: re.Pattern[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        seen: list[str] = []
        pieces = [self._piece(piece, seen) for piece in re.split(r"(\{[^}]*\}|\*)", self.text)]
        object.__setattr__(self, "_regex", re.compile("".join(pieces)))
        object.__setattr__(self, "fields", tuple(seen))

    def _piece(self, piece: str, seen: list[str]) -> str:
        if piece == "*":
            return "[^/]*"
        if not piece.startswith("{"):
            return re.escape(piece)
        name = piece[1:-1]
        if name not in FIELDS:
            raise ValueError(f"pattern {self.text!r} has {piece}; known placeholders are {', '.join(FIELDS)}")
        if name in seen:
            return f"(?P={name})"
        seen.append(name)
        return f"(?P<{name}>[^/]+?)"

    def match(self, relative: str) -> dict[str, str] | None:
        """Return the values of the placeholders in a path with forward slashes, or None if it does not match."""
        found = self._regex.fullmatch(relative)
        return found.groupdict() if found else None

    def find(self, root: Path) -> list[FoundFile]:
        """Return all matching files below `root`, sorted by path.

        Raises:
            DataError: If a folder cannot be read.
        """
        found = []
        for folder, _, names in os.walk(root, onerror=refuse_folder):
            for name in names:
                path = Path(folder, name)
                values = self.match(path.relative_to(root).as_posix())
                if values is not None:
                    found.append(FoundFile(path, values))
        return sorted(found, key=lambda each: each.path)

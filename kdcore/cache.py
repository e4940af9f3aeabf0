"""The cache folder, and small answers that are kept in it from one process to the next."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

SCHEMAS = "schemas"
"""Folder, within the cache folder, of what is known about components."""

LIMIT = 100
"""Answers kept per subject; beyond that, the oldest go."""


def cache_folder() -> Path:
    """Return ``$KDCORE_CACHE``, else ``kdcore`` in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("KDCORE_CACHE", Path(home) / "kdcore")).absolute()


class Answers:
    """Answers to questions about one subject, such as a component, in one file of the cache folder.

    Answers count only while what they rest on is unchanged: kdcore, Python, and the evidence stored with them. A file that
    cannot be read or written is treated as absent. Files are replaced as a whole, so concurrent processes never see half of
    one; of two processes that write at once, one loses its new answers, which are then found again.

    Args:
        subject: Identifies what the questions are about.
        holds: Whether stored evidence still holds; called at most once.
    """

    def __init__(self, subject: str, holds: Callable[[Any], bool]):
        identity = json.dumps([subject, sys.prefix])
        self._path = cache_folder() / SCHEMAS / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.json"
        self._subject = subject
        content = self._read()
        self._answers: dict[str, Any] = content["answers"] if content and holds(content["evidence"]) else {}

    def get(self, question: str) -> Any:
        """Return the answer, or None if there is none."""
        return self._answers.get(question)

    def put(self, question: str, answer: Any, evidence: Any) -> None:
        """Keep an answer, together with the stored ones that rest on the same evidence. Both are JSON values."""
        content = self._read()  # another process may have written in the meantime
        others = content["answers"] if content and content["evidence"] == evidence else {}
        others.pop(question, None)
        self._answers = dict(list({**others, question: answer}.items())[-LIMIT:])
        with suppress(OSError):
            self._write({"by": _made_by(), "subject": self._subject, "evidence": evidence, "answers": self._answers})

    def _read(self) -> dict[str, Any] | None:
        try:
            content = json.loads(self._path.read_bytes())
            sound = content["by"] == _made_by() and isinstance(content["answers"], dict) and "evidence" in content
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return content if sound else None

    def _write(self, content: Any) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(suffix=".part", dir=self._path.parent)
        try:
            with open(handle, "w", encoding="utf-8") as file:
                json.dump(content, file)
            os.replace(name, self._path)
        except BaseException:
            os.unlink(name)
            raise


@cache
def _made_by() -> list[str]:
    """Identify kdcore, by sizes and times of its files, since a checkout changes under one version; Python; and the user."""
    digest = hashlib.sha256()
    for folder, _, names in sorted(os.walk(Path(__file__).parent)):
        for name in sorted(names):
            if name.endswith(".py"):
                status = os.stat(os.path.join(folder, name))
                digest.update(f"{folder}/{name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return [digest.hexdigest(), platform.python_version(), os.path.expanduser("~")]

"""The documentation's pages, and the blocks of code in them.

A block marked ``console`` is a command that can be run as it stands (in the guides it is), one marked ``sh`` needs a network, a
cluster or somebody's recordings. A block with a title is a file of that name.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
PAGES = sorted([CHECKOUT / "README.md", *(CHECKOUT / "docs").rglob("*.md")])
PAGES = [page for page in PAGES if "examples" not in page.parts]
GUIDES = [page for page in PAGES if page.parent.name == "guides"]

_FENCE = re.compile(
    r'^(?P<indent> *)```(?P<language>[a-z]*)(?: title="(?P<title>[^"]+)")?[^\n]*\n(?P<body>.*?)^ *```$', re.M | re.S
)
_SNIPPET = re.compile(r'^--8<-- "(.+)"$', re.M)


@dataclass(frozen=True)
class Block:
    """A block of code.

    Args:
        page: Where it stands.
        line: Of its first line.
        language: As marked.
        title: The file it is, if it is one.
        text: What it holds.
    """

    page: Path
    line: int
    language: str
    title: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(CHECKOUT)}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """The lines of a console block that are typed, not answered."""
        lines = [line.partition(" #")[0].rstrip() for line in self.text.replace("\\\n", " ").splitlines()]
        answered = any(line.startswith("$ ") for line in lines)
        typed = [line.removeprefix("$ ") for line in lines if line.startswith("$ ") or not answered]
        return [line for line in typed if line]


def blocks(*pages: Path) -> list[Block]:
    """All blocks of code in these pages, in order."""
    found = []
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for match in _FENCE.finditer(text):
            body = textwrap.dedent(match["body"])
            body = _SNIPPET.sub(lambda name: (CHECKOUT / name[1]).read_text(encoding="utf-8").rstrip("\n"), body)
            found.append(Block(page, text[: match.start()].count("\n") + 2, match["language"], match["title"] or "", body))
    return found

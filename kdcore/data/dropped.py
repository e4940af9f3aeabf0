"""Record of dropped recordings, by reason and subject."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from kdcore.contracts.dataset import SampleKey

SHOWN = 20
"""Number of recordings per reason that records and messages list by name; the others are only counted."""


@dataclass(frozen=True)
class Dropped:
    """A recording, or part of one, that is neither trained nor tested on.

    Args:
        what: Its key, or its file if it has none.
        subject: Its subject; empty if unknown.
        reason: Short reason, the same for all similar cases.
        detail: What is wrong with this recording.
        split: Its split; empty if it is in none.
    """

    BAD: ClassVar[str] = "bad recording"
    NO_SPLIT: ClassVar[str] = "in no split"
    SHORT: ClassVar[str] = "shorter than a window"
    NOT_CHOSEN: ClassVar[str] = "subject not in data.subjects"

    what: str
    subject: str
    reason: str
    detail: str = ""
    split: str = ""

    @classmethod
    def of(cls, key: SampleKey, reason: str, detail: str = "", split: str = "") -> Dropped:
        """A sample that was dropped."""
        return cls(str(key), key.subject, reason, detail, split)

    def __str__(self) -> str:
        return f"{self.what}: {self.detail or self.reason}"


@dataclass(frozen=True)
class DropReport:
    """All dropped recordings; False in a boolean context if there are none."""

    entries: tuple[Dropped, ...] = ()

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Dropped]:
        return iter(self.entries)

    @property
    def counts(self) -> dict[str, int]:
        """Reason → number of recordings, the most frequent first."""
        return {reason: len(group) for reason, group in self._groups.items()}

    @property
    def _groups(self) -> dict[str, list[Dropped]]:
        """Reason → recordings, the most frequent first."""
        groups: dict[str, list[Dropped]] = {}
        for each in self.entries:
            groups.setdefault(each.reason, []).append(each)
        return dict(sorted(groups.items(), key=lambda group: -len(group[1])))

    def lines(self) -> list[str]:
        """Return a line for each reason: number of recordings, their subjects, and the first recording."""
        lines = []
        for reason, group in self._groups.items():
            subjects = sorted({each.subject for each in group if each.subject})
            of = f" (subjects {', '.join(subjects[:SHOWN])}{' …' if len(subjects) > SHOWN else ''})" if subjects else ""
            lines.append(f"{len(group)} dropped, {reason}{of}; the first: {group[0]}")
        return lines

    def record(self) -> dict[str, Any]:
        """Return plain values for a run's record: for each reason the count, the subjects' counts, and the first recordings."""
        reasons = {
            reason: {
                "count": len(group),
                "subjects": dict(sorted(Counter(each.subject for each in group).items())),
                "recordings": [{"what": each.what, "split": each.split, "detail": each.detail} for each in group[:SHOWN]],
            }
            for reason, group in self._groups.items()
        }
        return {"count": len(self), "reasons": reasons}


def listed(title: str, lines: list[str]) -> str:
    """A message that names the first lines and counts the others."""
    more = f"\n  and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    return f"{title}:\n  " + "\n  ".join(lines[:SHOWN]) + more

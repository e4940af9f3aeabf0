"""Components with one fault each, and which checks are to find it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from kdcore.plugin.registry import Entry
from kdcore.testing import Case

T = TypeVar("T")


@dataclass(frozen=True)
class Specimen:
    entry: Entry
    caught_by: frozenset[str]
    case: Case

    def __str__(self) -> str:
        return f"{self.entry.kind}-{self.entry.name}"


SPECIMENS: list[Specimen] = []


def add(kind: str, module: str, name: str, *checks: str, case: Case | None = None) -> None:
    SPECIMENS.append(Specimen(Entry(kind, name, "faulty", f"{module}:{name}"), frozenset(checks), case or Case()))


def caught_by(kind: str, *checks: str, case: Case | None = None) -> Callable[[type[T]], type[T]]:
    """The decorated component fails these checks and no other."""

    def note(component: Any) -> Any:
        add(kind, component.__module__, component.__name__, *checks, case=case)
        return component

    return note


def sound(kind: str, case: Case | None = None) -> Callable[[type[T]], type[T]]:
    """The decorated component passes all checks."""
    return caught_by(kind, case=case)

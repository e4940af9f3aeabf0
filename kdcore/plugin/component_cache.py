"""On-disk cache of facts about components, so that components need not be imported to check a recipe."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from typing import Any

from kdcore.cache import Answers
from kdcore.plugin.codec import NotEncodableError, decode_value, encode_value
from kdcore.plugin.registry import Entry
from kdcore.plugin.sources import evidence, holds

_DAMAGED = (ImportError, AttributeError, TypeError, ValueError, LookupError)


def recall(entry: Entry, question: str) -> Any:
    """Return the answer stored by `remember`, or None if there is none or the component's code has changed since."""
    stored = _answers(entry).get(question)
    with suppress(*_DAMAGED):
        return decode_value(stored)
    return None


def remember(entry: Entry, question: str, answer: Any, asker: str = __name__) -> None:
    """Store an answer about a component, if the answer can be encoded and the code it depends on can be fingerprinted.

    Args:
        entry: The component.
        question: Key of the answer.
        answer: Any value that `encode_value` supports, except None.
        asker: Module of the code that computed the answer; a change to it invalidates the answer.
    """
    dependencies = _evidence(entry, asker)
    with suppress(NotEncodableError):
        if dependencies is not None:
            _answers(entry).put(question, encode_value(answer), dependencies)


@cache
def _answers(entry: Entry) -> Answers:
    return Answers(f"{entry.kind} {entry.qualified} {entry.target}", holds)


@cache
def _evidence(entry: Entry, asker: str) -> Any:
    component = entry.load()
    bases = component.__mro__ if isinstance(component, type) else (component,)
    modules = {name for each in bases if isinstance(name := getattr(each, "__module__", None), str)}
    return evidence(entry.target.partition(":")[0], *sorted(modules | {asker}))

"""A cache, kept between processes, of facts about components, so that they need not be imported."""

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
    """Return what `remember` kept of a component; None if nothing was, or if the component's code has changed since."""
    written = _answers(entry).get(question)
    with suppress(*_DAMAGED):
        return decode_value(written)
    return None


def remember(entry: Entry, question: str, answer: Any, asker: str = __name__) -> None:
    """Keep an answer about a component, if it and what it rests on can be written down.

    Args:
        entry: The component.
        question: Identifies the question.
        answer: Any value that `encode_value` takes, except None.
        asker: Module of the code that found the answer.
    """
    rests_on = _evidence(entry, asker)
    with suppress(NotEncodableError):
        if rests_on is not None:
            _answers(entry).put(question, encode_value(answer), rests_on)


@cache
def _answers(entry: Entry) -> Answers:
    return Answers(f"{entry.kind} {entry.qualified} {entry.target}", holds)


@cache
def _evidence(entry: Entry, asker: str) -> Any:
    component = entry.load()
    bases = component.__mro__ if isinstance(component, type) else (component,)
    others = {name for each in bases if isinstance(name := getattr(each, "__module__", None), str)}
    return evidence(entry.target.partition(":")[0], *sorted(others | {asker}))

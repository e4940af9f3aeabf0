"""Facts about components that a recipe is checked by, found by constructing them once and kept from then on."""

from __future__ import annotations

import builtins
import hashlib
import io
import json
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from kdcore.contracts.modality import Modality
from kdcore.contracts.needs import Needs
from kdcore.contracts.target import EVERY_TARGET, OF_CLASSES, Target, TargetKind
from kdcore.errors import ComponentError, reason
from kdcore.plugin.codec import NotEncodableError, encode_value
from kdcore.plugin.component_cache import recall, remember
from kdcore.plugin.option_schema import construct, validated
from kdcore.plugin.registry import Entry

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Facts:
    """Properties of a component, as far as it has them.

    Args:
        needs: The inputs that a loss needs.
        modalities: A dataset's modalities by name.
        batch_dependent: Whether the outputs of a fusion depend on the other samples of a batch.
        augmentation: Whether a transform changes its input at random.
        fixed: Whether an encoder is a finished network, which is never trained and has no taps.
        targets: Kinds of targets that a loss, protocol, fusion or encoder is for; None if it says nothing.
        sample_weights: Whether a loss weighs samples.
        target: A dataset's target.
        weighted: Whether the samples of a dataset may have weights.
        taps: Features that a fusion adds to the outputs of its teachers.
    """

    needs: Needs | None = None
    modalities: Mapping[str, Modality] | None = None
    batch_dependent: bool = False
    augmentation: bool = False
    fixed: bool = False
    targets: tuple[TargetKind, ...] | None = None
    sample_weights: bool = False
    target: Target = OF_CLASSES
    weighted: bool = False
    taps: tuple[str, ...] = ()


def component_facts(entry: Entry, options: Mapping[str, Any] | None = None) -> Facts:
    """Return facts about a component with these options; without options, about its class, of which nothing is constructed.

    Raises:
        ComponentError: If it cannot be constructed.
        PluginError: If it cannot be loaded.
        pydantic.ValidationError: If the options do not fit its schema.
    """
    return ask(entry, options, facts_of)


def ask(entry: Entry, options: Mapping[str, Any] | None, question: Callable[..., Answer], *arguments: Any) -> Answer:
    """Return ``question(component, *arguments)``, from the cache folder if the same was asked before.

    An answer is kept if neither the component's constructor nor `question` looks at files or at environment variables, prints
    or warns, and if `encode_value` takes it. Of failures, only `ValueError` and `TypeError` are kept.

    Args:
        entry: The component.
        options: Its options as a recipe writes them; None to ask the class and construct nothing.
        question: A function of a module. Its answer must depend on its arguments alone.
        arguments: Whatever else it takes, such as a `Team`.

    Raises:
        ComponentError: If the component cannot be constructed, or `question` raises; the message names the component.
        PluginError: If the component cannot be loaded.
        pydantic.ValidationError: If the options do not fit its schema.
    """
    key = _key(options, question, arguments)
    known = recall(entry, key) if key else None
    cause = None
    if known is None:
        component = entry.load()
        given = None if options is None else dict(validated(entry, options))
        with _watching() as seen:
            known, cause = _asked(entry, component, given, question, arguments)
        if key and not seen and (cause is None or type(cause) in (ValueError, TypeError)):
            remember(entry, key, known, question.__module__)
    if "error" in known:
        raise ComponentError(known["error"]) from cause
    return known["answer"]


def facts_of(component: Any) -> Facts:
    """Return facts about a component, or about its class."""
    needs, modalities = getattr(component, "needs", None), getattr(component, "modalities", None)
    flags = {
        name: getattr(component, name, False) is True
        for name in ("batch_dependent", "augmentation", "fixed", "sample_weights", "weighted")
    }
    targets, target = getattr(component, "targets", None), getattr(component, "target", None)
    taps = getattr(component, "taps", ())
    return Facts(
        needs if isinstance(needs, Needs) else None,
        dict(modalities) if isinstance(modalities, Mapping) else None,
        targets=targets if isinstance(targets, tuple) and set(targets) <= set(EVERY_TARGET) else None,
        target=target if isinstance(target, Target) else Target(),
        taps=taps if isinstance(taps, tuple) else (),
        **flags,
    )


def _key(options: Mapping[str, Any] | None, question: Callable[..., Any], arguments: Sequence[Any]) -> str:
    """Identify what is asked; empty if that cannot be written down."""
    with suppress(NotEncodableError, TypeError, ValueError):
        asked = json.dumps([options, [encode_value(each) for each in arguments]], sort_keys=True)
        return f"{question.__module__}:{question.__qualname__} {hashlib.sha256(asked.encode()).hexdigest()}"
    return ""


def _asked(
    entry: Entry, component: Any, given: Mapping[str, Any] | None, question: Callable[..., Any], arguments: Sequence[Any]
) -> tuple[dict[str, Any], Exception | None]:
    """The answer, or what failed and why."""
    doing = f"could not construct {entry.described}"
    try:
        if given is not None:
            component = construct(component, given)
        doing = f"{entry.described} failed"
        return {"answer": question(component, *arguments)}, None
    except Exception as error:  # a plugin may raise anything; the user is told where and what
        return {"error": f"{doing}: {reason(error)}"}, error


_LOOKS = (
    *((builtins, name) for name in ("open", "print")),
    (io, "open"),
    (warnings, "warn"),
    *((os, name) for name in ("open", "stat", "lstat", "access", "listdir", "scandir", "readlink", "getcwd")),
    (type(os.environ), "__getitem__"),
)
"""Functions through which the answer may depend on more than code and options, or has an effect of its own."""

_lock = threading.RLock()


@contextmanager
def _watching() -> Iterator[list[str]]:
    """Replace `_LOOKS` for a while; yields the names of those that are called."""
    seen: list[str] = []
    with _lock:
        originals = [(owner, name, getattr(owner, name)) for owner, name in _LOOKS]
        try:
            for owner, name, original in originals:
                setattr(owner, name, _noted(original, name, seen))
            yield seen
        finally:
            for owner, name, original in originals:
                setattr(owner, name, original)


def _noted(original: Callable[..., Any], name: str, seen: list[str]) -> Callable[..., Any]:
    def called(*args: Any, **kwargs: Any) -> Any:
        seen.append(name)
        return original(*args, **kwargs)

    return called

"""Facts about components for checking recipes. They are found by constructing each component once, and then cached."""

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
class ComponentFacts:
    """Properties of a component. Those that do not apply to its kind keep their defaults.

    Args:
        needs: Inputs that a loss needs.
        modalities: Modalities of a dataset, by name.
        batch_dependent: Whether the outputs of a fusion for a sample depend on the other samples of the batch.
        augmentation: Whether a transform is random.
        fixed: Whether an encoder is a fixed network, such as one in an ONNX file: it cannot be trained and has no taps.
        targets: Kinds of targets that a loss, protocol, fusion or encoder supports; None if it does not declare any.
        sample_weights: Whether a loss supports sample weights.
        target: Target of a dataset.
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


def component_facts(entry: Entry, options: Mapping[str, Any] | None = None) -> ComponentFacts:
    """Return facts about a component with the given options. Without options, its class is inspected and not constructed.

    Raises:
        ComponentError: If the component cannot be constructed.
        PluginError: If the component cannot be loaded.
        pydantic.ValidationError: If the options do not match its schema.
    """
    return ask(entry, options, facts_of)


def ask(entry: Entry, options: Mapping[str, Any] | None, question: Callable[..., Answer], *arguments: Any) -> Answer:
    """Return ``question(component, *arguments)``, from the cache folder if it has been computed before.

    A result is cached if neither the component's constructor nor `question` reads files or environment variables, prints or
    warns, and if `encode_value` supports the result. Of errors, only `ValueError` and `TypeError` are cached.

    Args:
        entry: The component.
        options: Its options as written in a recipe; None to pass the class to `question` without constructing it.
        question: A module-level function. Its result must depend on its arguments only.
        arguments: Further arguments of `question`, such as a `Graph`.

    Raises:
        ComponentError: If the component cannot be constructed, or `question` raises; the message names the component.
        PluginError: If the component cannot be loaded.
        pydantic.ValidationError: If the options do not match its schema.
    """
    key = _key(options, question, arguments)
    result = recall(entry, key) if key else None
    cause = None
    if result is None:
        component = entry.load()
        validated_options = None if options is None else dict(validated(entry, options))
        with _recorded_calls() as calls:
            result, cause = _compute(entry, component, validated_options, question, arguments)
        if key and not calls and (cause is None or type(cause) in (ValueError, TypeError)):
            remember(entry, key, result, question.__module__)
    if "error" in result:
        raise ComponentError(result["error"]) from cause
    return result["answer"]


def facts_of(component: Any) -> ComponentFacts:
    """Return facts about a component or its class."""
    needs, modalities, targets, target, taps = (
        getattr(component, name, None) for name in ("needs", "modalities", "targets", "target", "taps")
    )
    flags = ("batch_dependent", "augmentation", "fixed", "sample_weights", "weighted")
    return ComponentFacts(
        needs=needs if isinstance(needs, Needs) else None,
        modalities=dict(modalities) if isinstance(modalities, Mapping) else None,
        targets=targets if isinstance(targets, tuple) and set(targets) <= set(EVERY_TARGET) else None,
        target=target if isinstance(target, Target) else Target(),
        taps=taps if isinstance(taps, tuple) else (),
        **{name: getattr(component, name, False) is True for name in flags},
    )


def _key(options: Mapping[str, Any] | None, question: Callable[..., Any], arguments: Sequence[Any]) -> str:
    """Return a cache key for a question, or an empty string if its arguments cannot be encoded."""
    with suppress(NotEncodableError, TypeError, ValueError):
        encoded = json.dumps([options, [encode_value(each) for each in arguments]], sort_keys=True)
        return f"{question.__module__}:{question.__qualname__} {hashlib.sha256(encoded.encode()).hexdigest()}"
    return ""


def _compute(
    entry: Entry, component: Any, options: Mapping[str, Any] | None, question: Callable[..., Any], arguments: Sequence[Any]
) -> tuple[dict[str, Any], Exception | None]:
    """Return ``{"answer": …}`` or ``{"error": message}``, and the exception, if any."""
    failure = f"could not construct {entry.described}"
    try:
        if options is not None:
            component = construct(component, options)
        failure = f"{entry.described} failed"
        return {"answer": question(component, *arguments)}, None
    except Exception as error:  # a plugin may raise anything; report the component and the cause
        return {"error": f"{failure}: {reason(error)}"}, error


_IMPURE_FUNCTIONS = (
    *((builtins, name) for name in ("open", "print")),
    (io, "open"),
    (warnings, "warn"),
    *((os, name) for name in ("open", "stat", "lstat", "access", "listdir", "scandir", "readlink", "getcwd")),
    (type(os.environ), "__getitem__"),
)
"""Functions whose use means that a result depends on more than code and options, or has side effects."""

_lock = threading.RLock()


@contextmanager
def _recorded_calls() -> Iterator[list[str]]:
    """Context manager that patches `_IMPURE_FUNCTIONS`. Yields a list of the names of those that are called."""
    calls: list[str] = []
    with _lock:
        originals = [(owner, name, getattr(owner, name)) for owner, name in _IMPURE_FUNCTIONS]
        try:
            for owner, name, original in originals:
                setattr(owner, name, _recording(original, name, calls))
            yield calls
        finally:
            for owner, name, original in originals:
                setattr(owner, name, original)


def _recording(original: Callable[..., Any], name: str, calls: list[str]) -> Callable[..., Any]:
    def called(*args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        return original(*args, **kwargs)

    return called

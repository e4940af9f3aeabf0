"""Registry of components by kind and name.

Two kinds of names are valid without being registered: ``from-python`` for an object passed in Python, and
``package.module:factory`` for an encoder constructed by a function or class of any importable module.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from kdcore.errors import PluginError, UnknownComponentError
from kdcore.plugin.interrupts import guarded
from kdcore.suggestions import or_meant

FROM_PYTHON = "from-python"
"""Name in a recipe for a component that was passed as an object in Python."""

KINDS = {
    "modality": "modalities",
    "dataset": "datasets",
    "protocol": "protocols",
    "transform": "transforms",
    "encoder": "encoders",
    "fusion": "fusions",
    "loss": "losses",
    "schedule": "schedules",
    "class_embedding": "class_embeddings",
}
"""Kinds of components with their plurals, as in the hook ``register_<plural>`` and ``kdcore list <plural>``."""

SERVICES = {"executor": "executors"}
"""Kinds that are used on the command line but not in recipes, with their plurals."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_FACTORY = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_RULE = "use letters, digits, '-' and '_', starting with a letter or digit"
_NO_TEXT = re.compile(r"null|true|false|\d+(e-?\d+)?|0o[0-7]+|0x[0-9a-f]+", re.IGNORECASE)
"""Names that YAML reads as another type than text."""


def check_name(name: object, what: str) -> None:
    """Check that a name can be used in recipes and in overrides such as ``losses.NAME.weight=1``.

    Raises:
        PluginError: If the name is invalid. The message states the rule.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise PluginError(f"{name!r} is not a valid name for a {what}: {_RULE}")
    if _NO_TEXT.fullmatch(name):
        raise PluginError(f"{name!r} is not a valid name for a {what}: YAML does not read it as text")


@dataclass(frozen=True)
class Entry:
    """A registered component.

    Args:
        kind: Kind of component, a key of `KINDS` or `SERVICES`.
        name: Name of the component.
        plugin: Plugin that provides it; empty for a factory and for an object passed in Python.
        target: ``module:Object``.
    """

    kind: str
    name: str
    plugin: str
    target: str

    @property
    def qualified(self) -> str:
        """``plugin/name``, which is unique even if two plugins use the same name."""
        return f"{self.plugin}/{self.name}"

    @property
    def described(self) -> str:
        """Text for messages: ``loss 'cosine' of plugin 'my-loss'``."""
        return f"{self.kind.replace('_', ' ')} {self.name!r}" + (f" of plugin {self.plugin!r}" if self.plugin else "")

    @property
    def located(self) -> str:
        """Text for messages about its code: ``plugin 'my-loss': loss 'cosine' (my_loss:Cosine)``."""
        return f"plugin {self.plugin!r}: {self.kind} {self.name!r} ({self.target})" if self.plugin else self.described

    @property
    def is_factory(self) -> bool:
        """True if the name is ``package.module:factory``."""
        return not self.plugin and self.name != FROM_PYTHON

    def load(self) -> Any:
        """Import the component.

        Raises:
            PluginError: If it cannot be imported. The message contains the cause.
        """
        module, _, attribute = self.target.partition(":")

        def failed(error: BaseException) -> None:
            missing = isinstance(error, ModuleNotFoundError) and error.name
            if self.is_factory:
                raise PluginError(f"{self.described}: {_factory_fault(module, error, missing or '')}") from error
            advice = (
                f"install the package that has {missing!r}, or reinstall the plugin" if missing else "report this to its author"
            )
            raise PluginError(f"{self.located}: could not load it: {type(error).__name__}: {error}; {advice}") from error

        with guarded(failed):
            component = import_module(module)
            for part in attribute.split("."):
                component = getattr(component, part)
        if self.is_factory and not callable(component):
            raise PluginError(
                f"{self.described}: it is a {type(component).__name__}, not a function or class that returns a network"
            )
        return component


def _add_current_folder_to_path() -> None:
    """Append the current folder to `sys.path` so that factories in it can be imported; last, so that it shadows no module."""
    if "" not in sys.path and (folder := os.getcwd()) not in sys.path:
        sys.path.append(folder)


def _factory_fault(module: str, error: BaseException, missing: str) -> str:
    """Return the reason why a factory could not be imported."""
    if missing and (module == missing or module.startswith(f"{missing}.")):
        return f"no module named {missing!r}; install it, or run from the folder that contains it"
    if isinstance(error, AttributeError) and module in sys.modules and error.obj is not None:
        callables = [name for name, each in vars(error.obj).items() if callable(each) and not name.startswith("_")]
        return f"{module!r} has no {error.name!r}{or_meant(error.name or '', callables)}"
    return f"could not import {module!r}: {type(error).__name__}: {error}"


class PythonObject:
    """Placeholder for an object that was passed in Python. It has no options."""


class Registry:
    """Components by kind and name. Entries are immutable."""

    def __init__(self) -> None:
        self._entries: dict[str, dict[str, list[Entry]]] = {kind: {} for kind in (*KINDS, *SERVICES)}

    def add(self, kind: str, name: str, plugin: str, target: str) -> None:
        """Add a component.

        Raises:
            PluginError: If the plugin has already registered the name, or the name or target is malformed.
        """
        check_name(name, f"{kind.replace('_', ' ')} of plugin {plugin!r}")
        if not isinstance(target, str) or ":" not in target:
            raise PluginError(f"plugin {plugin!r} registers {kind} {name!r} as {target!r}: write 'module:Object'")
        claims = self._entries[kind].setdefault(name, [])
        if any(entry.plugin == plugin for entry in claims):
            raise PluginError(f"plugin {plugin!r} registers {kind} {name!r} twice")
        claims.append(Entry(kind, name, plugin, target))

    def discard(self, plugin: str) -> None:
        """Remove all components of `plugin`."""
        for names in self._entries.values():
            for name in list(names):
                names[name] = [entry for entry in names[name] if entry.plugin != plugin]
                if not names[name]:
                    del names[name]

    def claims(self, kind: str, name: str) -> tuple[Entry, ...]:
        """Return all components with this name; several if plugins conflict."""
        return tuple(self._entries[kind].get(name, ()))

    def get(self, kind: str, name: str) -> Entry:
        """Return a component by ``name`` or ``plugin/name``; for an encoder, also by ``package.module:factory``.

        Raises:
            UnknownComponentError: If no plugin provides it. The message suggests the nearest name and lists all names.
            PluginError: If several plugins provide it. The message names them.
        """
        if name == FROM_PYTHON:
            return Entry(kind, name, "", f"{__name__}:{PythonObject.__name__}")
        if kind == "encoder" and _FACTORY.fullmatch(name):
            _add_current_folder_to_path()
            return Entry(kind, name, "", name)
        plugin, slash, short_name = name.rpartition("/")
        claims = self._entries[kind].get(short_name, [])
        if slash:
            claims = [entry for entry in claims if entry.plugin == plugin]
        if not claims:
            raise UnknownComponentError(self._unknown(kind, name))
        if len(claims) > 1:
            owners = " and ".join(entry.plugin for entry in claims)
            choices = " or ".join(entry.qualified for entry in claims)
            raise PluginError(f"{kind} {name!r} is provided by the plugins {owners}; write {choices}")
        return claims[0]

    def _unknown(self, kind: str, name: str) -> str:
        names = sorted(self._entries[kind])
        return f"no {kind} {name!r}{or_meant(name, names)} (known: {', '.join(names) or 'none'})"

    def entries(self, kind: str | None = None) -> Iterator[Entry]:
        """Iterate over all components that recipes can use, or those of one kind, sorted by kind and name."""
        for each in [kind] if kind else KINDS:
            for name in sorted(self._entries[each]):
                yield from self._entries[each][name]

"""The one registry: which plugin provides what under which name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from kdcore.errors import PluginError, UnknownComponentError
from kdcore.suggestions import or_meant

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
"""Kind → its plural, as in the hook ``register_<plural>`` and in ``kdcore list <plural>``."""


@dataclass(frozen=True)
class Entry:
    """One component: what it is called, who provides it, and where it is."""

    kind: str
    name: str
    plugin: str
    target: str

    @property
    def qualified(self) -> str:
        """``plugin/name``, unambiguous where two plugins use one name."""
        return f"{self.plugin}/{self.name}"

    @property
    def described(self) -> str:
        """``loss 'cosine' of plugin 'my-loss'``, for people."""
        return f"{self.kind.replace('_', ' ')} {self.name!r} of plugin {self.plugin!r}"

    def load(self) -> Any:
        """Import the component.

        Raises:
            PluginError: If it cannot be imported, with the cause.
        """
        module, _, attribute = self.target.partition(":")
        try:
            found = import_module(module)
            for part in attribute.split("."):
                found = getattr(found, part)
        except (Exception, SystemExit) as error:  # a module may raise anything, and a script may end the process
            missing = isinstance(error, ModuleNotFoundError) and error.name
            advice = f"install what has the module {missing!r}, or reinstall the plugin" if missing else "tell its author"
            raise PluginError(
                f"plugin {self.plugin!r}: {self.kind} {self.name!r} ({self.target}) cannot be loaded: "
                f"{type(error).__name__}: {error}; {advice}"
            ) from error
        return found


class Registry:
    """Components by kind and name; entries never change once added."""

    def __init__(self) -> None:
        self._entries: dict[str, dict[str, list[Entry]]] = {kind: {} for kind in KINDS}

    def add(self, kind: str, name: str, plugin: str, target: str) -> None:
        """Add a component.

        Raises:
            PluginError: If this plugin has already claimed the name, or name or target is malformed.
        """
        if not isinstance(name, str) or not name or "/" in name:
            raise PluginError(f"plugin {plugin!r} registers a {kind} under {name!r}: a name is text without a slash")
        if not isinstance(target, str) or ":" not in target:
            raise PluginError(f"plugin {plugin!r} registers {kind} {name!r} as {target!r}: write 'module:Object'")
        claims = self._entries[kind].setdefault(name, [])
        if any(entry.plugin == plugin for entry in claims):
            raise PluginError(f"plugin {plugin!r} registers {kind} {name!r} twice")
        claims.append(Entry(kind, name, plugin, target))

    def discard(self, plugin: str) -> None:
        """Forget everything `plugin` added."""
        for names in self._entries.values():
            for name in list(names):
                names[name] = [entry for entry in names[name] if entry.plugin != plugin]
                if not names[name]:
                    del names[name]

    def claims(self, kind: str, name: str) -> tuple[Entry, ...]:
        """All components of that name; more than one if plugins are in conflict."""
        return tuple(self._entries[kind].get(name, ()))

    def get(self, kind: str, name: str) -> Entry:
        """The component called `name`, or ``plugin/name``.

        Raises:
            UnknownComponentError: If nobody provides it; the nearest names and all of them are listed.
            PluginError: If several plugins do, naming them.
        """
        plugin, slash, bare = name.rpartition("/")
        claims = self._entries[kind].get(bare, [])
        if slash:
            claims = [entry for entry in claims if entry.plugin == plugin]
        if not claims:
            raise UnknownComponentError(self._unknown(kind, name))
        if len(claims) > 1:
            owners = " and ".join(entry.plugin for entry in claims)
            choices = " or ".join(entry.qualified for entry in claims)
            raise PluginError(f"{kind} {name!r} is claimed by the plugins {owners}; write {choices}")
        return claims[0]

    def _unknown(self, kind: str, name: str) -> str:
        known = sorted(self._entries[kind])
        return f"no {kind} {name!r}{or_meant(name, known)} (known: {', '.join(known) or 'none'})"

    def entries(self, kind: str | None = None) -> Iterator[Entry]:
        """All entries, of one kind if given, sorted by kind and name."""
        for each in [kind] if kind else KINDS:
            for name in sorted(self._entries[each]):
                yield from self._entries[each][name]

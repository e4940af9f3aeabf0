"""Finds plugins, keeps a broken one from harming the rest, and fills the registry."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any

import pluggy

from kdcore.errors import PluginError
from kdcore.plugin import hookspecs
from kdcore.plugin.registry import KINDS, Registry

GROUP = "kdcore"


@dataclass
class Plugin:
    """One plugin found: what it is, and why it is not in use if it isn't."""

    name: str
    distribution: str
    version: str
    target: str
    failure: str = ""
    cause: Exception | None = field(default=None, repr=False)


class PluginManager:
    """All plugins of this process, and what they provide.

    Args:
        points: Entry points to load; those of group ``kdcore`` that are installed, by default.
    """

    def __init__(self, points: Iterable[EntryPoint] | None = None):
        self.registry = Registry()
        self.plugins: dict[str, Plugin] = {}
        self._pluggy = pluggy.PluginManager("kdcore")
        self._pluggy.add_hookspecs(hookspecs)
        found = entry_points(group=GROUP) if points is None else points
        for point in sorted(found, key=lambda point: (point.name, point.value)):
            self._load(point)

    @property
    def hook(self) -> Any:
        """Calls a hook in every working plugin."""
        return self._pluggy.hook

    @property
    def broken(self) -> list[Plugin]:
        """Plugins that were found and could not be used."""
        return [plugin for plugin in self.plugins.values() if plugin.failure]

    def _load(self, point: EntryPoint) -> None:
        if point.name in self.plugins:
            first = self.plugins[point.name]
            self._fail(
                first,
                f"two installed packages claim the plugin name {point.name!r}: "
                f"{first.distribution} ({first.target}) and {_distribution(point)} ({point.value}); uninstall one",
            )
            return
        plugin = Plugin(point.name, _distribution(point), point.dist.version if point.dist else "", point.value)
        self.plugins[point.name] = plugin
        try:
            self.register(point.name, point.load())
        except Exception as error:  # a plugin may raise anything while it is imported
            self._fail(plugin, _reason(error), error)

    def register(self, name: str, module: ModuleType | object) -> None:
        """Take in an imported plugin.

        Raises:
            PluginError: If it was written for another API version, or implements a hook that does not exist.
        """
        api = getattr(module, "KDCORE_API", hookspecs.API_VERSION)
        if api != hookspecs.API_VERSION:
            raise PluginError(
                f"written for plugin API {api}, this kdcore has {hookspecs.API_VERSION}; "
                f"install a {'newer kdcore' if api > hookspecs.API_VERSION else 'newer version of the plugin'}"
            )
        self.plugins.setdefault(name, Plugin(name, "", "", getattr(module, "__name__", repr(module))))
        self._pluggy.register(module, name=name)
        try:
            self._refuse_misspelt_hooks(module)
            self._fill_registry(name, module)
        except Exception:
            self._drop(name)
            raise

    def _refuse_misspelt_hooks(self, module: object) -> None:
        for caller in self._pluggy.get_hookcallers(module) or []:
            if not caller.has_spec():
                near = get_close_matches(caller.name, [each for each in dir(hookspecs) if not each.startswith("_")], n=1)
                raise PluginError(
                    f"implements a hook {caller.name!r} that does not exist" + (f"; did you mean {near[0]!r}?" if near else "")
                )

    def _fill_registry(self, name: str, module: object) -> None:
        for kind, plural in KINDS.items():
            hook = f"register_{plural}"
            if hasattr(module, hook):
                others = [plugin for plugin in self._pluggy.get_plugins() if plugin is not module]
                self._pluggy.subset_hook_caller(hook, others)(
                    register=lambda component, target, kind=kind: self.registry.add(kind, component, name, target)
                )

    def _drop(self, name: str) -> None:
        self.registry.discard(name)
        if self._pluggy.has_plugin(name):
            self._pluggy.unregister(name=name)

    def _fail(self, plugin: Plugin, reason: str, cause: Exception | None = None) -> None:
        self._drop(plugin.name)
        plugin.failure, plugin.cause = reason, cause
        message = f"plugin {plugin.name!r} ({plugin.distribution or plugin.target}) is not used: {reason}"
        if os.environ.get("KDCORE_STRICT_PLUGINS") == "1":
            raise PluginError(message) from cause
        warnings.warn(message, PluginWarning, stacklevel=2)


class PluginWarning(UserWarning):
    """A plugin that was found but cannot be used."""


def _distribution(point: EntryPoint) -> str:
    return point.dist.name if point.dist else ""


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, PluginError) else f"{type(error).__name__}: {error}"


@cache
def plugin_manager() -> PluginManager:
    """The process's plugins, found once."""
    return PluginManager()

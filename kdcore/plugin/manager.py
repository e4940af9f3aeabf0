"""Discovery of plugins. A broken plugin is disabled, and the others still work."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import Distribution, EntryPoint, entry_points
from inspect import Parameter, signature
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from kdcore.errors import KdcoreDeprecationWarning, KdcoreError, PluginError, one_line
from kdcore.plugin import hookspecs
from kdcore.plugin.files import files_asked_for, fingerprint, import_file, is_file, plugin_name, what_happened
from kdcore.plugin.interrupts import guarded
from kdcore.plugin.registry import KINDS, SERVICES, Registry, check_name
from kdcore.suggestions import nearest
from kdcore.user_warnings import warn

GROUP = "kdcore"


@dataclass
class Plugin:
    """A discovered plugin, working or broken.

    Args:
        name: Name of the plugin.
        distribution: Installed package that contains it; empty for a plugin file.
        version: Version of that package, or a fingerprint of the plugin file.
        target: Module or path of the plugin file.
        failure: Reason why the plugin is not in use; empty if it is in use.
        cause: Exception that it raised.
        api: Plugin API version that it was written for.
    """

    name: str
    distribution: str
    version: str
    target: str
    failure: str = ""
    cause: BaseException | None = field(default=None, repr=False)
    api: int = hookspecs.API_VERSION

    @property
    def origin(self) -> str:
        """Package and version, or the path of the plugin file."""
        return f"{self.distribution} {self.version}" if self.distribution else self.target

    @property
    def is_file(self) -> bool:
        """True if the plugin is a single file rather than an installed package."""
        return is_file(self.target)

    @property
    def module(self) -> str:
        """Top-level module of the plugin's code."""
        return Path(self.target).stem if self.is_file else self.target.partition(":")[0].partition(".")[0]


class PluginManager:
    """The plugins of this process, and the registry of what they provide.

    Args:
        points: Entry points to load. Default: all installed entry points in the group ``kdcore``.
    """

    def __init__(self, points: Iterable[EntryPoint] | None = None):
        self.registry = Registry()
        self.plugins: dict[str, Plugin] = {}
        self.files: Sequence[Path] = ()
        self._pluggy = pluggy.PluginManager("kdcore")
        self._pluggy.add_hookspecs(hookspecs)
        discovered = entry_points(group=GROUP) if points is None else points
        for point in sorted(discovered, key=lambda point: (point.name, point.value)):
            self._load(point)

    @property
    def hook(self) -> Any:
        """The hooks. Calling one calls its implementation in every working plugin."""
        return self._pluggy.hook

    @property
    def broken(self) -> list[Plugin]:
        """Plugins that were discovered but cannot be used."""
        return [plugin for plugin in self.plugins.values() if plugin.failure]

    def _load(self, point: EntryPoint) -> None:
        if point.name in self.plugins:
            first = self.plugins[point.name]
            owners = f"{first.distribution} ({first.target}) and {_package(point.dist)[0]} ({point.value})"
            self._fail(first, f"two installed packages claim the plugin name {point.name!r}: {owners}; uninstall one")
            return
        plugin = Plugin(point.name, *_package(point.dist), point.value)
        self.plugins[point.name] = plugin
        doing = "could not import it"
        with guarded(lambda error: self._fail(plugin, _reason(error, plugin, doing), error)):
            module = point.load()
            doing = "could not register its components"
            self.register(point.name, module)

    def add_file(self, path: Path) -> Plugin:
        """Load a plugin file. A copy of a file that is already loaded counts as the same plugin.

        Raises:
            PluginError: If the file cannot be used. The plugin is then also listed as broken.
        """
        name, loaded = plugin_name(path), self.plugins.get(plugin_name(path))
        plugin = Plugin(name, "", "", str(path))

        def failed(error: BaseException) -> None:
            self._drop(name)
            plugin.failure, plugin.cause = what_happened(error, path), error
            self.plugins[name] = plugin
            raise PluginError(f"plugin file {path}: {plugin.failure}") from error

        with guarded(failed):
            plugin.version = f"file {fingerprint(path)}"
            if loaded and not loaded.failure:
                if loaded.version == plugin.version:
                    return loaded
                name = str(path)
                raise PluginError(f"the plugin name {plugin.name!r} is already in use ({loaded.origin}); rename the file")
            self.plugins[name] = plugin
            self.register(name, import_file(path))
            self._refuse_unusable(plugin)
        return plugin

    def _refuse_unusable(self, plugin: Plugin) -> None:
        """Raise an error if the file implements no hook, or registers another plugin's name or a component it does not have."""
        if not self._pluggy.get_hookcallers(self._pluggy.get_plugin(plugin.name)):
            raise PluginError("implements no hook; decorate a function such as register_losses with kdcore.hookimpl")
        for entry in [entry for entry in self.registry.entries() if entry.plugin == plugin.name]:
            entry.load()
            for other in self.registry.claims(entry.kind, entry.name):
                if other.plugin != plugin.name:
                    what = f"the plugin {other.plugin!r} already provides the {entry.kind} {entry.name!r}"
                    raise PluginError(f"{what}; rename yours")

    def register(self, name: str, module: ModuleType | object) -> None:
        """Register an imported plugin.

        Raises:
            PluginError: If the plugin requires another API version, implements a wrong hook, or has an invalid name.
        """
        check_name(name, "plugin")
        plugin = self.plugins.setdefault(name, Plugin(name, "", "", getattr(module, "__name__", repr(module))))
        _check_api(plugin, getattr(module, "KDCORE_API", hookspecs.API_VERSION))
        self._refuse_wrong_hooks(module)
        self._pluggy.register(module, name=name)
        try:
            for caller in self._pluggy.get_hookcallers(module) or []:
                if caller.name in hookspecs.DEPRECATED:
                    hookspecs.DEPRECATED[caller.name].used(f"plugin {name!r}")
            self._fill_registry(name, module)
        except BaseException:
            self._drop(name)
            raise

    def _refuse_wrong_hooks(self, module: object) -> None:
        """Refuse hooks that do not exist or have other parameters than their specifications, naming all of them."""
        known = {name: signature(each).parameters for name, each in vars(hookspecs).items() if hasattr(each, "kdcore_spec")}
        hooks = [name for name in dir(module) if self._pluggy.parse_hookimpl_opts(module, name) is not None]
        faults, unknown = [], [name for name in hooks if name not in known]
        if unknown:
            what = "hooks that do" if len(unknown) > 1 else "a hook that does"
            faults.append(f"implements {what} not exist: {', '.join(_suggested(name, known) for name in unknown)}")
        for name in (each for each in hooks if each in known):
            for parameter in signature(getattr(module, name)).parameters.values():
                if parameter.name not in known[name] and parameter.default is Parameter.empty:
                    faults.append(f"{name!r} has no parameter {parameter.name!r} (parameters: {', '.join(known[name])})")
        if faults:
            raise PluginError("; ".join(faults))

    def add_commands(self, cli: Any) -> None:
        """Call ``register_commands`` in all plugins. A plugin that fails is disabled."""
        doing = "could not add its commands"
        for name, module in self._pluggy.list_name_plugin():
            plugin = self.plugins[name]
            with guarded(lambda error, plugin=plugin: self._fail(plugin, _reason(error, plugin, doing), error)):
                self._only(module, "register_commands")(cli=cli)

    def _fill_registry(self, name: str, module: object) -> None:
        for kind, plural in (KINDS | SERVICES).items():
            hook = f"register_{plural}"
            if hasattr(module, hook):
                self._only(module, hook)(
                    register=lambda component, target, kind=kind: self.registry.add(kind, component, name, target)
                )

    def _only(self, module: object, hook: str) -> Any:
        """Return a caller of `hook` that only calls it in `module`."""
        return self._pluggy.subset_hook_caller(hook, [other for other in self._pluggy.get_plugins() if other is not module])

    def _drop(self, name: str) -> None:
        self.registry.discard(name)
        if self._pluggy.has_plugin(name):
            self._pluggy.unregister(name=name)

    def _fail(self, plugin: Plugin, reason: str, cause: BaseException | None = None) -> None:
        self._drop(plugin.name)
        plugin.failure, plugin.cause = reason, cause
        message = f"plugin {plugin.name!r} ({plugin.distribution or plugin.target}) is not used: {reason}"
        if os.environ.get("KDCORE_STRICT_PLUGINS") == "1":
            raise PluginError(message) from cause
        warn(message, PluginWarning)


def _suggested(name: str, known: Iterable[str]) -> str:
    near = nearest(name, known)
    return f"{name!r} (did you mean {near!r}?)" if near else repr(name)


class PluginWarning(UserWarning):
    """Warning about a plugin that was discovered but cannot be used."""


@cache
def _package(distribution: Distribution | None) -> tuple[str, str]:
    """Return name and version, which are parsed once for all plugins of a package."""
    return (distribution.name, distribution.version) if distribution else ("", "")


def _check_api(plugin: Plugin, api: object) -> None:
    if type(api) is not int:
        raise PluginError(f"its KDCORE_API must be an integer, not {api!r}; report this to its author")
    plugin.api, newest = api, hookspecs.API_VERSION
    if api > newest:
        raise PluginError(f"written for plugin API {api}, but this kdcore has {newest}; install a newer kdcore")
    if api < hookspecs.OLDEST_API:
        raise PluginError(f"written for plugin API {api}, but this kdcore has {newest}; install a newer version of the plugin")
    if api < newest:
        message = f"plugin {plugin.name!r} ({plugin.origin}) was written for plugin API {api}"
        warn(f"{message}; install a version for API {newest}", KdcoreDeprecationWarning)


def _reason(error: BaseException, plugin: Plugin, doing: str) -> str:
    if isinstance(error, KdcoreError):
        return str(error)
    package = plugin.distribution or plugin.name
    if isinstance(error, ModuleNotFoundError) and error.name and error.name.partition(".")[0] != plugin.module:
        return f"it requires the module {error.name!r}, which is not installed; install that, or reinstall {package}"
    message = "" if isinstance(error, KeyboardInterrupt) and not error.args else f": {one_line(error)}"
    return f"{doing}: {type(error).__name__}{message}; reinstall {package}, or uninstall it and report this to its author"


@cache
def found_plugins() -> PluginManager:
    """Return the plugins of this process, discovered once. Broken files in ``KDCORE_PLUGINS`` are listed as broken."""
    manager = PluginManager()
    manager.files = files_asked_for()
    for path in manager.files:
        with suppress(PluginError):
            manager.add_file(path)
    return manager


def plugin_manager() -> PluginManager:
    """Return the plugins of this process.

    Raises:
        PluginError: If a file listed in ``KDCORE_PLUGINS`` cannot be used.
    """
    manager = found_plugins()
    for plugin in manager.broken:
        if Path(plugin.target) in manager.files:
            raise PluginError(f"plugin file {plugin.target}: {plugin.failure}") from plugin.cause
    return manager

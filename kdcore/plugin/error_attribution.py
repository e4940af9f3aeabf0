"""Attribution of unexpected errors to the plugin whose code raised them."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from kdcore.errors import PluginError
from kdcore.plugin import hookspecs
from kdcore.plugin.interrupts import interrupts
from kdcore.plugin.manager import Plugin, PluginManager


def blamed(error: BaseException, plugins: PluginManager) -> PluginError | None:
    """Return a `PluginError` naming the plugin whose component or hook raised `error`, or None if no plugin did."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return None
    by_module = {plugin.module: plugin for plugin in plugins.plugins.values() if not plugin.failure}
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        plugin = by_module.get(str(frame.f_globals.get("__name__", "")).partition(".")[0])
        component = _at_work(frame, plugin, plugins) if plugin else ""
        if plugin and component:
            description = explained(error) if component.startswith("loss ") else f"{type(error).__name__}: {error}"
            advice = "fix it there" if plugin.is_file else "report this to its author"
            location = f"{frame.f_code.co_filename}:{line}"
            return PluginError(
                f"plugin {plugin.name!r} ({plugin.origin}): {component} failed in {frame.f_code.co_name} ({location}): "
                f"{description}; {advice}, or remove it from the recipe "
                "(set KDCORE_TRACEBACK=1 for the traceback)"
            )
    return None


@contextmanager
def exits_attributed(plugins: PluginManager) -> Iterator[None]:
    """Context manager that turns a plugin's attempt to exit the process, or its KeyboardInterrupt, into an error.

    Raises:
        PluginError: Names the plugin; raised instead of ``SystemExit``, ``GeneratorExit``, or ``KeyboardInterrupt`` without
            Ctrl-C.
    """
    with interrupts() as received:
        try:
            yield
        except (SystemExit, KeyboardInterrupt, GeneratorExit) as error:
            culprit = None if received else blamed(error, plugins)
            if culprit is None:
                raise
            raise culprit from error


def explained(error: BaseException) -> str:
    """Return the type and message of an error raised by a loss, with a hint at the likely cause."""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, KeyError) and error.args and isinstance(tap := error.args[0], str):
        text += f" (if that is a tap, declare it: needs = Needs(student_taps=({tap!r},)), or teacher_taps, or peer_taps)"
    return text


def _at_work(frame: FrameType, plugin: Plugin, plugins: PluginManager) -> str:
    """Return the component or hook of the plugin that a frame belongs to, or an empty string."""
    of_class = {entry.target.partition(":")[2]: entry for entry in plugins.registry.entries() if entry.plugin == plugin.name}
    for each in type(frame.f_locals.get("self")).__mro__[:-1]:  # the class itself first, then its bases
        if entry := of_class.get(each.__qualname__):
            return f"{entry.kind.replace('_', ' ')} {entry.name!r}"
    name = frame.f_code.co_name
    is_hook = hasattr(getattr(hookspecs, name, None), "kdcore_spec") and frame.f_globals.get(name) is not None
    return f"hook {name!r}" if is_hook else ""

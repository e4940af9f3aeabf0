"""Text output of ``kdcore check-plugin``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import groupby

from kdcore.errors import PluginError, UnknownComponentError
from kdcore.plugin.manager import PluginManager, plugin_manager
from kdcore.suggestions import or_meant
from kdcore.testing.run import Result, Trial, trials

MARKS = {"failed": "FAILED", "exempt": "exempt", "not applicable": "n/a"}


def check_and_print(name: str, verbose: bool = False) -> bool:
    """Run the checks of a plugin or component and print the results. Return True if none failed.

    Args:
        name: Name of a plugin or component, or ``plugin/component``.
        verbose: Whether to also print checks that passed, and why others do not apply.

    Raises:
        PluginError: If the name is unknown, the plugin is broken, or there is nothing to check.
    """
    totals: Counter[str] = Counter()
    for (kind, component), chosen in groupby(_chosen(name), lambda trial: _title(trial)):
        results = [trial.result() for trial in chosen]
        counts = Counter(result.status for result in results)
        totals += counts
        print(f"{kind} {component}: " + ", ".join(f"{count} {status}" for status, count in sorted(counts.items())), flush=True)
        for line in _lines(results, verbose):
            print(line, flush=True)
    print(", ".join(f"{count} {status}" for status, count in sorted(totals.items())))
    return not totals["failed"]


def _title(trial: Trial) -> tuple[str, str]:
    entry = trial.subject.entry
    return entry.kind.replace("_", " "), entry.name + (f" (case {trial.number})" if trial.number else "")


def _chosen(name: str) -> list[Trial]:
    manager = plugin_manager()
    if name in manager.plugins:
        of_plugin = trials(name)
        if not of_plugin:
            raise PluginError(f"plugin {name!r} registers no components; there is nothing to check")
        return of_plugin
    entries = [entry for entry in manager.registry.entries() if name in (entry.name, entry.qualified)]
    if not entries:
        raise UnknownComponentError(_unknown(name, manager))
    plugins = dict.fromkeys(entry.plugin for entry in entries)
    return [trial for plugin in plugins for trial in trials(plugin) if trial.subject.entry in entries]


def _unknown(name: str, manager: PluginManager) -> str:
    known = [*manager.plugins, *(entry.name for entry in manager.registry.entries())]
    return f"no plugin or component {name!r}{or_meant(name, known) or '; see kdcore plugins'}"


def _lines(results: list[Result], verbose: bool) -> Iterator[str]:
    for result in results:
        message = result.message.replace("\n", "\n      ")
        if result.status in ("failed", "exempt"):
            yield f"  {MARKS[result.status]} {result.check.name}: {message}"
        elif verbose:
            mark = MARKS.get(result.status, "ok")
            yield f"  {mark} {result.check.name}: {message or result.check.summary}"

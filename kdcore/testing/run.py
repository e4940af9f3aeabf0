"""Running of checks on components."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from kdcore.errors import PluginError
from kdcore.plugin.files import import_file
from kdcore.plugin.manager import PluginManager, plugin_manager
from kdcore.plugin.registry import Entry
from kdcore.suggestions import or_meant
from kdcore.testing.case import Case, ConformanceError, NotApplicable
from kdcore.testing.checks import Check, Subject, checks_of

Status = Literal["passed", "failed", "exempt", "not applicable"]
Exemptions = Mapping[str, Mapping[str, str]]
Cases = Mapping[str, Case | Sequence[Case]]


@dataclass(frozen=True)
class Result:
    """The result of one check on one component.

    Args:
        entry: The component.
        check: The check.
        status: Status of the check; also ``failed`` if a check passes although it is expected to fail.
        message: Reason why the check failed, is exempt or is not applicable.
        cause: Exception that the check raised, if it failed.
    """

    entry: Entry
    check: Check
    status: Status
    message: str = ""
    cause: Exception | None = None


@dataclass(frozen=True)
class Trial:
    """One check to run on one component.

    Args:
        subject: The component and its case.
        check: The check.
        exemption: Reason why the check is expected to fail; empty if it is not.
        number: Number of the case, starting at 1, if the component has several; otherwise 0.
    """

    subject: Subject
    check: Check
    exemption: str = ""
    number: int = 0

    @property
    def name(self) -> str:
        """``kind/component/check``, with the number of the case if there are several."""
        numbered = f"-{self.number}" if self.number else ""
        return f"{self.subject.entry.kind}/{self.subject.entry.name}/{self.check.name}{numbered}"

    def result(self) -> Result:
        """Run the check."""
        status, message, cause = self._outcome()
        if self.exemption and status == "failed":
            status, message = "exempt", f"{self.exemption} ({message})"
        elif self.exemption and status == "passed":
            status, message = "failed", f"is expected to fail ({self.exemption}) but passes: remove the exemption"
        return Result(self.subject.entry, self.check, status, message, cause)

    def _outcome(self) -> tuple[Status, str, Exception | None]:
        try:
            self.check.run(self.subject)
        except NotApplicable as reason:
            return "not applicable", str(reason), None
        except ConformanceError as error:
            return "failed", str(error), error
        except Exception as error:  # a component may raise anything
            return "failed", f"{type(error).__name__}: {error}", error
        return "passed", "", None


def check_component(entry: Entry, case: Case | None = None, exemptions: Mapping[str, str] | None = None) -> list[Result]:
    """Run all checks for the component's kind.

    Args:
        entry: The component.
        case: Options and inputs for the test.
        exemptions: Reasons for expected failures, by name of the check.

    Raises:
        PluginError: If an exemption names an unknown check or has no reason, or if a case sets what is for losses only.
    """
    return [trial.result() for trial in _trials_of(entry, case or Case(), exemptions or {})]


def check_plugin(plugin: str, cases: Cases | None = None, expected_failures: Exemptions | None = None) -> Iterator[Result]:
    """Run all checks on all components of a plugin, and yield the results one by one.

    Takes the same arguments and raises the same errors as `conformance_tests`.
    """
    return (trial.result() for trial in trials(plugin, cases, expected_failures))


def trials(
    plugin: str,
    cases: Cases | None = None,
    expected_failures: Exemptions | None = None,
    manager: PluginManager | None = None,
) -> list[Trial]:
    """Return the checks to run on all components of a plugin.

    Raises:
        PluginError: If the plugin is unknown or broken, if a case or exemption names an unknown component or check, or if an
            exemption has no reason.
    """
    manager = manager or plugin_manager()
    entries = _entries(plugin, manager)
    shipped_cases, shipped_exemptions = _declared_by(manager.plugins[plugin].target)
    cases_by_entry = _by_entry(entries, {**shipped_cases, **(cases or {})}, plugin)
    exempt = _by_entry(entries, {**shipped_exemptions, **(expected_failures or {})}, plugin)
    return [trial for entry in entries for trial in _trials_of(entry, cases_by_entry.get(entry, Case()), exempt.get(entry, {}))]


def _entries(plugin: str, manager: PluginManager) -> list[Entry]:
    if plugin not in manager.plugins:
        known = ", ".join(manager.plugins) or "none"
        raise PluginError(f"no plugin {plugin!r} is installed (installed: {known}); install it with pip install -e .")
    installed = manager.plugins[plugin]
    if installed.failure:
        raise PluginError(f"plugin {plugin!r} is broken: {installed.failure}") from installed.cause
    return [entry for entry in manager.registry.entries() if entry.plugin == plugin]


def _declared_by(target: str) -> tuple[Cases, Exemptions]:
    """Return ``cases`` and ``expected_failures`` from a plugin file, or from a package's module ``conformance`` if it has one.

    Raises:
        PluginError: If one of them is not a dict.
    """
    if target.endswith(".py"):
        module = import_file(Path(target))
    else:
        package = target.partition(":")[0]
        if not hasattr(import_module(package), "__path__") or find_spec(f"{package}.conformance") is None:
            return {}, {}
        module = import_module(f"{package}.conformance")
    declared = {name: getattr(module, name, {}) for name in ("cases", "expected_failures")}
    for name, value in declared.items():
        if not isinstance(value, Mapping):
            raise PluginError(f"{module.__name__}.{name} must be a dict by component, as the conformance checks read it")
    return declared["cases"], declared["expected_failures"]


def _by_entry(entries: list[Entry], by_name: Mapping[str, Any], plugin: str) -> dict[Entry, Any]:
    """Return values by component. Their names are ``name``, or ``kind/name`` if several kinds use the name."""
    by_entry: dict[Entry, Any] = {}
    for name, value in by_name.items():
        matching = [entry for entry in entries if name in (entry.name, f"{entry.kind}/{entry.name}")]
        if not matching:
            hint = or_meant(name, [entry.name for entry in entries])
            raise PluginError(f"plugin {plugin!r} registers no component {name!r}{hint}")
        if len(matching) > 1:
            choices = " or ".join(f"'{entry.kind}/{entry.name}'" for entry in matching)
            raise PluginError(f"plugin {plugin!r} has several components named {name!r}: write {choices}")
        by_entry[matching[0]] = value
    return by_entry


def _trials_of(entry: Entry, cases: Case | Sequence[Case], exemptions: Mapping[str, str]) -> list[Trial]:
    checks = checks_of(entry.kind)
    names = [check.name for check in checks]
    for name, reason in exemptions.items():
        if name not in names:
            what = f"there is no check {name!r}{or_meant(name, names)} (checks: {', '.join(names)})"
            raise PluginError(f"{entry.kind} {entry.name!r}: {what}")
        if not isinstance(reason, str) or not reason.strip():
            raise PluginError(f"{entry.kind} {entry.name!r}: the exemption from {name!r} has no reason")
    listed = [cases] if isinstance(cases, Case) else cases
    if entry.kind != "loss" and any(case.warmup_steps or case.random_per_sample for case in listed):
        raise PluginError(f"{entry.kind} {entry.name!r}: only cases of losses may set warmup_steps or random_per_sample")
    return [
        Trial(subject, check, exemptions.get(check.name, ""), number if len(listed) > 1 else 0)
        for number, subject in enumerate((Subject(entry, case) for case in listed), 1)
        for check in checks
    ]

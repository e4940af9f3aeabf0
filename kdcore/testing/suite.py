"""The kit as a test function of pytest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kdcore.testing.run import Cases, Exemptions, Trial, trials


def conformance_tests(
    plugin: str,
    cases: Cases | None = None,
    expected_failures: Exemptions | None = None,
) -> Callable[..., None]:
    """A test function with one test for every check of every component that a plugin registers.

    Write ``test_conformance = conformance_tests("my-plugin")`` in a test file. What is told here adds to ``cases`` and
    ``expected_failures`` of a module ``conformance`` in the plugin's package, which ``kdcore check-plugin`` reads too.

    Args:
        plugin: The plugin's name, as in its entry point.
        cases: Component → how it is tested, or a list of several ways; needed where it has options without defaults, or
            unusual inputs.
        expected_failures: Component → check → why it is right that the check fails.

    Raises:
        PluginError: If the plugin is unknown or broken, if a case or exemption names nothing that it registers or no check,
            or if an exemption gives no reason.
    """
    import pytest

    every = [pytest.param(trial, id=trial.name) for trial in trials(plugin, cases, expected_failures)]

    @pytest.mark.parametrize("conformance", every)
    def test(conformance: Trial) -> None:
        report(conformance)

    test.__doc__ = f"What kdcore asks of the components of plugin {plugin!r}."
    return test


def report(trial: Trial) -> Any:
    """Make a check, and tell pytest what came of it."""
    import pytest

    result = trial.result()
    if result.status == "not applicable":
        pytest.skip(f"not applicable: {result.message}")
    if result.status == "exempt":
        pytest.xfail(result.message)
    if result.status == "failed":
        told = f"{trial.name}: {result.message}\n\nThe check: {trial.check.summary}"
        raise AssertionError(told) from result.cause

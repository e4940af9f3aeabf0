"""Conformance checks as a pytest test function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kdcore.testing.run import Cases, Exemptions, Trial, trials


def conformance_tests(
    plugin: str,
    cases: Cases | None = None,
    expected_failures: Exemptions | None = None,
) -> Callable[..., None]:
    """Return a test function that is parametrized over all checks and components of a plugin.

    Write ``test_conformance = conformance_tests("my-plugin")`` in a test file. The arguments extend ``cases`` and
    ``expected_failures`` of a module ``conformance`` in the plugin's package, which ``kdcore check-plugin`` also reads.

    Args:
        plugin: Name of the plugin, as in its entry point.
        cases: Case, or list of cases, by component; required if it has options without defaults or unusual inputs.
        expected_failures: Reasons for expected failures, by component and check.

    Raises:
        PluginError: If the plugin is unknown or broken, if a case or exemption names an unknown component or check, or if an
            exemption has no reason.
    """
    import pytest

    every = [pytest.param(trial, id=trial.name) for trial in trials(plugin, cases, expected_failures)]

    @pytest.mark.parametrize("conformance", every)
    def test(conformance: Trial) -> None:
        report(conformance)

    test.__doc__ = f"Conformance of the components of plugin {plugin!r}."
    return test


def report(trial: Trial) -> Any:
    """Run a check and report its result to pytest."""
    import pytest

    result = trial.result()
    if result.status == "not applicable":
        pytest.skip(f"not applicable: {result.message}")
    if result.status == "exempt":
        pytest.xfail(result.message)
    if result.status == "failed":
        text = f"{trial.name}: {result.message}\n\nRequirement: {trial.check.summary}"
        raise AssertionError(text) from result.cause

"""Pytest option ``--conformance NAME``, which runs the checks of an installed plugin without a test file.

pytest imports this module whenever kdcore is installed, so it must be quick to import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from kdcore.testing.run import Trial


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option ``--conformance``."""
    parser.getgroup("kdcore").addoption(
        "--conformance",
        action="append",
        default=[],
        metavar="PLUGIN",
        help="Run kdcore's conformance checks on all components of this installed plugin.",
    )


def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Add one test per check and component."""
    for plugin in config.getoption("conformance") or ():
        from kdcore.testing.run import trials

        items += [ConformanceItem.from_parent(session, name=trial.name, trial=trial) for trial in trials(plugin)]


class ConformanceItem(pytest.Item):
    """One check on one component."""

    def __init__(self, *, trial: Trial, **options):
        super().__init__(**options)
        self.trial = trial

    def runtest(self) -> None:
        """Run the check."""
        from kdcore.testing.suite import report

        report(self.trial)

    def reportinfo(self):
        """Return the location for pytest's report."""
        return self.path, None, f"conformance {self.name}"

    def repr_failure(self, excinfo, style=None):
        """Return the message of a failed check, or a traceback if it raised another exception."""
        from kdcore.testing.case import ConformanceError

        if isinstance(excinfo.value, AssertionError) and isinstance(excinfo.value.__cause__, ConformanceError | None):
            return str(excinfo.value)
        return super().repr_failure(excinfo)

"""Conformance checks for the components of plugins.

The complete test file of a plugin can be::

    from kdcore.testing import conformance_tests

    test_conformance = conformance_tests("my-plugin")

Names are imported on first use, so that installing kdcore does not slow down the start of pytest.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdcore.testing.case import Case, ConformanceError, NotApplicable
    from kdcore.testing.checks import Check, checks_of
    from kdcore.testing.run import Result, check_component, check_plugin
    from kdcore.testing.shell import check_and_print
    from kdcore.testing.suite import conformance_tests

_HOME = {
    "kdcore.testing.case": ("Case", "ConformanceError", "NotApplicable"),
    "kdcore.testing.checks": ("Check", "checks_of"),
    "kdcore.testing.run": ("Result", "check_component", "check_plugin"),
    "kdcore.testing.shell": ("check_and_print",),
    "kdcore.testing.suite": ("conformance_tests",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Case",
    "Check",
    "ConformanceError",
    "NotApplicable",
    "Result",
    "check_and_print",
    "check_component",
    "check_plugin",
    "checks_of",
    "conformance_tests",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'kdcore.testing' has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)

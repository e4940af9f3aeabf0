"""Conformance checks of everything that this plugin registers."""

from kdcore.testing import conformance_tests

test_conformance = conformance_tests("pendulum")

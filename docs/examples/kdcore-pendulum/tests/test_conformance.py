"""kdcore's checks of everything that this plugin announces."""

from kdcore.testing import conformance_tests

test_conformance = conformance_tests("pendulum")

"""Tests of the report draw its figures."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def drawn(figures):
    """All figures."""

"""What tests of hostile input share."""

from __future__ import annotations

import pytest


@pytest.fixture
def proof(tmp_path):
    """A folder that exists if a payload ran."""
    path = tmp_path / "executed"
    yield path
    assert not path.exists(), "a payload was executed"

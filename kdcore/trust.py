"""The user's permission to run code that files bring along."""

from __future__ import annotations

import os

TRUST = "KDCORE_TRUST_CODE"
"""Environment variable that permits it if it is 1."""


def trusts_code() -> bool:
    """Return whether the user permits files that hold code, by ``KDCORE_TRUST_CODE=1`` in the environment."""
    return os.environ.get(TRUST) == "1"

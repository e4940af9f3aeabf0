"""Downloads from the Hugging Face Hub by libraries that kdcore calls."""

from __future__ import annotations

import logging
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

HUB, OFFLINE, PACKAGE = "https://huggingface.co", "HF_HUB_OFFLINE", "huggingface_hub"
"""The hub, its client's switch for work without a network, and the client."""

SECONDS = 5.0
"""Time to wait for a response of the hub, in seconds."""


@contextmanager
def hub_downloads() -> Iterator[None]:
    """Silence the retries of the hub's client, and let downloads fail at once if the hub cannot be reached.

    Files in the client's cache are still used. The client reads its offline switch when it is imported, so import it, or the
    library that downloads, within this context. If it was imported before, it retries as usual.
    """
    logger, before = logging.getLogger(PACKAGE), os.environ.get(OFFLINE)
    level = logger.level
    logger.setLevel(logging.ERROR)
    if before is None and PACKAGE not in sys.modules and not reachable(os.environ.get("HF_ENDPOINT") or HUB):
        os.environ[OFFLINE] = "1"
        import huggingface_hub.constants  # noqa: F401 - reads the switch  # pyright: ignore[reportUnusedImport]
    try:
        yield
    finally:
        logger.setLevel(level)
        if before is None:
            os.environ.pop(OFFLINE, None)


def reachable(address: str) -> bool:
    """Return True if a server responds, with any status, through the proxies in the environment."""
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=SECONDS):
            return True
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False

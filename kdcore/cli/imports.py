"""Imports of PyTorch by commands."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """Context for imports that load PyTorch, without garbage collection.

    Modules are never garbage. Collections during the import would take a sixth of its time. Afterwards, each full collection
    would search the objects of all modules for 0.1 s, so they are exempt from collections.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()

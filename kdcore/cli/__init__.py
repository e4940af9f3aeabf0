"""The command-line interface. Each module holds one group of commands."""

import time

STARTED = time.perf_counter()
"""Value of ``time.perf_counter()`` when the command started to load, in seconds."""

"""The command line: one file a group of commands."""

import time

STARTED = time.perf_counter()
"""Reading of the clock when the command began to load."""

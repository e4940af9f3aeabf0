"""Runs: from a plan to trained students, their evaluation and their records."""

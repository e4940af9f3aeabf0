"""What comes of a run: evaluation, outcomes kept on disk, tracking, report."""

from pathlib import Path


def served_file() -> Path:
    """The file that MLflow reads to serve a student."""
    return Path(__file__).with_name("served.py")

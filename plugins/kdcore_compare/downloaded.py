"""Finished runs that a tracking service has."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from kdcore import FinishedRun, UsageError, plugin_manager


def downloaded(
    to: Path, uri: str | None, *, run_id: str = "", experiment: str = "", matching: str = ""
) -> Iterable[FinishedRun]:
    """Download the run with this id, or the runs of an experiment that match a filter, into the folder `to`.

    Raises:
        UsageError: If no plugin in use tracks runs.
        KdcoreError: If there are no such runs.
    """
    hook = plugin_manager().hook
    found = hook.download_runs(to=to, uri=uri, run_id=run_id, experiment=experiment, matching=matching)
    if found is None:
        raise UsageError("runs cannot be downloaded: the plugin 'mlflow' is not in use")
    return found

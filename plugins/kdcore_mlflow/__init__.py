"""Tracking with MLflow: the journal of a run is sent to MLflow during training, and students are logged as models."""

from kdcore import hookimpl


@hookimpl
def register_commands(cli):
    """Add the commands ``sync`` and ``register``."""
    from kdcore_mlflow.commands import register, sync

    for command in (sync, register):
        cli.command(rich_help_panel="Results")(command)


@hookimpl
def command_finished():
    """Send records that earlier runs could not send."""
    from kdcore_mlflow.unsent import notes

    if notes().is_dir():
        from kdcore_mlflow.commands import send_leftovers

        send_leftovers()


@hookimpl
def open_tracker(recipe, say):
    """Return the MLflow tracker."""
    from kdcore_mlflow.tracker import MlflowTracker

    return MlflowTracker(recipe.tracking.uri, say)


@hookimpl
def run_started(run):
    """Record the recipe and the data."""
    if run.journal:
        from kdcore_mlflow.events import record_start

        record_start(run, run.journal)


@hookimpl
def arm_started(run, seed, arm):
    """Record the user and the source commit of a seed."""
    if run.journal:
        from kdcore_mlflow.events import record_seed

        record_seed(run, run.journal, seed)


@hookimpl
def arm_finished(run, seed, arm, outcome):
    """Record predictions and students."""
    if run.journal:
        from kdcore_mlflow.events import record_arm

        record_arm(run, run.journal, seed, arm, outcome.students)


@hookimpl
def run_finished(run, summary, report):
    """Record the report, the models and the notes."""
    if run.journal:
        from kdcore_mlflow.events import record_end

        record_end(run, run.journal, summary, report)


@hookimpl
def download_runs(to, uri, run_id, experiment, matching):
    """Download finished runs from MLflow."""
    from kdcore_mlflow.downloads import tracked_run, tracked_runs

    return [tracked_run(run_id, to, uri)] if run_id else tracked_runs(experiment, to, uri, matching)

"""Trained students for use elsewhere: ONNX and torch.export files, and MLflow's model registry."""

from kdcore import hookimpl


@hookimpl
def register_commands(cli):
    """Add ``export`` and ``register``."""
    from kdcore_export.commands import export, register

    cli.command()(export)
    cli.command()(register)

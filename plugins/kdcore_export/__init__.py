"""Trained students for use elsewhere: ONNX and torch.export files."""

from kdcore import hookimpl


@hookimpl
def register_commands(cli):
    """Add ``export``."""
    from kdcore_export.commands import export

    cli.command()(export)

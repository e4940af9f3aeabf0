"""Export of trained students, and import of teachers: ONNX, TorchScript and torch.export files."""

from kdcore import hookimpl


@hookimpl
def register_encoders(register):
    """Register encoders for networks in files."""
    register("onnx", "kdcore_export.file_networks:OnnxNetwork")
    register("torchscript", "kdcore_export.file_networks:TorchScriptNetwork")
    register("exported", "kdcore_export.file_networks:ExportedNetwork")


@hookimpl
def open_predictor(path):
    """Open a student exported by ``kdcore export`` as ONNX."""
    if path.suffix != ".onnx":
        return None
    from kdcore_export.onnx_student import load_onnx

    return load_onnx(path)


@hookimpl
def register_commands(cli):
    """Add the command ``export``."""
    from kdcore_export.commands import export

    cli.command(rich_help_panel="Deployment")(export)

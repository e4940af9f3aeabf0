"""GSDM: maps of where a network's inputs mean something, compared between teachers and student."""

from kdcore import hookimpl


@hookimpl
def register_losses(register):
    """Register the loss."""
    register("gsdm", "kdcore_gsdm.loss:GraphGuidedSemanticMaps")

"""SPAMFM: teachers that run in lockstep and recalibrate one another's channels."""

from kdcore import hookimpl


@hookimpl
def register_fusions(register):
    """Register the fusion."""
    register("spamfm", "kdcore_spamfm.fusion:SpamfmFusion")

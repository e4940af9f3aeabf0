"""Adaptive-confidence semantic distillation (Ni, Ngu, Yan, ACM MM 2022)."""

from kdcore import hookimpl


@hookimpl
def register_losses(register):
    """Register the losses."""
    register("acs", "kdcore_acs.acs:AdaptiveConfidenceSemantic")
    register("adaptive-confidence", "kdcore_acs.acs:AdaptiveConfidence")

"""Cross-modal distillation with mutual learning (Thoker and Gall, ICIP 2019)."""

from kdcore import hookimpl


@hookimpl
def register_losses(register):
    """Register the losses."""
    register("hard-teacher", "kdcore_mutual.losses:HardTeacher")
    register("kl", "kdcore_mutual.losses:Divergence")
    register("mutual", "kdcore_mutual.losses:Mutual")


@hookimpl
def register_schedules(register):
    """Register the schedule."""
    register("mutual", "kdcore_mutual.schedule:MutualLearning")

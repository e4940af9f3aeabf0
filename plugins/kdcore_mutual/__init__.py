"""Cross-modal distillation with mutual learning (Thoker and Gall, ICIP 2019)."""

from kdcore import hookimpl


@hookimpl
def register_losses(register):
    """Announce the losses."""
    register("hard-teacher", "kdcore_mutual.hard_teacher:HardTeacher")
    register("kl", "kdcore_mutual.kl:Divergence")
    register("mutual", "kdcore_mutual.mutual:Mutual")


@hookimpl
def register_schedules(register):
    """Announce the schedule."""
    register("mutual", "kdcore_mutual.schedule:MutualLearning")

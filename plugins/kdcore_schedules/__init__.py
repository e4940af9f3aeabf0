"""Training schedules: two-stage, and progressive (Ni, Ngu, Yan, ACM MM 2022)."""

from kdcore import hookimpl


@hookimpl
def register_schedules(register):
    """Register the schedules."""
    register("two-stage", "kdcore_schedules.schedules:TwoStage")
    register("progressive", "kdcore_schedules.schedules:Progressive")

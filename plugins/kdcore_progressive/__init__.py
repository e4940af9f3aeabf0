"""Progressive distillation: a student that learns along with its teachers (Ni, Ngu, Yan, ACM MM 2022)."""

from kdcore import hookimpl


@hookimpl
def register_schedules(register):
    """Announce the schedule."""
    register("progressive", "kdcore_progressive.schedule:Progressive")

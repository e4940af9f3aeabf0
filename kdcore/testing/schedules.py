"""Checks of schedules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice

from kdcore.contracts.schedule import Schedule, Stage, Team
from kdcore.errors import KdcoreError
from kdcore.testing.case import ConformanceError, NotApplicable, require
from kdcore.testing.checks import Subject, check

TEAMS = (
    Team(("first", "second"), ("student",)),
    Team(("first",), ("one", "two", "three")),
    Team((), ("student",)),
    Team((), ("one", "two")),
)
"""With and without teachers, one student and several."""
MANY = 10_000


def planned(subject: Subject) -> Iterator[tuple[Team, list[Stage]]]:
    """Every team that the schedule accepts, and its stages.

    Raises:
        NotApplicable: If it accepts none, which is the check `stages_valid`'s to say.
    """
    schedule, accepted = subject.made(), 0
    for team in _teams(subject):
        try:
            stages = _stages(schedule, team)
        except Exception:  # reported by `stages_valid`
            continue
        accepted += 1
        yield team, stages
    if not accepted:
        raise NotApplicable("it gives no stages: see the check 'stages_valid'")


def _teams(subject: Subject) -> Sequence[Team]:
    return subject.case.inputs or TEAMS


def _stages(schedule: Schedule, team: Team) -> list[Stage]:
    stages = list(islice(schedule.stages(team), MANY))
    require(len(stages) < MANY, f"it gives more than {MANY} stages; does it end?")
    return stages


@check("schedule")
def stages_valid(subject: Subject) -> None:
    """It gives stages, each with a name, learners and teachers of the team, and a positive number of epochs."""
    schedule, accepted = subject.made(), 0
    for team in _teams(subject):
        try:
            stages = _stages(schedule, team)
        except (ValueError, KdcoreError):  # a schedule may refuse a team
            continue
        accepted += 1
        require(stages, f"it gives no stages for {team}")
        for stage in stages:
            require(isinstance(stage, Stage), f"it yields {stage!r}, which is no Stage")
            _check_stage(stage, team)
    if not accepted:
        raise ConformanceError("it refuses every team that it is tried with; name those it is for in Case(inputs=[Team(…)])")


def _check_stage(stage: Stage, team: Team) -> None:
    require(stage.name, f"a stage for {team} has no name")
    require(stage.learners, f"nobody learns in stage {stage.name!r} for {team}")
    require(isinstance(stage.learners, tuple), f"learners of stage {stage.name!r} must be a tuple, for they name an optimizer")
    everybody = {*team.teachers, *team.students}
    unknown = [name for name in (*stage.learners, *stage.teachers) if name not in everybody]
    require(not unknown, f"stage {stage.name!r} names {', '.join(unknown)}, who is not in {team}")
    require(stage.epochs >= 1, f"stage {stage.name!r} for {team} has {stage.epochs} epochs")


@check("schedule")
def roles_clear(subject: Subject) -> None:
    """Nobody learns and teaches in one stage, nobody is named twice, and only teachers teach."""
    for team, stages in planned(subject):
        for stage in stages:
            twice = [name for name, count in Counter((*stage.learners, *stage.teachers)).items() if count > 1]
            require(not twice, f"stage {stage.name!r} for {team} names {', '.join(twice)} twice: as learner or as teacher?")
            teaching = [name for name in stage.teachers if name in team.students]
            require(not teaching, f"stage {stage.name!r} for {team} has {', '.join(teaching)} teach, who is a student")


@check("schedule")
def every_student_learns(subject: Subject) -> None:
    """Each student of the team learns in some stage."""
    for team, stages in planned(subject):
        learners = {name for stage in stages for name in stage.learners}
        idle = [name for name in team.students if name not in learners]
        require(not idle, f"for {team}, {', '.join(idle)} never learns")


@check("schedule")
def epochs_add_up(subject: Subject) -> None:
    """The epochs of all stages with the same learners add up to their training's `epochs`, which learning rates follow."""
    for team, stages in planned(subject):
        total = Counter[tuple[str, ...]]()
        for stage in stages:
            total[stage.learners] += stage.epochs
        for stage in stages:
            wanted = stage.training.epochs
            require(
                total[stage.learners] == wanted,
                f"for {team}, {'+'.join(stage.learners)} have {total[stage.learners]} epochs in all, "
                f"but their training says {wanted}, by which learning rates change",
            )


@check("schedule")
def repeatable(subject: Subject) -> None:
    """Asked again, itself or made anew, it gives the same stages: a resumed run asks again."""
    schedule, other = subject.made(), subject.made()
    for team, _ in planned(subject):
        first, again, anew = _stages(schedule, team), _stages(schedule, team), _stages(other, team)
        require(first == again, f"asked twice about {team} it gives other stages the second time")
        require(first == anew, f"made anew it gives other stages for {team}")

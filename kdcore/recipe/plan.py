"""The plan of a run: everything that follows from a recipe before data are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from kdcore.contracts.schedule import Graph, Stage
from kdcore.plugin.facts import ask, component_facts
from kdcore.recipe.config_models import ParticipantSpec
from kdcore.recipe.graph import LearnerTerm, StagePlan, peers_of, recipe_graph, stage_plans, teachers_of, terms_of
from kdcore.recipe.models import Recipe
from kdcore.recipe.schedule_checks import default_stages, stages_of

DISTILLED, BASELINE = "distilled", "baseline"


@dataclass(frozen=True)
class ParticipantPlan:
    """The plan of one participant.

    Args:
        name: Name in the recipe.
        role: Section of the recipe that lists it: `teachers` or `students`.
        path: Path in the recipe.
        spec: Its section of the recipe; a moving average has that of the participant that it follows.
        teachers: Sources that do not learn from it.
        peers: Sources that also learn from it.
        terms: Its objective.
        inherits: True if it starts from the weights of a teacher, or of a distilled student.
    """

    name: str
    role: Literal["teacher", "student"]
    path: str
    spec: ParticipantSpec
    teachers: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    terms: tuple[LearnerTerm, ...] = ()
    inherits: bool = False

    def terms_in(self, arm: str) -> tuple[LearnerTerm, ...]:
        """Terms of an arm with a non-zero weight."""
        return tuple(term for term in self.terms if term.active and (arm == DISTILLED or term.needs.in_baseline))

    @property
    def distils(self) -> bool:
        """True if distillation adds to its objective, or to the weights that it starts from."""
        return self.inherits or self.terms_in(DISTILLED) != self.terms_in(BASELINE)

    @property
    def has_baseline(self) -> bool:
        """True if it is distilled, and something of its objective is left without distillation."""
        return self.distils and bool(self.terms_in(BASELINE))


@dataclass(frozen=True)
class Plan:
    """The participants, arms and stages of a run.

    Args:
        recipe: The recipe.
        filled: The recipe as plain values, with all defaults filled in.
        hash: SHA-256 of `filled` without description and tracking.
        graph: Graph of participants.
        participants: Name → plan, teachers first.
        stages: Arm → its stages in order.
    """

    recipe: Recipe
    filled: Mapping[str, Any]
    hash: str
    graph: Graph
    participants: Mapping[str, ParticipantPlan]
    stages: Mapping[str, tuple[StagePlan, ...]]

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms that each seed trains, in order."""
        return tuple(self.stages)

    @property
    def teachers(self) -> tuple[str, ...]:
        """Names of the teachers."""
        return tuple(name for name, each in self.participants.items() if each.role == "teacher")

    @property
    def students(self) -> tuple[str, ...]:
        """Names of the students."""
        return tuple(name for name, each in self.participants.items() if each.role == "student")

    def members(self, arm: str) -> tuple[str, ...]:
        """Participants of an arm."""
        if arm == DISTILLED:
            return tuple(self.participants)
        return tuple(name for name in self.students if any(name in stage.learners for stage in self.stages[BASELINE]))

    @property
    def compared(self) -> tuple[str, ...]:
        """Students that are trained in both arms."""
        return tuple(n for n in self.students if BASELINE in self.stages and self.participants[n].has_baseline)

    @property
    def distilled(self) -> tuple[str, ...]:
        """Students that learn by distillation."""
        return tuple(name for name in self.students if self.participants[name].distils)

    @property
    def extra_epochs(self) -> dict[str, int]:
        """Student → extra epochs of its baseline, which replace those of the participant that the student starts from."""
        distilled, baseline = (
            {name: training.epochs for stage in self.stages.get(arm, ()) for name, training in stage.training.items()}
            for arm in (DISTILLED, BASELINE)
        )
        return {name: epochs - distilled[name] for name, epochs in baseline.items() if epochs > distilled[name]}

    @property
    def no_baseline(self) -> str:
        """Reason why there is no baseline; empty if there is one."""
        if BASELINE in self.stages:
            return ""
        if not self.recipe.baseline:
            return "the recipe sets baseline: false"
        if self.distilled:
            return "without distillation the students' objective would be empty"
        return "no term of a student's objective distils"

    def caches(self, name: str) -> bool:
        """True if the outputs of `name` are cached per sample while it is frozen."""
        spec = self.participants[name].spec
        if not (self.recipe.engine.teacher_cache and spec.is_network) or self._sees_random_input(spec):
            return False
        fusion = self.recipe.fusion
        if fusion is None or name not in self.graph.fused:
            return True
        facts = component_facts(self.recipe.registry.get("fusion", fusion.name), fusion.options)
        others = [self.participants[each].spec for each in self.graph.fused]
        return not facts.batch_dependent and not any(map(self._sees_random_input, others))

    def _sees_random_input(self, spec: ParticipantSpec) -> bool:
        if not spec.augment_frozen:
            return False
        transforms = [each for key in (*spec.modalities, "joined") for each in spec.transforms_of(key)]
        registry = self.recipe.registry
        return any(component_facts(registry.get("transform", each.name)).augmentation for each in transforms)

    @property
    def unread(self) -> tuple[str, ...]:
        """Teachers that no student learns from, directly or indirectly; without copies, which are for evaluation only."""
        read: set[str] = set()
        waiting = list(self.students)
        while waiting:
            reader = self.participants[waiting.pop()]
            sources = {source for term in reader.terms_in(DISTILLED) for source in term.sources}
            sources |= {name for name in (reader.spec.follows, reader.spec.starts_from) if name}
            waiting += [name for name in sources - read if name in self.participants]
            read |= sources
        return tuple(name for name in self.teachers if name not in read and not self.participants[name].spec.is_copy)

    def filled_spec(self, name: str) -> Mapping[str, Any]:
        """Participant `name` as plain values, with every default written out."""
        group, _, key = self.participants[name].path.partition(".")
        return self.filled[group][key] if key else self.filled[group]


def make_plan(recipe: Recipe) -> Plan:
    """Plan a recipe that the loader has checked."""
    graph = recipe_graph(recipe, recipe.needs_of)
    terms = {name: terms_of(recipe, graph, name, recipe.needs_of) for name in recipe.participants}
    stages = _stages(recipe, graph)
    participants = {}
    for name, spec in recipe.participants.items():
        plan = ParticipantPlan(name, graph.nodes[name].role, recipe.path_of(name), spec)
        if spec.is_network:
            teachers, peers = teachers_of(graph, name), peers_of(graph, name)
            plan = replace(plan, teachers=teachers, peers=peers, terms=tuple(terms[name]))
        participants[name] = plan
    participants |= {name: replace(each, inherits=_inherits(participants, each)) for name, each in participants.items()}
    distilled = tuple(stage_plans(recipe, graph, stages, terms))
    arms = {DISTILLED: distilled}
    if recipe.baseline and any(each.has_baseline for each in participants.values() if each.role == "student"):
        arms[BASELINE] = tuple(_baseline_stages(participants, distilled))
    filled = recipe.filled()
    return Plan(recipe, filled, recipe.digest(filled, "description", "tracking"), graph, participants, arms)


def _stages(recipe: Recipe, graph: Graph) -> tuple[Stage, ...]:
    schedule = recipe.schedule
    if schedule is None:
        return tuple(default_stages(graph))
    return ask(recipe.registry.get("schedule", schedule.name), schedule.options, stages_of, graph)


def _inherits(participants: Mapping[str, ParticipantPlan], each: ParticipantPlan) -> bool:
    """True if a participant starts from the weights of a teacher, or of a distilled student."""
    origin = participants.get(each.spec.starts_from or "")
    return origin is not None and (origin.role == "teacher" or origin.distils or _inherits(participants, origin))


def _baseline_stages(participants: Mapping[str, ParticipantPlan], stages: Sequence[StagePlan]) -> list[StagePlan]:
    """Stages of the baseline: the students with the same epochs, batches and split, but without sources.

    A student that starts from a participant without a baseline is trained for the epochs of both.
    """
    members = _baseline_members(participants, stages)
    more = {name: _epochs_before(participants, stages, members, name) for name in members}
    baseline: list[StagePlan] = []
    trained: set[str] = set()
    for stage in stages:
        groups: dict[int, list[str]] = {}
        for name in (name for name in stage.learners if name in members):
            groups.setdefault(0 if name in trained else more[name], []).append(name)
        for epochs, names in groups.items():
            trained |= set(names)
            training = {name: stage.training[name] for name in names}
            longer = {name: replace(each, epochs=each.epochs + more[name]) for name, each in training.items()}
            part = replace(stage, learners=tuple(names), sources=(), training=longer, epochs=stage.epochs + epochs)
            whole = len(groups) == 1  # else the stage is divided, since its students need different numbers of epochs
            baseline.append(part if whole else replace(part, name="+".join(names), order="+".join(names)))
    return baseline


def _baseline_members(participants: Mapping[str, ParticipantPlan], stages: Sequence[StagePlan]) -> set[str]:
    """Students of the baseline: those in a stage with a student that has a baseline, and the students that they start from."""
    able = {name for name, each in participants.items() if each.role == "student" and each.terms_in(BASELINE)}
    members: set[str] = set()
    for stage in reversed(stages):
        students = able & set(stage.learners)
        if students & members or any(participants[name].has_baseline for name in students):
            members |= students
            members |= {origin for name in students if (origin := participants[name].spec.starts_from) in able}
    return members


def _epochs_before(
    participants: Mapping[str, ParticipantPlan], stages: Sequence[StagePlan], members: set[str], name: str
) -> int:
    """Epochs of the participants that a student starts from, if the baseline does not have them."""
    origin = participants[name].spec.starts_from
    if origin is None or origin in members:
        return 0
    own = sum(stage.epochs for stage in stages if origin in stage.learners)
    return own + _epochs_before(participants, stages, members, origin)

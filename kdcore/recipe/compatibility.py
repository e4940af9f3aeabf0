"""Checks whether a recipe's parts fit one another, as far as can be told before data are read and networks built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from kdcore.contracts.needs import Needs
from kdcore.contracts.schedule import Schedule, Stage, Team
from kdcore.errors import ComponentError, PluginError, Problem
from kdcore.plugin.facts import Facts, ask, component_facts
from kdcore.plugin.registry import Entry
from kdcore.recipe.models import ParticipantSpec, Recipe
from kdcore.recipe.problems import Places
from kdcore.recipe.validate import Checked
from kdcore.recipe.yaml import Steps
from kdcore.suggestions import did_you_mean


def check_fit(recipe: Recipe, tree: Mapping[str, Any], checked: Checked, places: Places) -> list[Problem]:
    """Modalities that the dataset lacks, and what losses need and are not given.

    Args:
        recipe: With all of `tree` that is valid.
        tree: The plain values as written; what stands there is not missed, valid or not.
        checked: Its components; those that could not be made out are passed over.
        places: Where it was written.
    """
    return _Fit(recipe, tree, checked, places).problems


def stages_of(schedule: Schedule, team: Team) -> tuple[Stage, ...]:
    """Return the stages of a schedule for these participants."""
    return tuple(schedule.stages(team))


class _Fit:
    def __init__(self, recipe: Recipe, tree: Mapping[str, Any], checked: Checked, places: Places):
        self.recipe, self.tree, self.checked, self.places = recipe, tree, checked, places
        self.problems: list[Problem] = []
        self._modalities()
        self._facts(("data", "protocol"))
        schedule = self._facts(("schedule",))
        if recipe.fusion and not self._written("teachers"):
            self._add(("fusion",), "there are no teachers to fuse")
        self._terms("losses", recipe.student_specs)
        if recipe.teachers:
            self._terms("teacher_losses", recipe.teachers)
            if schedule and recipe.data.labels == "withheld":
                self._withheld(*self.checked.usable["schedule",])

    def _add(self, path: Steps, message: str, hint: str = "") -> None:
        self.problems.append(self.places.problem(path, message, hint))

    def _facts(self, path: Steps) -> Facts | None:
        if path not in self.checked.usable:
            return None
        try:
            return component_facts(*self.checked.usable[path])
        except PluginError as error:
            self._add(path, str(error))
            return None

    def _modalities(self) -> None:
        path = ("data", "dataset")
        entry = self.checked.known.get(path)
        facts = self._facts(path) or (component_facts(entry) if entry else None)
        known = facts.modalities if facts else None
        if known is None:
            return
        for name, spec in self.recipe.participants.items():
            path = (*self._path(name), "modality")
            for index, modality in enumerate(spec.modalities):
                if modality not in known:
                    where = path if isinstance(spec.modality, str) else (*path, index)
                    what = f"the dataset {self.recipe.data.dataset.name!r} has no modality {modality!r}"
                    self._add(where, what, did_you_mean(modality, sorted(known), "it has"))

    def _withheld(self, schedule: Entry, options: dict[str, Any]) -> None:
        """The labels that students are not told are read by no teacher either."""
        teachers, students = set(self.recipe.teachers), set(self.recipe.student_specs)
        losses = [
            self._facts(("teacher_losses", index)) for index, term in enumerate(self.recipe.teacher_losses) if term.active
        ]
        if not any(loss.needs.labels for loss in losses if loss and loss.needs):
            return
        with suppress(ComponentError):  # the run's preparation says so
            stages = ask(schedule, options, stages_of, Team(tuple(self.recipe.teachers), tuple(self.recipe.student_specs)))
            kept = {stage.part for stage in stages if students & set(stage.learners)}
            read = {stage.part for stage in stages if teachers & set(stage.learners)}
            for part in sorted(kept & read):
                self._add(
                    ("schedule",),
                    f"teachers learn from the labels of the part {part!r}, which are withheld from students",
                    "teachers need a part of their own: a protocol that sets one apart, and schedule.teacher_part; "
                    "or give the labels, and students losses that read none",
                )

    def _path(self, name: str) -> Steps:
        if name in self.recipe.teachers:
            return ("teachers", name)
        return ("student",) if self.recipe.student is not None else ("students", name)

    def _terms(self, role: str, learners: Mapping[str, ParticipantSpec]) -> None:
        for index, term in enumerate(getattr(self.recipe, role)):
            loss = self._facts((role, index)) if term.active else None
            needs = loss.needs if loss else None
            if needs:
                for message, hint in (*self._unmet(needs, role), *_untapped(needs, learners, self._asked(role))):
                    self._add((role, index), f"the loss {term.name!r} {message}", hint)

    def _written(self, group: str) -> float:
        """How many participants a group has, unusable ones too; infinitely many if it is no mapping."""
        members = self.tree.get(group, {})
        return len(members) if isinstance(members, Mapping) else float("inf")

    def _asked(self, role: str) -> Mapping[str, ParticipantSpec]:
        """Those whose answers a term may compare the learner's with."""
        return self.recipe.teachers if role == "losses" else {}

    def _unmet(self, needs: Needs, role: str) -> Iterator[tuple[str, str]]:
        recipe = self.recipe
        if needs.class_embeddings and "class_embeddings" not in self.tree:
            yield "needs class embeddings, and the recipe has none", "add 'class_embeddings'"
        if role != "losses":
            return
        if needs.labels and recipe.data.labels == "withheld":
            yield "reads labels, which are withheld from students", "leave it out, or set data.labels to 'given'"
        for wanted, there, what in (
            (needs.teachers, self._written("teachers"), "teacher"),
            (needs.peers, max(self._written("students") - 1, 0), "other student"),
        ):
            if there < wanted:
                yield f"needs at least {wanted} {what}{'s' if wanted > 1 else ''}, and the recipe has {there or 'none'}", ""


def _untapped(
    needs: Needs, learners: Mapping[str, ParticipantSpec], asked: Mapping[str, ParticipantSpec]
) -> Iterator[tuple[str, str]]:
    sides: Sequence[tuple[tuple[str, ...], Mapping[str, ParticipantSpec]]]
    sides = ((needs.student_taps, learners), (needs.teacher_taps, asked))
    for taps, participants in sides:
        for tap in dict.fromkeys(taps):
            lacking = [name for name, spec in participants.items() if tap not in spec.taps]
            if lacking:
                hint = did_you_mean(tap, sorted(participants[lacking[0]].taps), "declared are")
                yield f"needs the tap {tap!r} of {' and '.join(map(repr, lacking))}", hint

"""Setup of the fusion and the losses of an arm, whose parameters depend on the networks' outputs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from kdcore.contracts.batch import Batch, Outputs
from kdcore.contracts.dataset import SampleKey
from kdcore.contracts.loss import DistillationLoss, Example
from kdcore.contracts.target import partly_known
from kdcore.data.table import Table
from kdcore.errors import RecipeError
from kdcore.recipe.build import Builder
from kdcore.recipe.graph import LearnerTerm
from kdcore.recipe.plan import DISTILLED, Plan
from kdcore.training.classifiers import find_classifiers, with_classifier
from kdcore.training.module_checks import set_up
from kdcore.training.origins import find_origins
from kdcore.training.participants import Distiller, TermSpec
from kdcore.training.randomness import derive, seed_everything
from kdcore.training.teacher_cache import outputs_vary

T = TypeVar("T")

Counts = tuple[Tensor | None, int | Tensor | None, list[SampleKey]]
"""Numbers of training samples per class, and of labelled ones, None where they are unknown; and their keys."""


class ArmSetup:
    """Creates the parameters of the fusion and of the losses of an arm from the outputs for one batch.

    Args:
        builder: Constructs losses; locates problems in the recipe.
        plan: The validated plan of the run.
        distiller: The participants of the arm, without losses.
        table: Prepared samples.
        arm: ``distilled`` or ``baseline``.
        wrong_logits: Describes what is wrong with a participant's outputs for a number of samples; empty if nothing is.

    Attributes:
        notes: Remarks for the console and the report.
    """

    def __init__(
        self,
        builder: Builder,
        plan: Plan,
        distiller: Distiller,
        table: Table,
        arm: str,
        wrong_logits: Callable[[str, Outputs, int], str],
    ):
        self.builder, self.plan, self.distiller, self.table, self.arm = builder, plan, distiller, table, arm
        self.wrong_logits = wrong_logits
        self.terms = {name: plan.participants[name].terms_in(arm) for name in distiller.networks}
        self.counts = self._class_counts()
        self.outputs: dict[str, Outputs] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.samples = 0
        self.notes: list[str] = []

    @torch.no_grad()
    def run(self, batch: Batch, seed: int) -> None:
        """Set up the fusion, then the losses of each learner.

        Raises:
            RecipeError: If encoders, fusion or losses do not match the data or each other.
        """
        distiller, self.samples = self.distiller.eval(), len(batch.table)
        fused = {name: distiller.teachers[name] for name in distiller.fused}
        if fused:
            seed_everything(derive(seed, "fusion"))
            self._try("fusion", "could not set up the fusion", lambda: distiller.fusion.setup(fused, batch))  # type: ignore[arg-type]
            distiller.fusion.to(batch.rows.device)
        self.outputs = {name: self._outputs(name, batch) for name in (*distiller.students, *distiller.teachers)}
        self._find_varying(batch)
        if fused:
            what = "could not run the teachers together"
            self.outputs |= self._try("fusion", what, lambda: distiller.run_teachers(list(fused), batch))
        self.outputs |= {name: stored.at(batch.rows) for name, stored in distiller.stored.items()}
        classified, notes = find_classifiers(self.plan, distiller, batch, self.arm)
        self.notes += [*find_origins(self.plan, distiller), *notes]
        self.outputs |= {name: with_classifier(distiller, name, self.outputs[name]) for name in classified}
        inputs = {name: distiller.input(name, batch) for name in distiller.networks}
        self.shapes = {name: tuple(x.shape[1:]) for name, x in inputs.items() if isinstance(x, Tensor)}
        for name in distiller.networks:
            if name in self.counts:
                seed_everything(derive(seed, "losses", name))
                specs = [self._term_spec(term) for term in self.terms[name]]
                distiller.add_terms(name, specs, partial(self._example, name), partial(self._set_up_term, name))
        self._refuse_partial()

    def _outputs(self, name: str, batch: Batch) -> Outputs:
        """The outputs of one participant.

        Raises:
            RecipeError: If its encoder fails on the transformed inputs, or its logits have a wrong shape.
        """
        path, x = f"{self.builder.recipe.path_of(name)}.encoder", self.distiller.participant(name).input(batch.signals[name])
        what = f"{name} cannot read an input of shape {shape_of(x)}"
        outputs = self._try(path, what, lambda: self.distiller.forward(name, batch))
        if wrong := self.wrong_logits(name, outputs, len(batch)):
            raise RecipeError([self.builder.problem(path, wrong)])
        return outputs

    def _find_varying(self, batch: Batch) -> None:
        """Find the sources whose outputs for a sample are not always the same."""
        sources = [source for terms in self.terms.values() for term in terms for source in term.sources]
        for name in dict.fromkeys(source for source in sources if source in self.distiller.networks):
            member = self.distiller.participant(name)
            member.varies = outputs_vary(member, batch.signals[name])
            if member.varies and self.builder.recipe.engine.teacher_cache:
                what = "its outputs for a sample change from pass to pass, or with the batch"
                self.notes.append(f"{name}: {what}, so they are computed in every step instead of cached")
        for name in self.counts:
            member = self.distiller.participant(name)
            if not member.varies and outputs_vary(member, batch.signals[name]):
                self.notes.append(
                    f"{name}: in evaluation mode, too, its outputs for a sample change from pass to pass, or with the batch, "
                    "so results depend on the batches, and predictions of single recordings differ"
                )

    def _class_counts(self) -> dict[str, Counts]:
        """Learner → class counts of its training samples, None if unknown or if labels are withheld from it; and their keys."""
        rows: dict[str, list[Tensor]] = {}
        for stage in self.plan.stages[self.arm]:
            for name in stage.learners:
                rows.setdefault(name, []).append(self.table.training_rows(stage.split, [name]))
        withheld = self.plan.students if self.builder.recipe.data.labels == "withheld" else ()
        counts: dict[str, Counts] = {}
        for name, parts in rows.items():
            own = torch.cat(parts).unique()
            keys = [self.table.keys[row] for row in own.tolist()]
            if name in withheld:
                counts[name] = (None, None, keys)
            else:
                counts[name] = (self.table.class_counts(own), self.table.labelled_count(own), keys)
        return counts

    def _term_spec(self, term: LearnerTerm) -> TermSpec:
        distilled = self.arm == DISTILLED
        return TermSpec(
            id=term.term.id or term.term.name,
            weight=term.term.weight,
            build=partial(self.builder.loss, term.path, term.term),
            teachers=term.teachers if distilled else (),
            peers=term.peers if distilled else (),
            path=term.path,
            loss=self.builder.recipe.registry.get("loss", term.term.name).described,
            every_class=term.needs.every_class,
        )

    def _example(self, learner: str, spec: TermSpec) -> Example:
        """The outputs and sizes from which a term's loss creates its parameters."""
        student, classes, (of_class, labelled, keys) = self.outputs[learner], tuple(self.table.classes), self.counts[learner]
        teachers, peers = ({name: self.outputs[name] for name in group} for group in (spec.teachers, spec.peers))
        known = self.distiller.known_classes(learner, spec)
        if known is not None:
            if len(known) < 2:
                common = "only one class" if len(known) else "no class"
                what = f"{', '.join([learner, *spec.teachers])} have {common} of the run in common; a term requires two"
                raise RecipeError([self.builder.problem(spec.path, what)])
            student, classes = student.of_classes(known), tuple(classes[index] for index in known.tolist())
            teachers, peers = ({name: each.of_classes(known) for name, each in group.items()} for group in (teachers, peers))
            of_class = None if of_class is None else of_class[known]
            labelled = labelled[known] if isinstance(labelled, Tensor) else labelled
        shapes = {**self.shapes, "": self.shapes[learner]} if learner in self.shapes else self.shapes
        return Example(student, teachers, len(classes), classes, of_class, labelled, peers, self.samples, shapes, keys)

    def _set_up_term(self, learner: str, spec: TermSpec, loss: DistillationLoss, example: Example) -> None:
        what = f"could not set up term {spec.id!r} of {learner} ({spec.loss})"
        self._try(spec.path, what, lambda: set_up(loss, example))

    def _refuse_partial(self) -> None:
        """Refuse losses that need all labels of a sample where some are not known."""
        if not partly_known(self.table.train_labels):
            return
        problems = []
        for name, terms in self.terms.items():
            for term in terms:
                loss = self.distiller.losses(name).get(term.term.id or term.term.name)
                if loss is not None and loss.needs.labelled and not loss.partial_labels:
                    kind = self.table.target.kind
                    what = f"the loss {term.term.name!r} needs all {kind} of a sample, but some are not known (NaN)"
                    instead = "use 'binary-cross-entropy'" if kind == "labels" else "use 'regression'"
                    problems.append(self.builder.problem(term.path, what, instead))
        if problems:
            raise RecipeError(list(dict.fromkeys(problems)))

    def _try(self, path: str, what: str, action: Callable[[], T]) -> T:
        """Return the result of `action`; report an exception of the component as a problem at `path`."""
        try:
            return action()
        except (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError, NotImplementedError) as error:
            raise RecipeError([self.builder.problem(path, f"{what}: {error}")]) from error


def shape_of(values: object) -> object:
    """The shape of a tensor or of each in a tuple; of anything else, its type's name."""
    if isinstance(values, tuple):
        return tuple(map(shape_of, values))
    return tuple(values.shape) if isinstance(values, Tensor) else f"a {type(values).__name__}"

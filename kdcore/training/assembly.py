"""From a recipe and its table to a distiller ready to train, checked before the first step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from kdcore.contracts.batch import Batch, Outputs
from kdcore.contracts.dataset import Dataset
from kdcore.contracts.encoder import Participant
from kdcore.contracts.loss import DistillationLoss, Example
from kdcore.contracts.optimizers import problem_with
from kdcore.contracts.schedule import Stage, Team
from kdcore.data.pipeline import Branch, Pipeline
from kdcore.data.table import Table
from kdcore.errors import CheckpointError, Problem, RecipeError
from kdcore.recipe.build import Builder, module_meant
from kdcore.recipe.models import ParticipantSpec
from kdcore.training.checkpoint import load_state, load_weights
from kdcore.training.distiller import Distiller, TermSpec
from kdcore.training.module_checks import set_up
from kdcore.training.randomness import derive, seed_everything

DISTILLED, BASELINE = "distilled", "baseline"

T = TypeVar("T")


class Assembly:
    """Makes the distillers of a run: one per seed and arm.

    Args:
        builder: Makes components.
        dataset: Says classes and modalities.
    """

    def __init__(self, builder: Builder, dataset: Dataset):
        self.builder = builder
        self.recipe = builder.recipe
        self.dataset = dataset
        self.specs: dict[str, ParticipantSpec] = self.recipe.participants
        self.team = Team(tuple(self.recipe.teachers), tuple(self.recipe.student_specs))
        self.pipelines = {name: self.pipeline(name) for name in self.specs}
        self.schedule = builder.schedule()
        self._check_training()

    def path(self, name: str) -> str:
        """Where participant `name` stands in the recipe."""
        if name in self.recipe.teachers:
            return f"teachers.{name}"
        return "student" if self.recipe.student is not None else f"students.{name}"

    def pipeline(self, name: str) -> Pipeline:
        """The participant's transforms."""
        spec, path = self.specs[name], f"{self.path(name)}.transforms"
        branches = []
        for modality in spec.modalities:
            where = path if isinstance(spec.transforms, list) else f"{path}.{modality}"
            recorded = self.dataset.modalities[modality]
            on_samples, on_batches, identity = self.builder.transforms(where, spec.transforms_of(modality), recorded)
            branches.append(Branch(recorded, on_samples, on_batches, identity))  # type: ignore[arg-type]
        signals = [branch.spec for branch in branches]
        _, trunk, _ = self.builder.transforms(f"{path}.joined", spec.transforms_of("joined"), *signals)
        return Pipeline(branches, trunk)

    def stages(self, arm: str) -> list[Stage]:
        """The schedule's stages; in the baseline, students learn alone."""
        stages = [stage for each in self.schedule.stages(self.team) if (stage := self._awake(each)).learners]
        if arm == DISTILLED:
            return stages
        alone = [stage for stage in stages if all(name in self.team.students for name in stage.learners)]
        return [replace(stage, teachers=()) for stage in alone]

    def _awake(self, stage: Stage) -> Stage:
        """`stage` without teachers that are frozen whole; a fusion, if there is one, still learns through them."""
        if self.recipe.fusion:
            return stage
        asleep = [name for name in self.team.teachers if "*" in self.specs[name].freeze]
        return replace(stage, learners=tuple(name for name in stage.learners if name not in asleep))

    def place(self, stage: Stage) -> str:
        """Where in the recipe `stage` is described, as near as can be told."""
        return f"schedule.{stage.name}" if stage.name in self.recipe.schedule.options else "schedule"

    @property
    def has_baseline(self) -> bool:
        """True if the students have something to learn from without teachers or peers, and the recipe wants to know."""
        if not self.recipe.baseline:
            return False
        return 0 < len(self._term_specs("losses", BASELINE)) < len(self._term_specs("losses", DISTILLED))

    @property
    def arms(self) -> tuple[str, ...]:
        """What each seed trains, in order."""
        return (DISTILLED, BASELINE) if self.has_baseline else (DISTILLED,)

    def distiller(self, table: Table, seed: int, arm: str, device: torch.device) -> Distiller:
        """All participants with fresh weights, fusion and losses, on `device`.

        The same seed gives the same student in either arm.

        Raises:
            RecipeError: If encoders, taps, fusion or losses do not fit the data or one another.
        """
        team = self.team if arm == DISTILLED else Team((), self.team.students)
        rows = table.parts["train"][: self.recipe.data.batch_size]
        batch = table.batch(rows, (*team.teachers, *team.students))
        members, problems = {}, []
        for name in (*team.teachers, *team.students):
            try:
                members[name] = self._participant(name, table, seed, device)
            except RecipeError as error:
                problems += error.problems
        if problems:
            raise RecipeError(problems)
        distiller = Distiller(
            {name: members[name] for name in team.teachers},
            {name: members[name] for name in team.students},
            self.builder.fusion() if team.teachers else None,
            self._class_embeddings(),
        ).to(device)
        self._set_up(distiller, batch, seed, arm)
        return distiller.to(device)

    def _participant(self, name: str, table: Table, seed: int, device: torch.device) -> Participant:
        spec, path, live = self.specs[name], self.path(name), self.pipelines[name].live
        batch = table.batch(table.parts["train"][:2], [name])
        live = live.to(device).eval()
        shape = tuple(live(batch.signals[name]).shape[1:])
        seed_everything(derive(seed, "init", name))
        encoder = self.builder.encoder(path, spec, len(self.dataset.classes), shape, self.pipelines[name].spec)
        if spec.weights:
            self._load(encoder, spec, path)
        try:
            return Participant(name, encoder, spec.taps, live, spec.augment_frozen)
        except KeyError as error:
            raise RecipeError(self._tap_problems(encoder, spec, path)) from error

    def _load(self, encoder: torch.nn.Module, spec: ParticipantSpec, path: str) -> None:
        assert spec.weights is not None
        file = spec.weights
        try:
            weights = load_weights(file) if file.suffix == ".safetensors" else load_state(file)
            encoder.load_state_dict(
                {key.removeprefix("encoder."): value for key, value in weights.items() if not key.startswith("live.")}
            )
        except CheckpointError as error:
            raise RecipeError([self.builder.problem(f"{path}.weights", str(error))]) from error
        except RuntimeError as error:
            raise RecipeError([self.builder.problem(f"{path}.weights", f"{file} does not fit the encoder: {error}")]) from error

    def _tap_problems(self, encoder: torch.nn.Module, spec: ParticipantSpec, path: str) -> list[Problem]:
        known = {name for name, _ in encoder.named_modules() if name}
        problems = []
        for tap, module in spec.taps.items():
            if module not in known:
                what = f"the encoder {spec.encoder.name!r} has no module {module!r}"
                problems.append(self.builder.problem(f"{path}.taps.{tap}", what, module_meant(module, encoder)))
        return problems

    def _class_embeddings(self) -> Tensor | None:
        source = self.builder.class_embeddings()
        return torch.from_numpy(source.table(self.dataset.classes)).float() if source else None

    def _term_specs(self, role: str, arm: str) -> list[TermSpec]:
        specs = []
        for index, term in enumerate(getattr(self.recipe, role)):
            needs = self.builder.loss(role, index).needs
            dropped = arm == BASELINE and (needs.teachers or needs.peers)
            if not dropped and term.weight != 0:
                build = partial(self.builder.loss, role, index)
                origin = self.recipe.registry.get("loss", term.name).described
                specs.append(TermSpec(term.id or term.name, term.weight, build, f"{role}[{index}]", origin))
        return specs

    @torch.no_grad()
    def _set_up(self, distiller: Distiller, batch: Batch, seed: int, arm: str) -> None:
        """Let fusion and losses make their parameters from one batch's outputs."""
        distiller.eval()
        if distiller.teachers:
            seed_everything(derive(seed, "fusion"))
            self._try("fusion", "the fusion", lambda: distiller.fusion.setup(dict(distiller.teachers.items()), batch))  # type: ignore[arg-type]
            distiller.fusion.to(batch.rows.device)
        alone = {name: self._answer(distiller, name, batch) for name in (*distiller.students, *distiller.teachers)}
        answers = {name: alone[name] for name in distiller.students}
        taught = self._try(
            "fusion", "the teachers cannot run together", lambda: distiller.teach(list(distiller.teachers), batch)
        )
        for name, outputs in {**taught, **answers}.items():
            role = "teacher_losses" if name in taught else "losses"
            example = Example(outputs, {} if name in taught else taught, len(self.dataset.classes))
            seed_everything(derive(seed, "losses", name))
            distiller.add_terms(name, self._term_specs(role, arm), example, partial(self._set_up_term, name))

    def _set_up_term(self, learner: str, spec: TermSpec, loss: DistillationLoss, example: Example) -> None:
        what = f"term {spec.id!r} of {learner} ({spec.loss}) cannot be set up"
        self._try(spec.path, what, lambda: set_up(loss, example))

    def _answer(self, distiller: Distiller, name: str, batch: Batch) -> Outputs:
        """A participant's outputs, without others.

        Raises:
            RecipeError: If its encoder cannot read what the transforms make.
        """
        shape = tuple(distiller.participant(name).input(batch.signals[name]).shape)
        what = f"{name} cannot read an input of shape {shape}"
        return self._try(f"{self.path(name)}.encoder", what, lambda: distiller.answer(name, batch))

    def _try(self, path: str, what: str, action: Callable[[], T]) -> T:
        """What `action` gives; what it raises is a problem at `path`."""
        try:
            return action()
        except (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError, NotImplementedError) as error:
            raise RecipeError([self.builder.problem(path, f"{what}: {error}")]) from error

    def _check_training(self) -> None:
        stages = list(self.schedule.stages(self.team))
        problems = {
            (f"{self.place(stage)}.optimizer", wrong) for stage in stages if (wrong := problem_with(stage.training.optimizer))
        }
        problems |= {
            ("schedule", f"stage {s.name!r} names {n!r}, who is not in the recipe")
            for s in stages
            for n in (*s.learners, *s.teachers)
            if n not in self.specs
        }
        if problems:
            raise RecipeError([self.builder.problem(*each) for each in sorted(problems)])


def parameter_counts(members: Mapping[str, Participant]) -> dict[str, int]:
    """Trainable parameters of each participant's encoder."""
    return {name: sum(p.numel() for p in member.encoder.parameters() if p.requires_grad) for name, member in members.items()}

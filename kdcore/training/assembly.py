"""Construction of the participants of an arm from a plan and a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from kdcore.cache import cache_folder
from kdcore.contracts.batch import Outputs
from kdcore.contracts.dataset import Dataset
from kdcore.contracts.encoder import Participant
from kdcore.contracts.target import EVERY_TARGET
from kdcore.contracts.training import MovingAverage
from kdcore.data.branch import Branch
from kdcore.data.data_cache import Progress
from kdcore.data.pipeline import Pipeline
from kdcore.data.preparation import load_table
from kdcore.data.table import Table
from kdcore.errors import DataError, Problem, RecipeError
from kdcore.plugin.registry import FROM_PYTHON
from kdcore.recipe.build import Builder, module_meant
from kdcore.recipe.models import ParticipantSpec
from kdcore.recipe.plan import BASELINE, DISTILLED, Plan
from kdcore.training.arm_setup import ArmSetup, shape_of
from kdcore.training.loaded_weights import LoadedWeights
from kdcore.training.participants import Average, Distiller
from kdcore.training.randomness import derive, seed_everything
from kdcore.training.stored_outputs import join_outputs, load_outputs, optimistic_splits
from kdcore.training.teacher_cache import CachedOutputs


class Assembly:
    """Constructs the participants of a run: one set per seed and arm.

    Args:
        builder: Constructs components from the recipe.
        dataset: The dataset, with its classes and modalities.
        plan: The validated plan of the run.
    """

    def __init__(self, builder: Builder, dataset: Dataset, plan: Plan):
        self.builder = builder
        self.recipe = builder.recipe
        self.dataset = dataset
        self.plan = plan
        self.specs: Mapping[str, ParticipantSpec] = {
            name: each.spec for name, each in plan.participants.items() if each.spec.outputs is None
        }
        self.pipelines = {name: self.pipeline(name) for name in self.specs}
        self._notes: dict[str, None] = {}
        self.loaded = LoadedWeights(plan, self.specs, dataset)
        for name, pipeline in self.pipelines.items():
            self.loaded.give_statistics(self.recipe.participants[name].follows or name, pipeline)

    def load_table(self, reading: Progress = lambda done, total, what: None) -> Table:
        """Read and prepare the recordings for all participants.

        Args:
            reading: Progress callback, called with (done, total, what).

        Raises:
            DataError: If recordings cannot be read, or splits or shapes are invalid.
        """
        together = tuple(name for name in self.plan.graph.fused if name in self.specs)
        data, protocol, required = self.recipe.filled_data, self.builder.protocol(), self.recipe.required_modalities
        limit = data.memory_bytes
        table = load_table(self.dataset, protocol, data, self.pipelines, cache_folder(), limit, reading, required, together)
        self.loaded.note_optimistic_splits(table.held_out_keys())
        return table

    @property
    def notes(self) -> list[str]:
        """Remarks on pretrained weights, encoders and classifiers, for the console and the report."""
        return [*self.loaded.notes, *self._notes]

    def note(self, sentence: str) -> None:
        """Add a sentence to `notes`."""
        self._notes[sentence] = None

    def pipeline(self, name: str) -> Pipeline:
        """The participant's transforms."""
        followed = self.recipe.participants[name].follows
        spec, path = self.specs[name], f"{self.recipe.path_of(followed or name)}.transforms"
        branches = []
        for modality in spec.modalities:
            where = path if isinstance(spec.transforms, list) else f"{path}.{modality}"
            recorded = self.dataset.modalities[modality]
            on_samples, on_batches, identity = self.builder.transforms(where, spec.transforms_of(modality), recorded)
            branches.append(Branch(recorded, on_samples, on_batches, identity))  # type: ignore[arg-type]
        signals = [branch.spec for branch in branches]
        _, trunk, _ = self.builder.transforms(f"{path}.joined", spec.transforms_of("joined"), *signals)
        return Pipeline(branches, trunk, spec.fill_missing)

    def distiller(self, table: Table, seed: int, arm: str, device: torch.device) -> Distiller:
        """The participants of an arm with fresh weights, fusion and losses, on `device`.

        The same seed gives the same students in either arm.

        Raises:
            RecipeError: If encoders, taps, fusion or losses do not match the data or each other.
        """
        names = [name for name in self.plan.members(arm) if name in self.specs]
        rows = table.complete_rows(names, table.rows["train"])
        if not len(rows):
            raise DataError(f"no training sample has the signals of all of {', '.join(names)}, which shapes are taken from")
        batch = table.batch(rows[: self.recipe.data.batch_size], names)
        members, problems = {}, []
        embeddings = self._class_embeddings()
        for name in names:
            try:
                members[name] = self._participant(name, table, seed, device, embeddings)
            except RecipeError as error:
                problems += error.problems
        if problems:
            raise RecipeError(problems)
        teachers = {name: each for name, each in members.items() if self.plan.participants[name].role == "teacher"}
        distiller = Distiller(
            teachers,
            {name: each for name, each in members.items() if name not in teachers},
            self.builder.fusion() if teachers else None,
            embeddings,
            *self._untrained(table, arm),
        ).to(device)
        setup = ArmSetup(self.builder, self.plan, distiller, table, arm, self._wrong_logits)
        setup.run(batch, seed)
        self._notes |= dict.fromkeys(setup.notes)
        return distiller.to(device)

    def _untrained(self, table: Table, arm: str) -> tuple[dict[str, Average], dict[str, CachedOutputs]]:
        """The teachers of an arm that no optimizer trains: moving averages and stored outputs."""
        if arm == BASELINE:
            return {}, {}
        averages, stored, problems = {}, {}, []
        for name, each in self.plan.participants.items():
            if each.spec.follows is not None:
                averages[name] = Average(each.spec.follows, MovingAverage(each.spec.momentum, each.spec.warmup))
            if each.spec.outputs is not None:
                try:
                    stored[name] = self._stored(name, each.spec, table)
                except DataError as error:
                    problems.append(self.builder.problem(f"{each.path}.outputs", str(error)))
        if problems:
            raise RecipeError(problems)
        return averages, stored

    def _stored(self, name: str, spec: ParticipantSpec, table: Table) -> CachedOutputs:
        """Load the stored outputs of a teacher, and check that they cover all training rows that read them.

        Raises:
            DataError: If the file cannot be used, or lacks samples, classes or taps that are needed.
        """
        assert spec.outputs is not None
        file = load_outputs(spec.outputs)
        stored = join_outputs(spec.outputs, file, table.keys, table.classes, table.target).to(table.labels.device)
        for sentence in optimistic_splits(f"the networks behind {spec.outputs.name}", file.trained_on, table.held_out_keys()):
            self.note(f"{name}: {sentence}")
        for stage in self.plan.stages[DISTILLED]:
            if name not in stage.sources:
                continue
            rows = table.training_rows(stage.split)
            if self.recipe.data.missing == "mask" and bool((covered := stored.covers(rows)).any()):
                missing = int((~covered).sum())
                note = f"{name}: no outputs for {missing} of {len(rows)} samples in {stage.split}; terms leave these out"
                if missing:
                    self.note(note)
                rows = rows[covered]
            if bool((missing := ~stored.covers(rows)).any()):
                keys = [str(table.keys[row]) for row in rows[missing].tolist()]
                shown = "; ".join(keys[:5]) + (f"; and {len(keys) - 5} more" if len(keys) > 5 else "")
                raise DataError(f"{spec.outputs} has no outputs for {len(keys)} of {len(rows)} samples: {shown}")
            terms = [term for learner in stage.learners for term in self.plan.participants[learner].terms]
            for term in terms:
                absent = [tap for tap in term.needs.teacher_taps if name in term.teachers and tap not in stored.features]
                if absent:
                    taps = ", ".join(stored.features) or "none"
                    raise DataError(f"{spec.outputs} has no features {absent[0]!r}, which {term.path} reads (it has: {taps})")
        return stored

    def _participant(self, name: str, table: Table, seed: int, device: torch.device, embeddings: Tensor | None) -> Participant:
        own = self.plan.participants[name].spec
        source = own.follows or name
        spec, path, transforms = self.specs[source], self.recipe.path_of(source), self.pipelines[name].batch_transforms
        batch = table.batch(table.training_rows("train", [name])[:2], [name])
        transforms = transforms.to(device).eval()
        shape = tuple(transforms(batch.signals[name]).shape[1:])
        signal = self.pipelines[name].spec
        layout = signal.layout if len(signal.layout) == len(shape) else ()
        if self.recipe.data.mix and self.recipe.data.mix.name == "cutmix" and "time" not in layout:
            axes = ", ".join(layout) or f"unknown ones of sizes {shape}"
            what = f"cutmix replaces a stretch of time, and the input of {name} has no time axis (its axes: {axes})"
            raise RecipeError([self.builder.problem("data.mix", what, "mixup mixes inputs of any axes")])
        # Seeded by participant, so that the same student starts from the same weights in both arms.
        seed_everything(derive(seed, "init", source))
        build = partial(self.builder.encoder, path, spec, in_shape=shape, signal=signal, class_embeddings=embeddings)
        encoder = build(num_classes=len(self.loaded.classes(source)))
        for note in getattr(encoder, "notes", ()):
            self.note(f"{source}: {note}")
        self._refuse_other_target(encoder, spec, path)
        self.loaded.check_scale(source, table.target)
        self.loaded.load(source, encoder, lambda count: build(num_classes=count))
        frozen = [] if own.follows or spec.freeze_statistics is False else spec.freeze
        try:
            columns = self.loaded.columns(source)
            return Participant(name, encoder, spec.taps, transforms, own.augment_frozen, frozen, columns, layout)
        except KeyError as error:
            raise RecipeError(self._tap_problems(encoder, spec, path)) from error

    def _refuse_other_target(self, encoder: torch.nn.Module, spec: ParticipantSpec, path: str) -> None:
        """Refuse an encoder whose outputs, with its options, do not match the dataset's target."""
        kinds, kind = getattr(encoder, "targets", EVERY_TARGET), self.dataset.target.kind
        if isinstance(kinds, tuple) and set(kinds) <= set(EVERY_TARGET) and kind not in kinds:
            what = f"{self._encoder_name(spec)} with these options is for the target {' and '.join(map(repr, kinds))}"
            raise RecipeError([self.builder.problem(f"{path}.encoder", f"{what}, but the dataset's target is {kind!r}")])

    def _tap_problems(self, encoder: torch.nn.Module, spec: ParticipantSpec, path: str) -> list[Problem]:
        known = {name for name, _ in encoder.named_modules() if name}
        problems = []
        for tap, module in spec.taps.items():
            if module not in known:
                what = f"the encoder {self._encoder_name(spec)} has no module {module!r}"
                problems.append(self.builder.problem(f"{path}.taps.{tap}", what, module_meant(module, encoder)))
        return problems

    @staticmethod
    def _encoder_name(spec: ParticipantSpec) -> str:
        return repr(spec.encoder.name) if spec.encoder and spec.encoder.name != FROM_PYTHON else "passed in Python"

    def _class_embeddings(self) -> Tensor | None:
        source = self.builder.class_embeddings()
        return torch.from_numpy(source.table(self.dataset.classes)).float() if source else None

    def _wrong_logits(self, name: str, outputs: Outputs, samples: int) -> str:
        """Describe what is wrong with the shape of a participant's logits; empty if nothing is."""
        shape, expected = shape_of(outputs.logits), (samples, len(self.dataset.classes))
        return (
            "" if shape == expected else f"{name} returns {shape} where logits {expected} are expected, a number for each class"
        )


def parameter_counts(members: Mapping[str, Participant], trained: bool = False) -> dict[str, int]:
    """Count the parameters of each participant's encoder: all of them, or only those that are trained."""
    return {
        name: sum(each.numel() for each in member.encoder.parameters() if each.requires_grad or not trained)
        for name, member in members.items()
    }

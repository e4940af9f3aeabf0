"""Pretrained weights of participants: loading, preprocessing statistics, and the classes that their networks know."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from torch import nn

from kdcore.contracts.dataset import Dataset, SampleKey
from kdcore.contracts.target import Target
from kdcore.data.pipeline import Pipeline
from kdcore.errors import CheckpointError, DataError, ListingError, RecipeError
from kdcore.recipe.models import ParticipantSpec
from kdcore.recipe.plan import Plan
from kdcore.training.stored_outputs import optimistic_splits
from kdcore.training.weight_files import WeightFile, read_weight_file
from kdcore.training.weight_matching import head_axes, load_matching, some


class LoadedWeights:
    """The pretrained weights of a plan's participants, and the classes of their networks.

    A frozen teacher may have other classes than the run, or another class order: its logits are reordered by class name. A
    network that is trained further gets a head for the run's classes, into which the weights of shared classes are copied.

    Args:
        plan: The validated plan of the run.
        specs: Name → participant with a network.
        dataset: The dataset. Its classes are read late, because it may have to list its recordings to know them.

    Raises:
        RecipeError: If a file cannot be read, or contradicts the recipe.
    """

    def __init__(self, plan: Plan, specs: Mapping[str, ParticipantSpec], dataset: Dataset):
        self.plan, self.specs, self.dataset = plan, specs, dataset
        self.files: dict[str, WeightFile] = {}
        self.notes: dict[str, None] = {}
        problems = []
        for name, spec in specs.items():
            if spec.weights is None or plan.participants[name].spec.follows:
                continue
            try:
                self.files[name] = read_weight_file(spec.weights.file)
                self._refuse_contradiction(name)
            except CheckpointError as error:
                problems.append(plan.recipe.problem(f"{self._path(name)}.weights", str(error)))
        if problems:
            raise RecipeError(problems)
        for name in (each for each in specs if self._named(each)):
            self._note_classes(name)

    @cached_property
    def run_classes(self) -> tuple[str, ...]:
        """Class names of the run, read from the dataset once needed."""
        try:
            return tuple(self.dataset.classes)
        except DataError as error:
            raise ListingError(str(error)) from error

    def classes(self, name: str) -> tuple[str, ...]:
        """Class names of a participant's logits, in order."""
        return self._named(name) if self._has_own_outputs(name) else self.run_classes

    def columns(self, name: str) -> list[int] | None:
        """For each class of the run, its column in the network's logits, -1 if missing; None if the classes are the same."""
        if not self._named(name):
            return None
        classes = self.classes(name)
        if classes == self.run_classes:
            return None
        return [classes.index(each) if each in classes else -1 for each in self.run_classes]

    def load(self, name: str, encoder: nn.Module, build: Callable[[int], nn.Module]) -> None:
        """Load a participant's pretrained weights, if it has any, into its encoder.

        Args:
            name: Name of the participant.
            encoder: Its encoder.
            build: Constructs the encoder for a number of classes, to tell its head from its other weights.

        Raises:
            RecipeError: If names or shapes do not match; the message lists what does not.
        """
        file, spec = self.files.get(name), self.specs[name].weights
        if not self._named(name) and (getattr(encoder, "fixed", False) or (file is not None and self._head(name) == "keep")):
            self._note(
                name, "its classes have no names: its outputs are read in the order of the run, unless you set `classes`"
            )
        if file is None or spec is None:
            return
        classes = self.classes(name)
        head = head_axes(build, len(classes))
        spec = spec.model_copy(update={"head": self._head(name)})
        try:
            notes = load_matching(encoder, file, spec, head, self._named(name), classes)
        except CheckpointError as error:
            raise RecipeError([self.plan.recipe.problem(f"{self._path(name)}.weights", str(error))]) from error
        except (RuntimeError, ValueError, TypeError) as error:  # of the encoder's own hooks for loading
            what = f"{file.path} does not fit the encoder: {error}"
            raise RecipeError([self.plan.recipe.problem(f"{self._path(name)}.weights", what)]) from error
        frozen = not any(each.requires_grad for each in encoder.parameters())
        if spec.head == "drop" and frozen:
            notes.append("its head is untrained and frozen: use its features only, its logits are meaningless")
        for note in notes:
            self._note(name, f"{file.path.name}: {note}")

    def give_statistics(self, name: str, pipeline: Pipeline) -> None:
        """Load the preprocessing statistics of a weights file into the transforms, instead of fitting them."""
        file = self.files.get(name)
        if file is None:
            return
        reads = {branch.modality.name: branch.modality.units for branch in pipeline.branches}
        if file.modalities and file.modalities != reads:
            trained_on, now = _in_words(file.modalities), _in_words(reads)
            what = f"its weights were trained on {trained_on}, and here they read {now}"
            self._note(name, f"{file.path.name}: {what}; preprocessing is fitted again")
            return
        if not file.statistics:
            return
        if pipeline.take_statistics(file.statistics, str(file.path)):
            self._note(name, f"{file.path.name}: its preprocessing statistics are used, and not fitted to this run's data")
        else:
            self._note(name, f"{file.path.name}: its preprocessing statistics do not fit the recipe's transforms; fitted again")
        if file.transforms and _chains(file.transforms) != _chains(self.plan.filled_spec(name)["transforms"]):
            self._note(name, f"{file.path.name}: its weights were trained with other transforms than the recipe has")

    def note_optimistic_splits(self, held_out: Mapping[str, Sequence[SampleKey]]) -> None:
        """Note which held-out samples a network was trained on in an earlier run on the same dataset.

        Args:
            held_out: Split → keys of its samples.
        """
        recordings = {split: [replace(key, window=0) for key in keys] for split, keys in held_out.items()}
        for name, file in self.files.items():
            if file.dataset == self.plan.recipe.data.dataset.name:
                for sentence in optimistic_splits("its weights", file.trained_on, recordings):
                    self._note(name, f"{file.path.name}: {sentence}")

    def check_scale(self, name: str, target: Target) -> None:
        """Check that a frozen network predicts values normalised with the run's mean and standard deviation.

        Raises:
            RecipeError: If its weights file has other ones.
        """
        file, spec = self.files.get(name), self.specs[name]
        if file is None or file.target is None or not target.mean or "*" not in spec.freeze or self._head(name) == "drop":
            return
        statistics = dict(zip(self.classes(name), zip(file.target.mean, file.target.std, strict=True), strict=True))
        for each, mean, std in zip(self.run_classes, target.mean, target.std, strict=True):
            file_mean, file_std = statistics[each]
            if abs(file_mean - mean) > 1e-3 * std or abs(file_std / std - 1) > 1e-3:
                what = (
                    f"{file.path}: the value {each!r} was normalised by mean {file_mean:.6g} and standard deviation "
                    f"{file_std:.6g}, and this run's training samples have {mean:.6g} and {std:.6g}"
                )
                hint = "store its outputs with kdcore outputs, which are in units, and name that file as 'outputs'"
                raise RecipeError([self.plan.recipe.problem(f"{self._path(name)}.weights", what, hint)])

    def _path(self, name: str) -> str:
        return self.plan.recipe.path_of(name)

    def _note(self, name: str, text: str) -> None:
        self.notes[f"{name}: {text}"] = None

    def _named(self, name: str) -> tuple[str, ...]:
        """Class names from the recipe or the weights file; empty if unknown."""
        classes, file = self.specs[name].classes, self.files.get(name)
        return tuple(classes) if classes else file.classes if file else ()

    def _has_own_outputs(self, name: str) -> bool:
        """True if the participant's network keeps the classes of its weights instead of the run's."""
        named, spec = self._named(name), self.specs[name]
        if not named or named == self.run_classes or self.plan.participants[name].role != "teacher":
            return False
        head = spec.weights.head if spec.weights else "keep"
        return head == "keep" or (head is None and "*" in spec.freeze)

    def _head(self, name: str) -> str:
        spec = self.specs[name].weights
        if spec and spec.head:
            return spec.head
        named = self._named(name)
        return "map" if named and named != self.run_classes and not self._has_own_outputs(name) else "keep"

    def _refuse_contradiction(self, name: str) -> None:
        file, classes = self.files[name], self.specs[name].classes
        if classes and file.classes and tuple(classes) != file.classes:
            raise CheckpointError(f"{file.path} names its classes itself ({some(file.classes)}), but `classes` differs")
        trained_for, kind = file.target, self.dataset.target.kind
        if trained_for is not None and trained_for.kind != kind and self._head(name) != "drop":
            what = f"its outputs are {_OUTPUTS[trained_for.kind]}, and the dataset's target is {kind!r}"
            raise CheckpointError(f"{file.path}: {what}; use head: drop to start from its other weights")
        named = self._named(name)
        if named and named != self.run_classes and self._head(name) == "keep" and not self._has_own_outputs(name):
            raise CheckpointError(
                f"{file.path}: its classes are not the run's in the run's order (it has {some(named)}); use head: map or drop"
            )

    def _note_classes(self, name: str) -> None:
        """Note how a network's classes differ from the run's.

        Raises:
            RecipeError: If they have no class in common.
        """
        columns, classes = self.columns(name), self.classes(name)
        if columns is None:
            return
        unknown = [each for each, column in zip(self.run_classes, columns, strict=True) if column < 0]
        if unknown and self.dataset.target.kind == "values":
            what = f"{name!r} does not estimate the value {unknown[0]!r} (it estimates: {some(classes)})"
            raise RecipeError([self.plan.recipe.problem(f"{self._path(name)}.classes", what)])
        if len(unknown) == len(self.run_classes):
            what = f"{name!r} knows none of the run's classes (it has {some(classes)}; the run has {some(self.run_classes)})"
            raise RecipeError([self.plan.recipe.problem(f"{self._path(name)}.classes", what)])
        self._note(name, "its logits were put in the order of the run's classes by name")
        if unused := [each for each in classes if each not in self.run_classes]:
            self._note(name, f"logits of classes that the run does not have were left out: {some(unused)}")
        if unknown:
            rest = len(self.run_classes) - len(unknown)
            among = f"are computed among the {rest} classes it knows, without {some(unknown)}"
            self._note(name, f"terms that read it {among}, unless their loss reads every class")


_OUTPUTS = {"classes": "logits of one class", "labels": "logits of several labels", "values": "normalised values"}


def _in_words(modalities: Mapping[str, str]) -> str:
    return " and ".join(f"{name} in {units}" if units else name for name, units in modalities.items())


def _chains(transforms: Any) -> list[Any]:
    """The non-empty lists of transforms, written either as one list or per modality."""
    chains: Sequence[Any] = list(transforms.values()) if isinstance(transforms, Mapping) else [transforms]
    return [chain for chain in chains if chain]

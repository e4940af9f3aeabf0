"""Construction of a recipe's components."""

from __future__ import annotations

import inspect
import json
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from kdcore.contracts.dataset import Dataset
from kdcore.contracts.embeddings import ClassEmbeddings
from kdcore.contracts.fusion import TeacherFusion
from kdcore.contracts.loss import DistillationLoss
from kdcore.contracts.modality import Modality
from kdcore.contracts.protocol import Protocol
from kdcore.contracts.sample_transform import SampleTransform, output_spec
from kdcore.contracts.transform import Join, concatenated
from kdcore.errors import KdcoreError, ListingError, Problem, RecipeError, SplitError, reason
from kdcore.plugin.manager import PluginManager, plugin_manager
from kdcore.plugin.option_schema import filled_options, make
from kdcore.plugin.registry import FROM_PYTHON
from kdcore.recipe.models import Component, ParticipantSpec, Recipe
from kdcore.recipe.named_files import file_hashes
from kdcore.suggestions import did_you_mean


def _shape(module: nn.Module, name: str) -> tuple[int, ...] | None:
    """The shape of a tensor in a module's state; None if it has none of that name."""
    tensor = module.state_dict().get(name)
    return None if tensor is None else tensor.shape


class Builder:
    """Constructs the components of a recipe.

    Args:
        recipe: A recipe that `load_recipe` has checked.
        plugins: Plugins that provide the components; the installed ones by default.
    """

    def __init__(self, recipe: Recipe, plugins: PluginManager | None = None):
        self.recipe = recipe
        self.plugins = plugins or plugin_manager()
        self._batch_transforms: dict[nn.Module, str] = {}

    def component(self, kind: str, spec: Component, where: str, /, **given: Any) -> Any:
        """Construct a component with its options and the arguments that kdcore provides.

        Raises:
            RecipeError: If its constructor raises an error; names the line of the recipe.
        """
        entry = self.plugins.registry.get(kind, spec.name)
        if entry.name == FROM_PYTHON:
            what = f"this {kind} is an object that must be passed in Python"
            hint = "pass data=…, or name a registered dataset" if kind == "dataset" else f"or name a registered {kind}"
            raise RecipeError([self.problem(where, what, hint)])
        try:
            return make(entry, spec.options, given)
        except KdcoreError:
            raise
        except Exception as error:  # a plugin's constructor may raise anything; the user is told where and what
            raise RecipeError([self.problem(where, f"could not construct {entry.described}: {reason(error)}")]) from error

    def problem(self, path: str, message: str, hint: str = "") -> Problem:
        """A problem at `path` of the recipe, with file and line."""
        return self.recipe.problem(path, message, hint)

    @contextmanager
    def locating_data_errors(self) -> Iterator[None]:
        """Attribute errors about recordings to the lines of the recipe that name dataset, protocol or transform."""
        try:
            yield
        except (ListingError, SplitError, ValueError) as error:
            where = self._place_at_fault(error)
            if not where:
                raise
            raise RecipeError([self.problem(where, str(error))]) from error

    def _place_at_fault(self, error: Exception) -> str:
        """The part of the recipe's data, or the transform on batches, that `error` comes from; empty if none."""
        if isinstance(error, ListingError | SplitError):
            return "data.dataset" if isinstance(error, ListingError) else "data.protocol"
        owners = [id(frame.f_locals.get("self")) for frame, _ in traceback.walk_tb(error.__traceback__)]
        return next((where for transform, where in self._batch_transforms.items() if id(transform) in owners), "")

    def dataset(self) -> Dataset:
        """The dataset: the object that was passed in Python, if there is one. Nothing is opened."""
        given = self.recipe.given_dataset
        return self.component("dataset", self.recipe.data.dataset, "data.dataset") if given is None else given

    def protocol(self) -> Protocol:
        """The split rule."""
        return self.component("protocol", self.recipe.data.protocol, "data.protocol")

    def fusion(self) -> TeacherFusion:
        """The fusion of the teachers."""
        return self.component("fusion", self.recipe.fusion, "fusion") if self.recipe.fusion else TeacherFusion()

    def class_embeddings(self) -> ClassEmbeddings | None:
        """Vectors for class names, if the recipe has them."""
        spec = self.recipe.class_embeddings
        return self.component("class_embedding", spec, "class_embeddings") if spec else None

    def loss(self, path: str, term: Component) -> DistillationLoss:
        """The loss of the term at `path`: the object that was passed in Python, if there is one."""
        given = self.recipe.given(path)
        return given if given is not None else self.component("loss", term, path)

    def encoder(
        self,
        path: str,
        spec: ParticipantSpec,
        num_classes: int,
        in_shape: tuple[int, ...],
        signal: Modality | None = None,
        class_embeddings: Tensor | None = None,
    ) -> nn.Module:
        """A participant's network, or the one that was passed in Python, with what the recipe freezes frozen.

        `signal` is what is known of its input, `class_embeddings` are those of the recipe, (classes, D).
        """
        assert spec.encoder is not None  # a participant without a network has none constructed
        where = f"{path}.encoder"
        given = {"num_classes": num_classes, "in_shape": in_shape, "spec": signal and signal.matching(in_shape)}
        encoder = self.recipe.given(where)
        if encoder is None:
            given |= self._embeddings_for(spec.encoder, where, num_classes, class_embeddings)
            encoder = self.component("encoder", spec.encoder, where, **given)
        if not isinstance(encoder, nn.Module):
            what = f"encoder {spec.encoder.name!r} must return a torch.nn.Module, not {type(encoder).__name__}"
            raise RecipeError([self.problem(where, what)])
        problems = []
        if "class_embeddings" in given and _shape(encoder, "class_embeddings") != given["class_embeddings"].shape:
            what = f"the encoder {spec.encoder.name!r} must register its class embeddings as the buffer 'class_embeddings'"
            problems.append(self.problem(where, f"{what}, from which a saved student takes them"))
        for index, frozen in enumerate(spec.freeze):
            below = [each for name, each in encoder.named_parameters() if frozen == "*" or f"{name}.".startswith(f"{frozen}.")]
            for parameter in below:
                parameter.requires_grad_(False)
            if not below and frozen != "*":  # a network without parameters, such as one in a file, is frozen anyway
                what = f"the encoder {spec.encoder.name!r} has nothing to freeze at {frozen!r}"
                problems.append(self.problem(f"{path}.freeze[{index}]", what, module_meant(frozen, encoder)))
        if problems:
            raise RecipeError(problems)
        return encoder

    def _embeddings_for(self, encoder: Component, where: str, num_classes: int, embeddings: Tensor | None) -> dict[str, Tensor]:
        """The argument `class_embeddings` of an encoder whose constructor takes it; zeros for classes other than the run's."""
        component = self.plugins.registry.get("encoder", encoder.name).load()
        parameter = inspect.signature(component).parameters.get("class_embeddings") if callable(component) else None
        if parameter is None or (embeddings is None and parameter.default is not parameter.empty):
            return {}
        if embeddings is None:
            what = f"the encoder {encoder.name!r} needs class embeddings, but the recipe has none"
            raise RecipeError([self.problem(where, what, "add 'class_embeddings'")])
        known = len(embeddings) == num_classes
        return {"class_embeddings": embeddings.clone() if known else embeddings.new_zeros(num_classes, embeddings.shape[1])}

    def transforms(
        self, path: str, specs: Sequence[Component], *signals: Modality
    ) -> tuple[list[SampleTransform], list[nn.Module], str]:
        """Construct a list of transforms: those of recordings, those of batches, and an identity of the former.

        The identity does not depend on whether a recipe writes out an option's default, as the recipe in a run's folder does.

        Args:
            path: Path of the list in the recipe.
            specs: The transforms, in order.
            signals: Specification of their input; several if they join modalities.

        Raises:
            RecipeError: If a transform cannot be constructed, contradicts the specification of its input, or works on
                recordings but follows one that works on batches.
        """
        on_samples: list[SampleTransform] = []
        on_batches: list[nn.Module] = []
        identity = []
        signal = concatenated(signals)
        for index, spec in enumerate(specs):
            where = f"{path}[{index}]"
            transform = self.component("transform", spec, where, spec=signal)
            if isinstance(transform, SampleTransform):
                if on_batches:
                    what = f"{spec.name!r} works on whole recordings and must come before {specs[index - 1].name!r}"
                    raise RecipeError([self.problem(where, what)])
                on_samples.append(transform)
                options = filled_options(self.plugins.registry.get("transform", spec.name), spec.options)
                identity.append([spec.name, options, file_hashes(options)])
            else:
                on_batches.append(transform)
                self._batch_transforms[transform] = where
            joins = isinstance(transform, Join) and len(signals) > 1 and index == 0
            try:
                signal = transform.output_spec(signals) if joins else output_spec(signal, transform)  # type: ignore[union-attr]
            except Exception as error:  # a plugin's method may raise anything
                raise RecipeError([self.problem(where, f"transform {spec.name!r}: {reason(error)}")]) from error
        return on_samples, on_batches, json.dumps(identity, sort_keys=True, default=str)


def module_meant(path: str, encoder: nn.Module) -> str:
    """The module of an encoder that is closest to a path that the encoder does not have."""
    known = [name for name, _ in encoder.named_modules() if name]
    return did_you_mean(path, known, "it has")


def versions_used(recipe: Recipe, plugins: PluginManager) -> Mapping[str, str]:
    """Plugin → version of its package, for every plugin that a recipe's components come from."""
    named = [plugins.registry.get(kind, spec.name).plugin for kind, spec in recipe.components()]
    return {plugin: plugins.plugins[plugin].version for plugin in named if plugin}


def factories_used(recipe: Recipe) -> list[str]:
    """Every ``package.module:factory`` that a recipe names, once."""
    entries = [recipe.registry.get(kind, spec.name) for kind, spec in recipe.components()]
    return sorted({entry.name for entry in entries if entry.is_factory})

"""All hooks of kdcore. A plugin implements those it needs with `kdcore.hookimpl`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from pluggy import HookspecMarker

if TYPE_CHECKING:
    import typer
    from torch import Tensor

    from kdcore.contracts.encoder import Participant
    from kdcore.plugin.deprecation import Deprecation
    from kdcore.recipe.graph import StagePlan

hookspec = HookspecMarker("kdcore")

API_VERSION = 1
"""Incremented when a hook or contract changes incompatibly. Plugins may state the version that they use as ``KDCORE_API``."""

OLDEST_API = 1
"""The oldest API version whose plugins still work."""

DEPRECATED: Mapping[str, Deprecation] = {}
"""Deprecated hooks by name."""

Register = Callable[[str, str], None]
"""``register(name, "module:Object")``: registers a component without importing it."""


@hookspec
def register_modalities(register: Register) -> None:
    """Register `kdcore.Modality` objects: kinds of signal."""


@hookspec
def register_datasets(register: Register) -> None:
    """Register `kdcore.Dataset` classes."""


@hookspec
def register_protocols(register: Register) -> None:
    """Register `kdcore.Protocol` classes: rules that split samples."""


@hookspec
def register_transforms(register: Register) -> None:
    """Register `kdcore.SampleTransform`, `kdcore.Transform` and `kdcore.Join` classes."""


@hookspec
def register_encoders(register: Register) -> None:
    """Register `kdcore.Encoder` classes, or any `torch.nn.Module` from tensor to class logits."""


@hookspec
def register_fusions(register: Register) -> None:
    """Register `kdcore.TeacherFusion` classes: how teachers run together."""


@hookspec
def register_losses(register: Register) -> None:
    """Register `kdcore.DistillationLoss` classes."""


@hookspec
def register_schedules(register: Register) -> None:
    """Register `kdcore.Schedule` classes: who learns what, when."""


@hookspec
def register_class_embeddings(register: Register) -> None:
    """Register `kdcore.ClassEmbeddings` classes: vectors for class names."""


@hookspec
def register_commands(cli: typer.Typer) -> None:
    """Add commands to the command line; import what they need inside them."""


@hookspec
def explain(participant: Participant, inputs: Tensor, score: Callable[[Tensor], Tensor]) -> Mapping[str, Tensor] | None:
    """Return saliency maps of a trained participant, for the pictures in a run's report.

    `inputs` are its encoder's, (B, channel, height, width) or (B, time, channel, height, width). ``score(inputs)`` is
    the number to explain: the logit of the predicted class, with a graph.

    Returns title → importance of each place for that class, (B, h, w) or (B, time, h, w), at least 0, of any size; None if
    there is nothing to show.
    """


@hookspec
def run_started(name: str, seeds: tuple[int, ...]) -> None:
    """A run begins; its recipe has been checked."""


@hookspec
def run_finished(name: str, summary: Mapping[str, float]) -> None:
    """A run has ended, with the means over seeds of its test metrics."""


@hookspec
def stage_started(stage: StagePlan, seed: int) -> None:
    """A stage of training begins."""


@hookspec
def stage_finished(stage: StagePlan, seed: int) -> None:
    """A stage of training has ended."""


@hookspec
def epoch_finished(stage: StagePlan, seed: int, epoch: int, metrics: Mapping[str, float]) -> None:
    """An epoch has ended; `metrics` are what is tracked for it."""

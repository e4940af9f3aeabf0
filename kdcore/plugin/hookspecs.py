"""Every hook of kdcore, on one page. A plugin implements those it wants with `kdcore.hookimpl`."""

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
"""Changes when a hook or contract changes incompatibly; a plugin may state the one it was written for as ``KDCORE_API``."""

OLDEST_API = 1
"""Plugins written for this API version, or a later one up to `API_VERSION`, still work."""

DEPRECATED: Mapping[str, Deprecation] = {}
"""Hooks that are on their way out, by name."""

Register = Callable[[str, str], None]
"""``register(name, "module:Object")``: announces a component without importing it."""


@hookspec
def register_modalities(register: Register) -> None:
    """Announce `kdcore.Modality` objects: kinds of signal."""


@hookspec
def register_datasets(register: Register) -> None:
    """Announce `kdcore.Dataset` classes."""


@hookspec
def register_protocols(register: Register) -> None:
    """Announce `kdcore.Protocol` classes: rules that split samples."""


@hookspec
def register_transforms(register: Register) -> None:
    """Announce `kdcore.SampleTransform`, `kdcore.Transform` and `kdcore.Join` classes."""


@hookspec
def register_encoders(register: Register) -> None:
    """Announce `kdcore.Encoder` classes, or any `torch.nn.Module` from tensor to class logits."""


@hookspec
def register_fusions(register: Register) -> None:
    """Announce `kdcore.TeacherFusion` classes: how teachers run together."""


@hookspec
def register_losses(register: Register) -> None:
    """Announce `kdcore.DistillationLoss` classes."""


@hookspec
def register_schedules(register: Register) -> None:
    """Announce `kdcore.Schedule` classes: who learns what, when."""


@hookspec
def register_class_embeddings(register: Register) -> None:
    """Announce `kdcore.ClassEmbeddings` classes: vectors for class names."""


@hookspec
def register_commands(cli: typer.Typer) -> None:
    """Add commands to the command line; import what they need inside them."""


@hookspec
def explain(participant: Participant, inputs: Tensor, score: Callable[[Tensor], Tensor]) -> Mapping[str, Tensor] | None:
    """Tell where a trained participant looks, for the pictures of a run's report.

    `inputs` are what its encoder reads, (B, channel, height, width) or (B, time, channel, height, width). ``score(inputs)`` is
    the number to explain: the logit of the class that it takes one of these samples for, with a graph.

    Returns title → how much each place speaks for that class, (B, h, w) or (B, time, h, w), at least 0, of any size; None where
    there is nothing to tell.
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

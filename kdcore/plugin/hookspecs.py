"""Hook specifications of kdcore. Plugins implement hooks with `kdcore.hookimpl`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pluggy import HookspecMarker

if TYPE_CHECKING:
    import typer
    from pandas import DataFrame
    from torch import Tensor

    from kdcore.contracts.drawing import Drawing
    from kdcore.contracts.encoder import Participant
    from kdcore.contracts.leakage_check import LeakageCheck
    from kdcore.contracts.plain_recording import PlainRecording
    from kdcore.contracts.tracker import Tracker
    from kdcore.deploy.predictor import Predictor
    from kdcore.plugin.deprecation import Deprecation
    from kdcore.plugin.pretrained import PretrainedWeights
    from kdcore.recipe.graph import StagePlan
    from kdcore.recipe.models import Recipe
    from kdcore.runs.context import RunContext
    from kdcore.runs.outcome import Outcome
    from kdcore.runs.records import FinishedRun
    from kdcore.runs.summary import Summary

hookspec = HookspecMarker("kdcore")

API_VERSION = 1
"""Version of the plugin API; incremented on incompatible changes. Plugins may declare their version as ``KDCORE_API``."""

OLDEST_API = 1
"""Oldest plugin API version that is still supported."""

DEPRECATED: Mapping[str, Deprecation] = {}
"""Deprecated hooks, by name."""

Register = Callable[[str, str], None]
"""``register(name, "module:Object")`` registers a component without importing it."""


@hookspec
def register_modalities(register: Register) -> None:
    """Register `kdcore.Modality` objects, which describe kinds of signals."""


@hookspec
def register_datasets(register: Register) -> None:
    """Register `kdcore.Dataset` classes."""


@hookspec
def register_protocols(register: Register) -> None:
    """Register `kdcore.Protocol` classes, which split samples."""


@hookspec
def register_transforms(register: Register) -> None:
    """Register `kdcore.SampleTransform`, `kdcore.Transform` and `kdcore.Join` classes."""


@hookspec
def register_encoders(register: Register) -> None:
    """Register `kdcore.Encoder` classes, or any `torch.nn.Module` that maps a tensor to class logits."""


@hookspec(firstresult=True)
def pretrained_weights(model: str) -> PretrainedWeights | None:
    """Return the published weights of a backbone that a package provides, for encoders with ``pretrained: true``.

    `model` is the backbone's name, e.g. ``resnet18``. Return None to leave it to another plugin, and `PretrainedWeights`
    without tensors if the package is known but not installed.
    """


@hookspec
def register_fusions(register: Register) -> None:
    """Register `kdcore.TeacherFusion` classes, which define how teachers run together."""


@hookspec
def register_losses(register: Register) -> None:
    """Register `kdcore.DistillationLoss` classes."""


@hookspec
def register_schedules(register: Register) -> None:
    """Register `kdcore.Schedule` classes, which define the order of training."""


@hookspec
def register_class_embeddings(register: Register) -> None:
    """Register `kdcore.ClassEmbeddings` classes, which map class names to vectors."""


@hookspec
def register_executors(register: Register) -> None:
    """Register `kdcore.Executor` classes, which run the commands of ``--jobs``."""


@hookspec
def leakage_checks() -> Sequence[LeakageCheck] | None:
    """Return `kdcore.LeakageCheck` objects, which search for copies of test recordings in other splits before training.

    Prepared data contain the summaries of each check, so data are prepared again if a check is added or changed.
    """


@hookspec
def register_commands(cli: typer.Typer) -> None:
    """Add commands to the command line. Commands should import slow modules in their bodies.

    ``rich_help_panel`` selects the section of ``kdcore --help`` that lists a command, such as ``Results``.
    """


@hookspec
def command_finished() -> None:
    """Called after a command has succeeded and printed its output, except for ``list``, ``--help`` and ``--version``."""


@hookspec
def explain(participant: Participant, inputs: Tensor, score: Callable[[Tensor], Tensor]) -> Mapping[str, Tensor] | None:
    """Return saliency maps of a trained participant, for the examples in a run's report.

    `inputs` are those of its encoder, (B, channel, height, width) or (B, time, channel, height, width). ``score(inputs)`` is
    the number to explain: the logit of the predicted class, with a graph.

    Returns a mapping from title to non-negative importance, (B, h, w) or (B, time, h, w) at any resolution; None if there is
    nothing to show.
    """


@hookspec(firstresult=True)
def draw_recordings(title: str, drawings: Sequence[Drawing], path: Path) -> Path | None:
    """Write an HTML page with a plot of each `kdcore.Drawing` and return its path; None to leave it to another plugin.

    Called by ``kdcore data check --pictures`` and ``kdcore predict --plot``.
    """


@hookspec(firstresult=True)
def open_predictor(path: Path) -> Predictor | None:
    """Open a student exported in a format of the plugin, for ``kdcore predict``; None to leave it to another plugin."""


@hookspec(firstresult=True)
def open_recording(source: Path | DataFrame | Iterable[str], decimal: str) -> PlainRecording | None:
    """Open a recording that belongs to no dataset, for prediction. Return None to leave it to another plugin.

    `source` is a file, a data frame, or the lines of standard input. `decimal` is the decimal mark of numbers in text, ``.`` or
    ``,``. Files other than ``.npy`` are opened only if the student's dataset cannot read them.
    """


@hookspec(firstresult=True)
def open_tracker(recipe: Recipe, say: Callable[[str], None]) -> Tracker | None:
    """Return a `kdcore.Tracker` that sends a run's records to a tracking service; None to leave it to another plugin.

    Called before anything is written, even in a dry run: raise `kdcore.UsageError` if the recipe's ``tracking`` cannot be used,
    and open no connection yet. `say` prints a line to the user.
    """


@hookspec(firstresult=True)
def download_runs(to: Path, uri: str | None, run_id: str, experiment: str, matching: str) -> Iterable[FinishedRun] | None:
    """Download finished runs from a tracking service to the folder `to` and return them; None to leave it to another plugin.

    Downloads the run with the service's ID `run_id`, or all runs of `experiment` that match the filter `matching`.
    """


@hookspec
def run_started(run: RunContext) -> None:
    """A run begins, or is resumed. Entries written to ``run.journal`` here are replaced when the run is resumed."""


@hookspec
def arm_started(run: RunContext, seed: int, arm: str) -> None:
    """Called when training of the ``distilled`` or ``baseline`` arm of a seed starts or resumes."""


@hookspec
def stage_started(stage: StagePlan, seed: int) -> None:
    """Called when a training stage starts."""


@hookspec
def epoch_finished(stage: StagePlan, seed: int, epoch: int, metrics: Mapping[str, float]) -> str | None:
    """An epoch has ended; `metrics` are its tracked values. Return the reason to end the stage here; None to continue."""


@hookspec
def stage_finished(stage: StagePlan, seed: int) -> None:
    """Called when a training stage has ended."""


@hookspec
def arm_finished(run: RunContext, seed: int, arm: str, outcome: Outcome) -> None:
    """Called when an arm of a seed is trained and evaluated. Its predictions and weights are in the run's folder."""


@hookspec(firstresult=True)
def write_report(run: RunContext, summary: Summary) -> Path | None:
    """Write a human-readable report of a finished run, and return its file; None to leave it to another plugin."""


@hookspec
def run_finished(run: RunContext, summary: Summary, report: Path | None) -> None:
    """Called when all seeds and arms are finished and the report is written."""


@hookspec
def run_failed(run: RunContext, error: BaseException) -> None:
    """A run ended early because of `error`; a `kdcore.StoppedError` if a signal stopped it. It can be resumed."""

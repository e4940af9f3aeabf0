"""Reads the records of runs: facts, recipe and predictions."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kdcore import __version__
from kdcore.contracts.dataset import Dataset
from kdcore.data.table import Table
from kdcore.errors import CheckpointError, KdcoreError, PluginError, RecipeError
from kdcore.plugin.manager import PluginManager, plugin_manager
from kdcore.recipe.load import load_recipe
from kdcore.recipe.models import Recipe
from kdcore.runs.journal import changed_keys
from kdcore.runs.outcome import Outcome, read_outcome
from kdcore.runs.paths import age_order, find_run, runs_folder
from kdcore.training.checkpoint import write_file

FACTS = "run.json"


@dataclass(frozen=True)
class Facts:
    """The facts of a run: those that must agree for two runs to be comparable, and those that may explain a difference.

    Args:
        name: Name of the recipe.
        recipe_hash: Hash of the whole recipe.
        variant: Hash of the recipe without its name, seeds and baseline; equal for runs of one configuration.
        split: Split that was evaluated.
        split_rule: The protocol's rule, in one sentence.
        counts: Split → number of samples.
        fingerprint: Hash of the recordings.
        classes: Class names, in the order of the labels.
        selection: Participant → the weights that were evaluated, as in `Training.selection`.
        modalities: Participant → its modalities.
        seeds: Random seeds, in order.
        arms: ``distilled``, and ``baseline`` if it was trained.
        versions: Versions of Python, torch, NumPy, kdcore and the plugins used.
        code: Package → hash of its source files, for kdcore and the plugins used.
        files: Path in the recipe → hash of the file there, such as pretrained weights.
        machine: Operating system, architecture, accelerator and number of threads.
        command: Command line that repeats the run.
        no_baseline: Why no baseline was trained; empty if one was.
        distilled: Students with at least one distillation term.
        dropped: Dropped recordings: their number, and for each reason its count, subjects and first recordings.
        notes: Notes on dropped recordings, warnings about the splits, and notes on pretrained weights.
        resumed: A line for each resumption with other versions or code than before.
        extends: The finished run that this one extends: ``run``, ``epochs`` of both runs by learner, and why the result
            ``differs`` from that of one longer run, if it does; empty for none.
        phases: Phase → seconds, over all resumptions.
        target: Fields of the `kdcore.Target`; empty for classes.
        tracking: How to open the tracked run; empty if nothing is tracked.
    """

    name: str
    recipe_hash: str
    variant: str
    split: str
    split_rule: str
    counts: Mapping[str, int]
    fingerprint: str
    classes: Sequence[str]
    selection: Mapping[str, str]
    modalities: Mapping[str, Sequence[str]]
    seeds: Sequence[int]
    arms: Sequence[str]
    versions: Mapping[str, str] = field(default_factory=dict)
    code: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    machine: str = ""
    command: Sequence[str] = ()
    no_baseline: str = ""
    distilled: Sequence[str] = ()
    dropped: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    resumed: Sequence[str] = ()
    extends: Mapping[str, Any] = field(default_factory=dict)
    phases: Mapping[str, float] = field(default_factory=dict)
    target: Mapping[str, Any] = field(default_factory=dict)
    tracking: str = ""

    def content(self) -> bytes:
        """The content of the run's ``run.json``."""
        return json.dumps(asdict(self), indent=1).encode()


def installed_versions(plugins: Mapping[str, str]) -> dict[str, str]:
    """Versions of the packages that a run's results depend on."""
    packages = {name: version(name) for name in ("torch", "numpy")}
    named = {f"plugin {name}": number for name, number in sorted(plugins.items())}
    return {"kdcore": __version__, "python": platform.python_version(), **packages, **named}


@dataclass(frozen=True)
class FinishedRun:
    """A finished run.

    Args:
        folder: The run's folder, or a folder with the artifacts downloaded from MLflow.
        facts: Facts of the run.
        outcomes: Arm → seed → its predictions.
    """

    folder: Path
    facts: Facts
    outcomes: Mapping[str, Mapping[int, Outcome]]

    @property
    def recipe(self) -> Path:
        """Path of the recipe with all defaults filled in."""
        return self.folder / "recipe.yaml"


def read_run(run_id: str | Path) -> FinishedRun:
    """Read a finished run, by its id or folder.

    Raises:
        CheckpointError: If there is no such run, or it is not finished or damaged.
    """
    folder = find_run(str(run_id))
    facts = read_facts(folder)
    if facts is None:
        raise CheckpointError(f"{folder}: not a finished run: there is no {FACTS}")
    missing = [path for arm in facts.arms for seed in facts.seeds if not (path := outcome_file(folder, seed, arm)).exists()]
    if missing:
        raise CheckpointError(f"{folder}: not finished: {missing[0].name} is missing (kdcore resume {folder.name})")
    return FinishedRun(
        folder,
        facts,
        {arm: {seed: read_outcome(outcome_file(folder, seed, arm)) for seed in facts.seeds} for arm in facts.arms},
    )


def recipe_of(
    folder: Path, plugins: PluginManager | None = None, data: Dataset | None = None, *, files: bool = False, part: str = ""
) -> Recipe:
    """Load the recipe of a run.

    Args:
        folder: Folder of the run.
        plugins: The loaded plugins; the installed ones by default.
        data: The dataset, if the run was given one in Python.
        files: Whether files that the recipe names, such as pretrained weights, must still exist.
        part: Section that is used, such as ``data``; the plugins of others may be missing.

    Raises:
        PluginError: If a plugin that the run used is missing; names its version.
        RecipeError: If the recipe is invalid for another reason.
    """
    plugins = plugins or plugin_manager()
    try:
        return load_recipe(folder / "recipe.yaml", (), plugins, data, files=files, part=part)
    except RecipeError as error:
        facts = read_facts(folder)
        working = {f"plugin {name}" for name, plugin in plugins.plugins.items() if not plugin.failure}
        used = {key: number for key, number in facts.versions.items() if key.startswith("plugin ")} if facts else {}
        missing = " and ".join(f"{key} {number}" for key, number in used.items() if key not in working)
        if not missing:
            raise
        raise PluginError(f"{folder.name} used {missing}, which is not installed here; install it to continue") from error


def finished_runs(variant: str = "", split: str = "test") -> Iterator[FinishedRun]:
    """Yield the finished runs in the folder of runs, oldest first.

    Args:
        variant: Only runs of this configuration (`Recipe.variant`), with any seeds. Extensions whose result differs from that
            of one longer run are left out.
        split: Only runs evaluated on this split.
    """
    home = runs_folder()
    for folder in sorted(home.iterdir(), key=lambda each: age_order(each.name)) if home.is_dir() else ():
        try:
            facts = read_facts(folder)
            if (
                facts
                and facts.split == split
                and (not variant or (variant == facts.variant and not facts.extends.get("differs")))
            ):
                yield read_run(folder)
        except CheckpointError:  # not finished yet
            continue


def outcome_file(folder: Path, seed: int, arm: str) -> Path:
    """The file with the predictions of one arm and seed."""
    return folder / "results" / f"seed-{seed}-{arm}.npz"


def refuse_other_recordings(folder: Path, table: Table) -> None:
    """Refuse to resume a run on other recordings.

    Raises:
        CheckpointError: If recordings were changed, added or removed since the run started.
    """
    began = read_facts(folder)
    if began and began.fingerprint != table.fingerprint:
        raise CheckpointError(
            f"{folder.name} began with other recordings: its fingerprint of them is {began.fingerprint[:12]}, "
            f"now it is {table.fingerprint[:12]}; restore them, or run the recipe again: kdcore run {folder / 'recipe.yaml'}"
        )


def resumed_facts(now: Facts, before: Facts | None) -> Facts:
    """The facts of a resumed run, with a line if versions, code or files have changed since it started."""
    if before is None:
        return now
    changed = sorted(changed_keys(before.versions, now.versions))
    changes = [f"{name} {before.versions.get(name, 'not used')}, then {now.versions.get(name, 'not used')}" for name in changed]
    code = sorted(changed_keys(before.code, now.code))
    changes += [f"changed code of {name}" for name in code if name not in changed and f"plugin {name}" not in changed]
    changes += [f"changed file at {place}" for place in sorted(changed_keys(before.files, now.files))]
    if not changes:
        return replace(now, resumed=before.resumed)
    line = f"resumed with different software or files: {', '.join(changes)}; its seeds were trained under different conditions"
    return replace(now, resumed=[*before.resumed, line])


def record_phases(folder: Path, phases: Mapping[str, float]) -> None:
    """Write the timings of a run to its record; ignored if that fails."""
    rounded = {phase: round(seconds, 4) for phase, seconds in phases.items()}
    with suppress(KdcoreError, OSError):  # must not hide the error that ends the run, such as a full disk
        if facts := read_facts(folder):
            write_file(folder / FACTS, replace(facts, phases=rounded).content())


def read_facts(folder: Path) -> Facts | None:
    """Read the facts of a run, finished or not; None if there are none yet.

    Raises:
        CheckpointError: If the record is damaged.
    """
    path = folder / FACTS
    if not path.exists():
        return None
    try:
        return Facts(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: damaged: {error}") from error

"""Records of finished runs: facts, provenance and predictions."""

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
from kdcore.runs.outcome import Outcome, read_outcome
from kdcore.runs.paths import age_order, find_run, runs_folder
from kdcore.training.checkpoint import write_file

FACTS = "run.json"


@dataclass(frozen=True)
class Facts:
    """Facts of a run: those that must agree for two runs to be comparable, and those that may explain differences.

    Args:
        name: Of the recipe.
        recipe_hash: Of the whole recipe.
        variant: Of the recipe without its name, seeds and baseline: what is the same in runs of one configuration.
        split: Split that was evaluated.
        split_rule: The protocol's rule, in a sentence.
        counts: Split → samples.
        fingerprint: Identity of the recordings.
        classes: Names, in the order of the labels.
        selection: Participant → which weights were evaluated, as `Training.selection` says it.
        modalities: Participant → what it reads.
        seeds: In order.
        arms: ``distilled``, and ``baseline`` where it was trained, too.
        versions: Of Python, torch, NumPy, kdcore and the plugins used.
        code: Package → hash of its source files, for kdcore and the plugins used.
        files: Place in the recipe → hash of the file that it names, such as pretrained weights.
        machine: Kind of machine and accelerator.
        command: Repeats the run.
        no_baseline: Why no student was trained without distillation; empty if one was.
        distilled: Students with a term that distils in their objective.
        dropped: Recordings that did not become samples: count, and for each reason its count, subjects and first recordings.
        notes: A line for each reason why recordings were dropped, each warning about the splits, and what was
            done with the files of weights that participants start from.
        resumed: A line for each resumption with other versions or other code than before.
        extends: The finished run that this one continues: ``run``, its ``epochs`` and those of this one by learner, and why the
            result ``differs`` from that of a longer run, if it does; empty for none.
        phases: Phase → seconds that it has taken, over all resumptions.
        target: The form of what was learnt, as a `kdcore.Target` made plain; empty for classes.
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

    def content(self) -> bytes:
        """As it is kept in a file."""
        return json.dumps(asdict(self), indent=1).encode()


def installed_versions(plugins: Mapping[str, str]) -> dict[str, str]:
    """Name → version of what a run's numbers depend on."""
    packages = {name: version(name) for name in ("torch", "numpy")}
    named = {f"plugin {name}": number for name, number in sorted(plugins.items())}
    return {"kdcore": __version__, "python": platform.python_version(), **packages, **named}


@dataclass(frozen=True)
class FinishedRun:
    """A run that has ended.

    Args:
        folder: Where it is kept; one that MLflow's artifacts were downloaded to will do.
        facts: What was run.
        outcomes: Arm → seed → its answers.
    """

    folder: Path
    facts: Facts
    outcomes: Mapping[str, Mapping[int, Outcome]]

    @property
    def recipe(self) -> Path:
        """The recipe's file, every default filled in."""
        return self.folder / "recipe.yaml"


def read_run(run_id: str | Path) -> FinishedRun:
    """A finished run, by its id or its folder.

    Raises:
        CheckpointError: If there is no such run, it has not ended, or it is damaged.
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
    folder: Path, plugins: PluginManager | None = None, data: Dataset | None = None, *, files: bool = False
) -> Recipe:
    """The recipe that a run was made with.

    Args:
        folder: Of the run.
        plugins: Who provides its components; the installed ones by default.
        data: The dataset, if the run was given one in Python.
        files: Whether files that it was trained from must still exist.

    Raises:
        PluginError: If a plugin that it was made with is not in use here, with the version that there was.
        RecipeError: If the recipe cannot be used for another reason.
    """
    plugins = plugins or plugin_manager()
    try:
        return load_recipe(folder / "recipe.yaml", (), plugins, data, files=files)
    except RecipeError as error:
        facts = read_facts(folder)
        working = {f"plugin {name}" for name, plugin in plugins.plugins.items() if not plugin.failure}
        used = {key: number for key, number in facts.versions.items() if key.startswith("plugin ")} if facts else {}
        missing = " and ".join(f"{key} {number}" for key, number in used.items() if key not in working)
        if not missing:
            raise
        raise PluginError(f"{folder.name} used {missing}, which is not installed here; install it to continue") from error


def finished_runs(variant: str = "", split: str = "test") -> Iterator[FinishedRun]:
    """Every finished run in the folder of runs, oldest first.

    Args:
        variant: Only those of this configuration (`Recipe.variant`), whatever their seeds; without extensions of runs that
            do not give what it gives from the start.
        split: Only those evaluated on this split.
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
    """The file in which a run keeps the answers of one arm of one seed."""
    return folder / "results" / f"seed-{seed}-{arm}.npz"


def refuse_other_recordings(folder: Path, table: Table) -> None:
    """Go on with a run only on what it began with.

    Raises:
        CheckpointError: If recordings were changed, added or taken away since.
    """
    began = read_facts(folder)
    if began and began.fingerprint != table.fingerprint:
        raise CheckpointError(
            f"{folder.name} began with other recordings: its fingerprint of them is {began.fingerprint[:12]}, "
            f"now it is {table.fingerprint[:12]}; restore them, or run the recipe again: kdcore run {folder / 'recipe.yaml'}"
        )


def resumed_facts(now: Facts, before: Facts | None) -> Facts:
    """The facts of a run that goes on, with a line if versions or code are other ones than those that it began with."""
    if before is None:
        return now
    changed = sorted(name for name in {*before.versions, *now.versions} if before.versions.get(name) != now.versions.get(name))
    said = [f"{name} {before.versions.get(name, 'not used')}, then {now.versions.get(name, 'not used')}" for name in changed]
    code = sorted(name for name in {*before.code, *now.code} if before.code.get(name) != now.code.get(name))
    said += [f"other code of {name}" for name in code if name not in changed and f"plugin {name}" not in changed]
    line = (
        [f"resumed with different software: {', '.join(said)}; its seeds were trained under different conditions"]
        if said
        else []
    )
    return replace(now, resumed=[*before.resumed, *line])


def record_phases(folder: Path, phases: Mapping[str, float]) -> None:
    """Keep the seconds that each phase of a run has taken, if its record can be written."""
    rounded = {phase: round(seconds, 4) for phase, seconds in phases.items()}
    with suppress(KdcoreError, OSError):  # a run that stops because the disk is full says that, and not this
        if facts := read_facts(folder):
            write_file(folder / FACTS, replace(facts, phases=rounded).content())


def read_facts(folder: Path) -> Facts | None:
    """The record of a run, finished or not; None if it has not begun.

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

"""Extension of a finished run by more epochs: a new run that starts from the final state of the finished one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kdcore.contracts.training import Training
from kdcore.errors import CheckpointError, UsageError
from kdcore.recipe.graph import StagePlan
from kdcore.recipe.plan import BASELINE, DISTILLED, Plan
from kdcore.runs.journal import Journal, changed_keys, flattened
from kdcore.runs.state import RunState
from kdcore.training.checkpoint import Checkpoint, Checkpoints, write_file

FINISHED, START = "finished", "start"
"""Folders of a run: the states in which its arms ended, and those of another run from which they started."""

CURVES = ("train/", "train_step/", "validation/", "learning_rate/")
"""Beginnings of the metrics of single epochs and steps."""


@dataclass(frozen=True)
class Extension:
    """The finished run that a new run extends.

    Args:
        run: Id of the finished run.
        epochs: Learner → its epochs in the finished run and in the new one.
        differs: Reasons why the result differs from that of one longer run; empty if it is bit-identical.
    """

    run: str
    epochs: Mapping[str, Sequence[int]]
    differs: Sequence[str] = ()

    def lines(self) -> list[str]:
        """Lines for the results: the extended run, and whether the result equals that of a longer run."""
        longer = ", ".join(f"{name} from {few} to {many} epochs" for name, (few, many) in self.epochs.items())
        exact = "; ".join(self.differs) or "the same, bit for bit, as a run of so many epochs from the start"
        known = "its results were known before: choose the number of epochs on a validation split"
        return [f"extends {self.run}: {longer}; {exact}; {known}"]


def extension(folder: Path, before: Plan, after: Plan) -> Extension:
    """Check that a finished run can be extended by more epochs.

    Raises:
        UsageError: If anything but the epochs of the last stage changes, or they do not grow.
        CheckpointError: If the run has not finished, or kept no final states.
    """
    if not RunState.read(folder).complete:
        raise CheckpointError(f"{folder.name} is not finished: kdcore resume {folder.name}, and then extend it")
    _refuse_other_changes(folder, before, after)
    epochs: dict[str, Sequence[int]] = {}
    differs: dict[str, None] = {}
    for arm, stages in before.stages.items():
        last, longer = stages[-1], after.stages[arm][-1]
        pairs = zip(stages[:-1], after.stages[arm], strict=False)
        if changed := [old.name for old, new in pairs if old.epochs != new.epochs]:
            raise UsageError(
                f"stage {changed[0]!r} is followed by {last.name!r}; only the last stage can be extended. "
                f"Start another run: kdcore run {folder / 'recipe.yaml'}"
            )
        if longer.epochs <= last.epochs:
            raise UsageError(
                f"stage {last.name!r} was trained for {last.epochs} epochs; an extension has more, not {longer.epochs}"
            )
        for name in last.learners:
            epochs.setdefault(name, (last.training[name].epochs, longer.training[name].epochs))
        differs |= dict.fromkeys(_differences(last))
    states = [final_state(folder, seed, arm) for seed in before.recipe.seeds for arm in before.arms]
    if missing := [path for path in states if not path.is_dir()]:
        raise CheckpointError(
            f"{folder.name} kept no final state to extend it from ({missing[0].relative_to(folder)} is missing; "
            "engine.keep_final_state)"
        )
    return Extension(folder.name, epochs, tuple(differs))


def _refuse_other_changes(folder: Path, before: Plan, after: Plan) -> None:
    old, new = flattened(before.filled), flattened(after.filled)
    changed = [key for key in changed_keys(old, new) if not key.startswith("plugins")]
    if not changed:
        raise UsageError(f"{folder.name} is finished, and nothing would change; give it more epochs, e.g. training.epochs=60")
    shapes = [[replace(s, epochs=1, training=_of_one_epoch(s)) for s in each.stages[DISTILLED]] for each in (before, after)]
    same = shapes[0] == shapes[1]
    # The options of a participant's training may be spelled out beside its epochs, as long as they have the same effect.
    own = tuple(f"{after.recipe.path_of(name)}.training." for name in after.recipe.participants)
    other = [key for key in changed if key.rpartition(".")[2] != "epochs" and not (same and key.startswith(own))]
    if other:
        raise UsageError(
            f"{other[0]} was {old.get(other[0])} and cannot become {new.get(other[0])}: a finished run can only be given more "
            f"epochs. Start another run: kdcore run {folder / 'recipe.yaml'} {other[0]}=…"
        )
    if not same:
        raise UsageError("with these epochs the run has other stages; start another run")


def _of_one_epoch(stage: StagePlan) -> dict[str, Training]:
    return {name: replace(training, epochs=1) for name, training in stage.training.items()}


def _differences(stage: StagePlan) -> Iterator[str]:
    """Reasons why an extended stage differs from a longer one."""
    for name, training in stage.training.items():
        rule = training.learning_rate.name
        if rule == "one-cycle":
            raise UsageError(f"{name}: the learning rate 'one-cycle' ends with its last step and cannot be extended")
        if training.learning_rate.length_matters:
            yield (
                f"not the same as a run of so many epochs from the start, since the learning rate {rule!r} of {name} depends "
                "on their number: earlier epochs followed the rule for fewer, later ones follow it for more"
            )


def final_state(folder: Path, seed: int, arm: str, where: str = FINISHED) -> Path:
    """The folder in which a run keeps the state in which an arm ended, or from which it started."""
    return folder / where / f"seed-{seed}-{arm}"


def copy_states(old: Path, new: Path, plan: Plan) -> None:
    """Give a new run the final states of another, and the curves that lead to them."""
    for seed in plan.recipe.seeds:
        for arm in plan.arms:
            target = final_state(new, seed, arm, START)
            shutil.copytree(final_state(old, seed, arm), target)
            write_file(target / "curves.json", json.dumps(_curves(old, seed, arm)).encode())


def _curves(folder: Path, seed: int, arm: str) -> list[tuple[int, dict[str, float]]]:
    """Steps and metrics that a run recorded of an arm while it was trained."""
    prefix = "" if arm == DISTILLED else f"{BASELINE}/"
    journal = Journal(folder / "tracking", writable=False)
    curves = []
    for _, record in journal.read(0):
        if record["kind"] == "metrics" and record["run"] == f"seed-{seed}":
            own = {key: each for key, each in record["values"].items() if key.startswith(tuple(prefix + c for c in CURVES))}
            curves += [(record["step"], own)] if own else []
    return curves


def starting_point(folder: Path, seed: int, arm: str) -> tuple[Checkpoint, list[tuple[int, dict[str, float]]]]:
    """The state from which an arm of an extension starts, and the curves that lead to it.

    Raises:
        CheckpointError: If it is missing or damaged.
    """
    path = final_state(folder, seed, arm, START)
    checkpoint = Checkpoints(path).load()
    if checkpoint is None:
        raise CheckpointError(f"{path}: the state from which this run was to start is missing")
    return checkpoint, [(int(step), dict(values)) for step, values in json.loads((path / "curves.json").read_text())]

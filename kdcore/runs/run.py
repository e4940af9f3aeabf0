"""Run a recipe, from a file to a finished run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from kdcore.plugin.error_attribution import exits_attributed
from kdcore.plugin.manager import plugin_manager
from kdcore.recipe.load import load_recipe
from kdcore.recipe.models import Recipe
from kdcore.recipe.plan import make_plan
from kdcore.runs.callbacks import RunListener
from kdcore.runs.paths import find_run
from kdcore.runs.records import recipe_of
from kdcore.runs.session import RunSession
from kdcore.runs.summary import Summary
from kdcore.training.preflight import Preflight


@dataclass
class Result:
    """The result of a finished run.

    Args:
        summary: Its results.
        folder: Where its files are.
        report: The file that a plugin wrote for people to read; None without such a plugin.
        tracking: How to look at what was tracked; empty if nothing was.
        run_ids: Local name of a run → its id with the tracker.
    """

    summary: Summary
    folder: Path
    report: Path | None = None
    tracking: str = ""
    run_ids: Mapping[str, str] = field(default_factory=dict)


def run(
    source: str | Path | Recipe,
    overrides: Sequence[str] = (),
    listener: RunListener | None = None,
    command: Sequence[str] = (),
    split: Literal["test", "validation"] = "test",
    retrain: bool = False,
) -> Result | None:
    """Run a recipe from the start. Returns None in all processes of a distributed run but the first.

    Args:
        source: Path of a recipe, name of a shipped one, or a loaded recipe.
        overrides: ``key=value`` each; only for a path or name.
        listener: Told how it goes.
        command: What a person types to repeat it.
        split: Split to evaluate on. With ``validation``, to choose among recipes, test samples are never used.
        retrain: Train teachers even if other runs have trained them (`engine.reuse_teachers`).

    Raises:
        KdcoreError: With a message for the user; nothing is written if the recipe or the data are at fault.
    """
    plugins = plugin_manager()
    recipe = source if isinstance(source, Recipe) else load_recipe(source, overrides, plugins)
    with (
        exits_attributed(plugins),
        RunSession(make_plan(recipe), plugins, listener, command, None, split, retrain) as session,
    ):
        for arm in session.arms():
            arm.engine.fit(arm.stages, arm.checkpoint)
        return _result(session)


def resume(run_id: str, listener: RunListener | None = None) -> Result | None:
    """Resume an interrupted run, to the same end as if it had not been interrupted.

    Raises:
        CheckpointError: If there is no such run, or its checkpoint cannot be trusted.
    """
    folder = find_run(run_id)
    plugins = plugin_manager()
    plan = make_plan(recipe_of(folder, plugins, files=True))
    with exits_attributed(plugins), RunSession(plan, plugins, listener, folder=folder) as session:
        for arm in session.arms():
            arm.engine.fit(arm.stages, arm.checkpoint)
        return _result(session)


def dry_run(
    source: str | Path,
    overrides: Sequence[str] = (),
    listener: RunListener | None = None,
    split: Literal["test", "validation"] = "test",
) -> Preflight | None:
    """Pass one batch through everything: shapes, terms, gradients. Trains nothing, and writes nothing but prepared data.

    Returns None in all processes of a distributed run but the first.
    """
    plugins = plugin_manager()
    with exits_attributed(plugins):
        session = RunSession(make_plan(load_recipe(source, overrides, plugins)), plugins, listener, split=split)
        found = session.prepare().found
    return found if session.writes else None


def _result(session: RunSession) -> Result | None:
    if not session.writes:
        return None
    summary, report = session.conclude()
    return Result(summary, session.context.folder, report, session.tracker.describe(), session.tracker.run_ids())

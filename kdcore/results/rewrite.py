"""The report of a run, written again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kdcore.cache import cache_folder
from kdcore.data.preparation import load_table
from kdcore.errors import DataError
from kdcore.plugin.manager import plugin_manager
from kdcore.recipe.build import Builder
from kdcore.recipe.models import Recipe
from kdcore.recipe.plan import make_plan
from kdcore.results.examples import Example, gather_examples
from kdcore.results.explaining import Explainer
from kdcore.results.sections import write_report
from kdcore.runs.records import FinishedRun, read_run, recipe_of
from kdcore.runs.summarise import summarise
from kdcore.runs.summary import Summary
from kdcore.training.assembly import Assembly


def rewrite_report(run_id: str | Path, to: Path | None = None, say: Callable[[str], None] = print) -> tuple[Summary, Path]:
    """Write the report of a finished run from what it left, with examples if its recordings are still there.

    Args:
        run_id: Its id or folder.
        to: The HTML file; the run's ``report.html`` by default.
        say: Is given each line meant for the user.

    Raises:
        KdcoreError: If there is no such run, or it has not ended.
    """
    run = read_run(run_id)
    recipe = recipe_of(run.folder)
    try:
        examples = _examples(recipe, run)
    except DataError as error:
        say(f"no examples: {error}")
        examples = []
    path = to or run.folder / "report.html"
    summary = summarise(recipe, run, examples=examples)
    write_report(path, summary)
    return summary, path


def _examples(recipe: Recipe, run: FinishedRun) -> list[Example]:
    plugins, seed = plugin_manager(), run.facts.seeds[0]
    builder = Builder(recipe, plugins)
    dataset, data = builder.dataset(), recipe.filled_data
    assembly = Assembly(builder, dataset, make_plan(recipe))
    table = load_table(dataset, builder.protocol(), data, assembly.pipelines, cache_folder(), data.memory_bytes)
    if table.fingerprint != run.facts.fingerprint:
        raise DataError("the recordings are no longer those that the run was made on")
    outcomes = {arm: found[seed] for arm, found in run.outcomes.items()}
    explainer = Explainer(assembly, table, run.folder, run.facts.part, seed, outcomes, plugins.hook)
    return gather_examples(assembly, table, run.facts.part, outcomes, explainer)

"""Parallel training of the seeds of a recipe, and comparison of the student with its baseline."""

from __future__ import annotations

from collections.abc import Sequence

from kdcore import load_recipe, runs_folder
from kdcore_compare.comparison import compare_pairs
from kdcore_compare.comparison_report import report_records, report_tables
from kdcore_compare.parallel import SERIAL, Parallel
from kdcore_compare.selection import make_entry, with_baselines
from kdcore_compare.tables import TO_TERMINAL, Output
from kdcore_compare.train_variants import train_only, train_variants


def train_seeds(
    source: str,
    overrides: Sequence[str],
    parallel: Parallel = SERIAL,
    only: str = "",
    metric: str = "",
    output: Output = TO_TERMINAL,
) -> None:
    """Train the missing seeds of a recipe, and write the table.

    Args:
        source: Path or name of the recipe.
        overrides: Overrides as ``key=value``.
        parallel: Number of seeds to train at a time, and where.
        only: Name of the recipe, to train without a table.
        metric: Name of the metric to compare. Default: the primary metric of the target.
        output: Where to write the tables.

    Raises:
        KdcoreError: If the training of a seed fails, or the recipe trains no baseline.
    """
    recipe = load_recipe(source, overrides)
    variants: dict[str, tuple[str, ...]] = {recipe.name: ()}
    if only:
        train_only(source, overrides, variants, only)
        return
    command = ["seeds", source, *overrides, "--only"]
    [runs] = train_variants(source, overrides, variants, parallel, command, runs_folder() / "seeds" / "logs").values()
    comparison = compare_pairs(with_baselines(make_entry(runs).of_seeds(recipe.seeds)), metric)
    output.write(report_tables(comparison), list(report_records(comparison)))

"""From what the command line names to a comparison."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from kdcore import FinishedRun
from kdcore_compare.comparison import Comparison, compare
from kdcore_compare.contenders import Contender, contender, contenders, distinct


def compare_sources(
    sources: Sequence[str], experiment: str = "", uri: str | None = None, matching: str = "", metric: str = "accuracy",
    anyway: bool = False,
) -> Comparison:  # fmt: skip
    """Compare runs, recipes, and those of an MLflow experiment.

    Args:
        sources: As `kdcore_compare.contenders.contenders` takes them; ``key=value`` among them changes all recipes.
        experiment: Name of an MLflow experiment; its runs of one configuration count as one contender.
        uri: Of MLflow.
        matching: Filter of its runs.
        metric: ``accuracy``, ``macro_f1`` or ``loss``.
        anyway: Compare even what is not comparable.
    """
    overrides = [each for each in sources if "=" in each and not Path(each).exists()]
    sources = [each for each in sources if each not in overrides]
    found: list[Contender] = []
    if experiment:
        found = _of_experiment(experiment, uri, matching)
    if sources:
        alone = len(sources) == 1 and found
        found = [*([_one(sources[0], overrides)] if alone else contenders(sources, overrides)), *found]
    return compare(distinct(found), metric, anyway)


def _one(source: str, overrides: Sequence[str]) -> Contender:
    from kdcore_compare.contenders import runs_named

    name, _, who = source.partition("@")
    return contender(runs_named(name, overrides), who)


def _of_experiment(experiment: str, uri: str | None, matching: str) -> list[Contender]:
    from kdcore_compare.tracked import tracked_runs

    groups: dict[str, list[FinishedRun]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for run in tracked_runs(experiment, Path(folder), uri, matching):
            groups.setdefault(f"{run.facts.variant}|{run.facts.part}", []).append(run)
    return [contender(runs) for runs in groups.values()]

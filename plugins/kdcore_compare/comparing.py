"""From what the command line names to a comparison."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from kdcore import FinishedRun
from kdcore_compare.comparison import Comparison, compare
from kdcore_compare.contenders import Contender, contender, contenders, distinct, with_baseline
from kdcore_compare.downloaded import downloaded


def compare_sources(
    sources: Sequence[str], experiment: str = "", uri: str | None = None, matching: str = "", metric: str = "accuracy",
    anyway: bool = False,
) -> Comparison:  # fmt: skip
    """Compare runs, recipes, and those of an MLflow experiment; a single one with its own student without distillation.

    Args:
        sources: As `kdcore_compare.contenders.contenders` takes them; ``key=value`` among them changes all recipes.
        experiment: Name of an MLflow experiment; its runs of one configuration count as one contender.
        uri: Of MLflow.
        matching: Filter of its runs.
        metric: ``accuracy``, ``macro_f1`` or ``loss``.
        anyway: Compare even what is not comparable.
    """
    overrides = [each for each in sources if "=" in each and not Path(each).exists()]
    found = contenders([each for each in sources if each not in overrides], overrides)
    if experiment:
        found += _of_experiment(experiment, uri, matching)
    if len(found) == 1:
        found = with_baseline(found[0])
    return compare(distinct(found), metric, anyway)


def _of_experiment(experiment: str, uri: str | None, matching: str) -> list[Contender]:
    groups: dict[str, list[FinishedRun]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for run in downloaded(Path(folder), uri, experiment=experiment, matching=matching):
            groups.setdefault(f"{run.facts.variant}|{run.facts.part}", []).append(run)
    return [contender(runs) for runs in groups.values()]

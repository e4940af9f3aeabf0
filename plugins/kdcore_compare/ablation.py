"""Which part of a recipe adds what."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from kdcore import FinishedRun, KdcoreError, UsageError, load_recipe, runs_folder
from kdcore_compare.comparison import Comparison, compare, difference, metric_of
from kdcore_compare.contenders import Contender, contender
from kdcore_compare.output import format_for, put
from kdcore_compare.processes import Job, run_jobs
from kdcore_compare.settling import missing_seeds, settle
from kdcore_compare.tables import Format, Table, rendered
from kdcore_compare.telling import NAMES, class_table, cost_table, interval, notes, records, signed, spread
from kdcore_compare.variants import ALONE, WHOLE, Variant, name_of, variants


def ablate(
    source: str,
    overrides: Sequence[str],
    jobs: int = 1,
    only: str = "",
    metric: str = "accuracy",
    form: Format = "rich",
    output: Path | None = None,
) -> None:
    """Train every variant's missing seeds, and put out the table; it is also kept in the folder of runs.

    Args:
        source: The recipe.
        overrides: ``key=value`` each.
        jobs: Processes at a time.
        only: Label of the one variant to train, without a table.
        metric: ``accuracy``, ``macro_f1`` or ``loss``.
        form: Of the table.
        output: Its file; the terminal by default.

    Raises:
        KdcoreError: If a variant that can be run fails.
        UsageError: If there is no such variant, or the file's ending says no format.
    """
    form = format_for(form, output)
    found = variants(source, overrides)
    trained: dict[tuple[str, ...], str] = {}
    for each in found:
        if not each.impossible:
            trained.setdefault(each.overrides, each.label)
    if only:
        chosen = next((words for words, label in trained.items() if label == only), None)
        if chosen is None:
            raise UsageError(f"no variant {only!r} to train (there are: {', '.join(trained.values())})")
        _settle(source, [*overrides, *chosen], only)
        return
    runs = _train(source, overrides, trained, jobs)
    contenders = contenders_of(found, runs, load_recipe(source, overrides).seeds)
    command = shlex.join(["kdcore", "ablate", source, *overrides])
    tables, told = ablation_tables(found, contenders, metric, command), list(records(compare(contenders, metric)))
    _keep(source, overrides, tables, told)
    put(tables, told, form, output)


def _train(
    source: str, overrides: Sequence[str], trained: Mapping[tuple[str, ...], str], jobs: int
) -> dict[tuple[str, ...], list[FinishedRun]]:
    if jobs > 1:
        lacking = {label: words for words, label in trained.items() if missing_seeds(load_recipe(source, [*overrides, *words]))}
        logs = runs_folder() / "ablations" / "logs"
        work = [Job(label, ["ablate", source, *overrides, "--only", label]) for label in lacking]
        ended = run_jobs(work, jobs, logs, _say)
        if failed := [label for label, status in ended.items() if status]:
            raise KdcoreError(f"not trained: {', '.join(failed)}; the same command tries again")
    return {words: _settle(source, [*overrides, *words], label) for words, label in trained.items()}


def _settle(source: str, overrides: Sequence[str], label: str) -> list[FinishedRun]:
    from rich.console import Console

    from kdcore import ConsoleListener

    console = Console(stderr=True)
    missing = missing_seeds(load_recipe(source, overrides))
    said = f"to train: seeds {', '.join(map(str, missing))}" if missing else "trained already"
    console.print(f"{label}: {said}", highlight=False, markup=False)
    with ConsoleListener(console) as listener:
        return settle(source, overrides, "test", listener, _say)


def contenders_of(
    found: Sequence[Variant], runs: Mapping[tuple[str, ...], Sequence[FinishedRun]], seeds: Sequence[int]
) -> list[Contender]:
    """A contender for each variant that could be run, with the recipe's seeds alone."""
    contenders = []
    for each in found:
        if not each.impossible:
            one = contender(runs[each.overrides], each.who, each.label)
            contenders.append(one.only(key for key in one.observations if key[0] in seeds))
    return contenders


def ablation_tables(found: Sequence[Variant], contenders: Sequence[Contender], metric: str, command: str) -> list[Table]:
    """The table of parts, then what each means for the classes, then what it costs."""
    from_whole = compare(contenders, metric)
    alone = next((each for each in contenders if each.label == ALONE), None)
    headings = ["", "runs", NAMES[metric], f"from {WHOLE}", "95 % interval"]
    headings += [f"from {ALONE}", "95 % interval"] if alone else []
    rows = [
        [each.label, str(len(each.observations)), spread(each, metric)]
        + _from(each, contenders[0], metric)
        + (_from(each, alone, metric) if alone else [])
        for each in contenders
    ]
    told = [f"Made by: {command}", *notes(from_whole)]
    told += [f"{each.label}: not possible: {each.impossible}" for each in found if each.impossible]
    title = f"Ablation of {_recipe_name(contenders[0])}: {NAMES[metric]}, {from_whole.reference.facts[0].part} part"
    parts = Table(title, headings, rows, told, strong=[0], spare=(1, 6, 5, 4) if alone else (1, 4))
    return [parts, class_table(_students(from_whole)), cost_table(contenders)]


def _from(one: Contender, reference: Contender, metric: str) -> list[str]:
    if one is reference:
        return ["", ""]
    found = difference(one, reference, metric_of(metric))
    return [signed(found.mean, metric), interval(found, metric)]


def _students(found: Comparison) -> Comparison:
    """Without the teachers, whom classes would make the table too wide for."""
    return Comparison(found.reference, [each for each in found.others if not each.label.startswith("teacher ")], found.metric)


def _recipe_name(whole: Contender) -> str:
    return whole.facts[-1].name.removesuffix(f"-{WHOLE}")


def _keep(source: str, overrides: Sequence[str], tables: Sequence[Table], told: Sequence[Mapping[str, object]]) -> None:
    recipe = load_recipe(source, overrides)
    folder = runs_folder() / "ablations"
    folder.mkdir(parents=True, exist_ok=True)
    endings: tuple[tuple[str, Format], ...] = ((".md", "markdown"), (".csv", "csv"))
    for ending, form in endings:
        path = folder / f"{name_of(recipe)}{ending}"
        path.write_text(rendered(tables, told, form), encoding="utf-8")
        _say(str(path))


def _say(text: str) -> None:
    print(text, file=sys.stderr)

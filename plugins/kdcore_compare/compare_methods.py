"""Training of a recipe's student with one distillation loss at a time, and the table of gains."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence

import numpy as np

from kdcore import METRICS, Builder, FinishedRun, KdcoreError, RunListener, load_recipe, runs_folder
from kdcore_compare.ensure_runs import Split
from kdcore_compare.methods import Method, checked, methods_of
from kdcore_compare.methods_table import MethodResult, MethodsResult, methods_records, methods_tables
from kdcore_compare.parallel import SERIAL, Parallel
from kdcore_compare.selection import Entry, make_entry
from kdcore_compare.step_clock import StepClock, stage_times
from kdcore_compare.tables import TO_TERMINAL, Output
from kdcore_compare.train_variants import group_name, save_tables, say, train_only, train_variants


def compare_methods(
    source: str,
    overrides: Sequence[str],
    losses: Sequence[str] = (),
    grid: Sequence[float] = (0.1, 1.0, 10.0),
    choose: Sequence[str] = (),
    parallel: Parallel = SERIAL,
    only: str = "",
    metric: str = "",
    output: Output = TO_TERMINAL,
) -> None:
    """Choose the weight of each method on the validation split, train it, and write the table, also to the folder of runs.

    Args:
        source: Path or name of the recipe.
        overrides: Overrides as ``key=value``.
        losses: Names of losses to compare in addition to those of the recipe; ``all`` for all registered losses.
        grid: Factors for the weight of each term.
        choose: Overrides as ``key=value`` for weight-selection runs only.
        parallel: Number of variants to train at a time, and where.
        only: Label of a single variant to train, without a table.
        metric: Name of the metric to compare. Default: the primary metric of the target.
        output: Where to write the tables.

    Raises:
        KdcoreError: If no method can be trained.
        UsageError: If the recipe has several students, there is nothing to compare or no weight, or the variant `only` does not
            exist.
    """
    comparison = _Comparison(source, overrides, losses, grid, choose, parallel, metric)
    if only:
        comparison.train(only)
        return
    result = comparison.run()
    tables, records = methods_tables(result), methods_records(result)
    save_tables(comparison.folder, comparison.name, tables, records)
    path = comparison.folder / f"{comparison.name}.json"
    path.write_text(json.dumps(result.facts() | {"methods": records}, indent=1), encoding="utf-8")
    say(str(path))
    output.write(tables, records)


class _Comparison:
    """The variants of a comparison of methods, and their results."""

    def __init__(
        self,
        source: str,
        overrides: Sequence[str],
        losses: Sequence[str],
        grid: Sequence[float],
        choose: Sequence[str],
        parallel: Parallel,
        metric: str,
    ):
        self.source, self.overrides, self.choose, self.parallel = source, overrides, choose, parallel
        self.methods = methods_of(source, overrides, grid, losses)
        self.recipe = self.methods.recipe
        self.metric = metric or Builder(self.recipe).dataset().target.primary
        self.student = next(iter(self.recipe.student_specs))
        self.folder, self.name = runs_folder() / "methods", group_name(self.recipe)
        self.command = ["compare-methods", source, *overrides]
        self.command += [word for each in losses for word in ("--losses", each)]
        self.command += ["--grid", ",".join(f"{each:g}" for each in grid)]
        self.command += [word for each in choose for word in ("--choose", each)]

    def train(self, only: str) -> None:
        """Train a single variant, out of all variants for any choice of weights."""
        pairs = [(method, weight) for method in self.methods.methods for weight in method.weights]
        choosing = dict(self._choosing(*pair) for pair in pairs)
        final = dict(self._final(*pair, baseline) for pair in pairs for baseline in (False, True))
        split = "validation" if only in choosing else "test"
        train_only(self.source, self.overrides, choosing | final, only, split, self._clock)

    def run(self) -> MethodsResult:
        """Check all methods, choose the weights, and train with them.

        Raises:
            KdcoreError: If no method can be trained.
        """
        self.methods = checked(self.methods, self.source, self.overrides)
        failures = {each.label: each.impossible for each in self.methods.methods if each.impossible}
        tried = self._tried(failures)
        chosen = {label: best_weight(scores, self.metric) for label, scores in tried.items() if scores}
        trained, baseline = self._trained(chosen, failures)
        results = []
        for each in self.methods.methods:
            variant, runs = trained.get(each.label, ("", []))
            entry = self._entry(runs, "", each.label) if runs else None
            scores = {weight: score for weight, (score, _) in tried.get(each.label, {}).items()}
            times = list(stage_times(self.folder / self.name, variant, self.recipe.seeds))
            results.append(
                MethodResult(each, chosen.get(each.label), scores, entry, times, "" if entry else failures[each.label])
            )
        variant, runs = trained[baseline]
        return MethodsResult(
            name=self.recipe.name,
            metric=self.metric,
            baseline=self._entry(runs, "baseline", "baseline"),
            baseline_times=list(stage_times(self.folder / self.name, variant, self.recipe.seeds, "baseline")),
            teachers=[self._entry(runs, name, f"teacher {name}") for name in self.recipe.teachers],
            methods=results,
            command=shlex.join(["kdcore", *self.command]),
            choosing_split=self._choosing_split,
            choosing_seeds=load_recipe(self.source, [*self.overrides, *self.choose]).seeds,
        )

    def _tried(self, failures: dict[str, str]) -> dict[str, dict[float, tuple[float, float]]]:
        """Return (metric, cross-entropy) on the validation split by method label and weight."""
        pairs = {}
        for method in self.methods.methods:
            for weight in () if method.impossible else method.weights:
                label, words = self._choosing(method, weight)
                pairs[label] = (method.label, weight, words)
        failed: dict[str, str] = {}
        runs = self._train({label: words for label, (_, _, words) in pairs.items()}, "validation", failed)
        seeds = load_recipe(self.source, [*self.overrides, *self.choose]).seeds
        scores: dict[str, dict[float, tuple[float, float]]] = {}
        self._choosing_split = ""
        for label, (name, weight, _) in pairs.items():
            scores.setdefault(name, {})
            if label in failed:
                failures.setdefault(name, failed[label])
                continue
            entry = make_entry(runs[label]).of_seeds(seeds)
            measured, second = entry.metric(self.metric), "loss" if "loss" in entry.example.metrics() else self.metric
            sign = -1 if second != "loss" and measured.higher_is_better else 1
            scores[name][weight] = (float(np.mean(entry.values(self.metric))), sign * float(np.mean(entry.values(second))))
            self._choosing_split = entry.split_rules[0]
        return scores

    def _trained(
        self, chosen: Mapping[str, float], failures: dict[str, str]
    ) -> tuple[dict[str, tuple[str, list[FinishedRun]]], str]:
        """Return variant and test runs by method label, and the method whose runs also contain the baseline."""
        methods = {each.label: each for each in self.methods.methods if each.label in chosen}
        while methods:
            first = next(iter(methods))
            variants = {name: self._final(each, chosen[name], name == first) for name, each in methods.items()}
            failed: dict[str, str] = {}
            runs = self._train(dict(variants.values()), "test", failed)
            for name, (label, _) in variants.items():
                if label in failed:
                    failures[name] = failed[label]
                    del methods[name]
            if first in methods:
                return {name: (variants[name][0], runs[variants[name][0]]) for name in methods}, first
        reasons = "".join(f"\n  {name}: {reason}" for name, reason in failures.items())
        raise KdcoreError(f"no method can be trained with this recipe:{reasons}")

    def _choosing(self, method: Method, weight: float) -> tuple[str, tuple[str, ...]]:
        """Return label and overrides of the run for a weight."""
        label = f"choosing {method.label} {weight:g}"
        return label, self.methods.overrides(method, weight, label, [*self.choose, "baseline=false"])

    def _final(self, method: Method, weight: float, baseline: bool) -> tuple[str, tuple[str, ...]]:
        """Return label and overrides of the test runs."""
        label = f"{method.label} {weight:g}" + (" and baseline" if baseline else "")
        return label, self.methods.overrides(method, weight, label, [f"baseline={str(baseline).lower()}"])

    def _train(
        self, variants: Mapping[str, Sequence[str]], split: Split, failures: dict[str, str]
    ) -> dict[str, list[FinishedRun]]:
        words, logs = [*self.command, "--only"], self.folder / self.name / "logs"
        return train_variants(self.source, self.overrides, variants, self.parallel, words, logs, split, self._clock, failures)

    def _clock(self, label: str, to: RunListener) -> RunListener:
        return StepClock(self.folder / self.name, self.student, label, to)

    def _entry(self, runs: Sequence[FinishedRun], who: str, label: str) -> Entry:
        """Return a participant's results for the seeds of the recipe only."""
        return make_entry(runs, who, label).of_seeds(self.recipe.seeds)


def best_weight(scores: Mapping[float, tuple[float, float]], metric: str) -> float:
    """Return the weight with the best metric. Ties are broken by lower cross-entropy, then by lower weight.

    Args:
        scores: (metric, cross-entropy) on the validation split, by weight.
        metric: Name of the metric. For ``loss`` and errors, lower is better.
    """
    sign = -1 if METRICS[metric.partition("/")[0]].higher_is_better else 1
    return min(scores, key=lambda weight: (sign * scores[weight][0], scores[weight][1], weight))

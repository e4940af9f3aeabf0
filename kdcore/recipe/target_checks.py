"""Checks of a recipe against the target of its dataset: components that read class labels, and weights of samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from kdcore.contracts.schedule import Stage
from kdcore.contracts.target import IN_WORDS, METRICS, Target
from kdcore.contracts.training import Training
from kdcore.errors import PluginError
from kdcore.plugin.facts import ComponentFacts, component_facts
from kdcore.plugin.registry import Registry
from kdcore.recipe.models import Recipe
from kdcore.recipe.schedule_checks import place_in_schedule

PlacedProblems = Iterator[tuple[str, str, str]]
"""Path in the recipe, problem, hint."""


def target_problems(recipe: Recipe, target: Target | None, facts_at: Callable[[str], ComponentFacts | None]) -> PlacedProblems:
    """Options of a recipe that a target other than ``classes`` rules out.

    Args:
        recipe: The recipe.
        target: The dataset's; None if it is unknown, and nothing is checked.
        facts_at: Facts about the component at a path of the recipe.
    """
    if target is None or target.is_classes:
        return
    but_target = f"but the dataset's target is {target.kind!r} ({IN_WORDS[target.kind]})"
    for path, what, is_set in (
        ("data.sampler", "'balanced' draws every class equally often", recipe.data.sampler == "balanced"),
        ("data.label_noise", "label noise replaces a class by another", recipe.data.label_noise > 0),
        ("class_embeddings", "class embeddings belong to classes", recipe.class_embeddings is not None),
    ):
        if is_set:
            yield path, f"{what}, {but_target}", f"leave out '{path}'"
    named = [("data.protocol", recipe.data.protocol), ("fusion", recipe.fusion)]
    networks = [(name, spec) for name, spec in recipe.participants.items() if spec.is_network]
    named += [(f"{recipe.path_of(name)}.encoder", spec.encoder) for name, spec in networks]
    for path, component in named:
        facts = facts_at(path) if component else None
        if component and facts and facts.targets is not None and target.kind not in facts.targets:
            kinds = " and ".join(map(repr, facts.targets))
            yield path, f"{component.name!r} with these options is for the target {kinds}, {but_target}", ""


def loss_problems(
    name: str, facts: ComponentFacts, target: Target, weighted: bool, registry: Registry
) -> Iterator[tuple[str, str]]:
    """Problems of the loss `name` with a target and with weights of samples: problem, hint.

    Args:
        name: Of the loss.
        facts: Of the loss with its options.
        target: The dataset's.
        weighted: Whether the dataset gives weights.
        registry: Knows the losses that would do.
    """
    labels = bool(facts.needs and facts.needs.labels)
    targets = facts.targets or ("classes",)
    if target.kind not in targets:
        does = "learns from labels of" if labels else "is for"
        what = f"the loss {name!r} with these options {does} the target {' and '.join(map(repr, targets))}"
        but_target = f"but the dataset's target is {target.kind!r} ({IN_WORDS[target.kind]})"
        yield f"{what}, {but_target}", _alternatives(registry, lambda each: target.kind in (each.targets or ()), facts)
    elif weighted and labels and not facts.sample_weights:
        use = _alternatives(registry, lambda each: target.kind in (each.targets or ()) and each.sample_weights, facts)
        what = f"the loss {name!r} ignores the weights that the dataset gives its samples"
        yield what, f"{use}, or leave out the weights" if use else "leave out the weights"


def _alternatives(registry: Registry, wanted: Callable[[ComponentFacts], bool], replaced: ComponentFacts) -> str:
    """Suggest losses whose class is `wanted` and that read what the replaced loss reads: labels, teachers' logits."""
    names, labels = [], bool(replaced.needs and replaced.needs.labels)
    distils = bool(replaced.needs and replaced.needs.teachers)
    for entry in registry.entries("loss"):
        try:
            facts = component_facts(entry)
        except PluginError:
            continue
        needs = facts.needs
        if needs is None or needs.student_taps or needs.peers or bool(needs.teachers) != distils or not wanted(facts):
            continue
        if needs.labels == labels or (distils and labels):
            names.append(entry.name)
    return f"use {' or '.join(map(repr, names))}" if names else ""


def metric_problems(recipe: Recipe, target: Target | None, stages: Iterable[Stage]) -> PlacedProblems:
    """Trainings that follow a metric which the target does not have; none if the target is unknown."""
    if target is None:
        return
    trainings: list[tuple[str, Training]] = [
        (f"{recipe.path_of(name)}.training", spec.training) for name, spec in recipe.participants.items() if spec.training
    ]
    trainings += [(place_in_schedule(recipe, stage.name), stage.training) for stage in stages]
    for path, training in dict(trainings).items():
        stopping, rate = training.early_stopping, training.learning_rate
        since = f"since the dataset's target is {target.kind!r}"
        if stopping and stopping.metric not in ("loss", target.primary):
            what = f"there is no {METRICS[stopping.metric].title} to stop by, {since}"
            yield f"{path}.early_stopping.metric", what, f"use {target.primary!r} or 'loss'"
        if rate.name == "plateau" and rate.monitor == "validation-accuracy" and not target.is_classes:
            yield f"{path}.learning_rate.monitor", f"there is no accuracy to follow, {since}", "use 'validation-loss'"

"""Classification layers: found for losses that read them, and copied to learners that reuse their teacher's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from kdcore.contracts.batch import Batch, LossContext, Outputs
from kdcore.errors import RecipeError
from kdcore.recipe.plan import DISTILLED, Plan
from kdcore.training.participants import Distiller


def find_classifiers(plan: Plan, distiller: Distiller, batch: Batch, arm: str) -> tuple[list[str], list[str]]:
    """Find the classifiers that an arm needs, and freeze those of learners that reuse their teacher's (``classifier_from``).

    Returns:
        The participants whose classifiers were found, and notes for the run.

    Raises:
        RecipeError: If a network has no linear classifier, or a learner's has another shape than the one it reuses.
    """
    readers: dict[str, tuple[str, str]] = {}  # participant → path in the recipe, and who reads its classifier
    for name in distiller.networks:
        for term in plan.participants[name].terms_in(arm):
            if term.needs.classifiers:
                sources = (*term.teachers, *term.peers) if arm == DISTILLED else ()
                reader = term.path, f"the loss {term.term.name!r} reads the classifier of"
                readers |= dict.fromkeys((name, *sources), reader)
    reused = {
        name: each.spec.classifier_from
        for name, each in plan.participants.items()
        if each.spec.classifier_from and arm == DISTILLED
    }
    for name, source in reused.items():
        reader = f"{plan.recipe.path_of(name)}.classifier_from", f"{name} uses the classifier of"
        readers |= dict.fromkeys((name, source, *distiller.followers(name)), reader)
    for name, (path, what) in readers.items():
        if distiller.participant(name).find_classifier(batch.signals[name]) is None:
            what = f"{what} {name}, but no linear layer of its encoder gives its logits as they are"
            raise RecipeError([plan.recipe.problem(path, what)])
    for name, source in reused.items():
        _freeze(plan, distiller, name, source)
    distiller.reused.update(reused)
    notes = [
        f"{name}: uses the classifier of {source}; without distillation it trains its own" for name, source in reused.items()
    ]
    return list(readers), notes


def with_classifier(distiller: Distiller, name: str, outputs: Outputs) -> Outputs:
    """Add the classifier of participant `name` to its outputs."""
    return replace(outputs, classifier=distiller.participant(name).classifier)


def with_classifiers(distiller: Distiller, learner: str, context: LossContext) -> LossContext:
    """Add the classifiers of the learner and its sources to a context; only the learner's is differentiable."""

    def read(group: Mapping[str, Outputs]) -> dict[str, Outputs]:
        return {name: with_classifier(distiller, name, each).detach() for name, each in group.items()}

    student = with_classifier(distiller, learner, context.student)
    return replace(context, student=student, teachers=read(context.teachers), peers=read(context.peers))


@torch.no_grad()
def copy_classifiers(distiller: Distiller, learners: Sequence[str]) -> None:
    """Copy the current classifier weights of their teachers to `learners` that reuse them, and to their moving averages."""
    for learner in learners:
        source = distiller.participant(distiller.reused[learner]).classifier if learner in distiller.reused else None
        if source is None:
            continue
        for name in (learner, *distiller.followers(learner)):
            layer = distiller.participant(name).last_layer[0]
            layer.weight.copy_(source.weight)
            if layer.bias is not None:
                layer.bias.copy_(source.bias)


def _freeze(plan: Plan, distiller: Distiller, name: str, source: str) -> None:
    """Freeze the classifier of `name`, which will hold the weights of that of `source`; refuse it if shapes differ."""
    layer, reused = (distiller.participant(each).last_layer[0] for each in (name, source))
    what, features, wrong, hint = f"the classifier of {source}", reused.in_features, "", ""
    if layer.in_features != features:
        wrong = f"{what} reads {features} features, but that of {name} {layer.in_features}"
        hint = f"add a layer with {features} outputs before it, such as an encoder's option 'embedding' or 'projector'"
    elif layer.bias is None and reused.bias is not None:
        wrong = f"{what} has a bias, but that of {name} has none"
    elif distiller.participant(source).known_classes is not None:
        wrong = f"{what} does not know all classes of the run"
    if wrong:
        raise RecipeError([plan.recipe.problem(f"{plan.recipe.path_of(name)}.classifier_from", wrong, hint)])
    layer.requires_grad_(False)

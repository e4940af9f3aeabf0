"""Trained weights that other participants start from."""

from __future__ import annotations

from collections.abc import Sequence

from kdcore.errors import RecipeError
from kdcore.recipe.plan import Plan
from kdcore.training.participants import Distiller


def find_origins(plan: Plan, distiller: Distiller) -> list[str]:
    """Record the participant that each learner of an arm starts from.

    Returns:
        Notes for the run.

    Raises:
        RecipeError: If the two encoders do not have the same weights by name and shape, or not the same classes.
    """
    notes = []
    for name in distiller.networks:
        source = plan.participants[name].spec.starts_from
        if source is None or source not in distiller.networks:
            continue
        if wrong := _difference(distiller, name, source):
            raise RecipeError([plan.recipe.problem(f"{plan.recipe.path_of(name)}.starts_from", wrong)])
        distiller.origins[name] = source
        if plan.participants[name].spec.is_copy:
            notes.append(f"{name}: the trained network of {source}, evaluated with its own transforms")
            continue
        more = plan.extra_epochs.get(name)
        without = f"; without distillation it starts from its own and is trained for {more} epochs more" if more else ""
        notes.append(f"{name}: starts from the weights of {source}{without}")
    return notes


def _difference(distiller: Distiller, name: str, source: str) -> str:
    """First difference between two encoders in names and shapes of weights, or in classes; empty if there is none."""
    weights, origin = (distiller.participant(each).encoder.state_dict() for each in (name, source))
    for key in dict.fromkeys((*origin, *weights)):
        first, second = (
            f"has the shape {tuple(state[key].shape)}" if key in state else "does not exist" for state in (weights, origin)
        )
        if first != second:
            return f"{key!r} of {name!r} {first}, and that of {source!r} {second}"
    if distiller.participant(source).known_classes is not None:
        return f"the network of {source!r} does not know all classes of the run"
    return ""


def copy_origins(distiller: Distiller, learners: Sequence[str]) -> None:
    """Copy the current weights of their origins to `learners`, and to the moving averages that follow them.

    Args:
        distiller: All participants of the arm.
        learners: Those that start now, or copies of networks whose training has ended.
    """
    for learner in learners:
        if learner in distiller.origins:
            weights = distiller.participant(distiller.origins[learner]).encoder.state_dict()
            for name in (learner, *distiller.followers(learner)):
                distiller.participant(name).encoder.load_state_dict(weights)

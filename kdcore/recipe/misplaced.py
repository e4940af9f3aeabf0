"""Suggestions for keys that are valid elsewhere in the recipe than where they were written."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from kdcore.contracts.training import LearningRate, Training
from kdcore.plugin.manager import PluginManager
from kdcore.recipe.components import Known, known_components
from kdcore.recipe.config_models import EngineSpec, ParticipantSpec, TrackingSpec
from kdcore.recipe.data_models import DataSpec, WindowSpec
from kdcore.recipe.problems import fields_of
from kdcore.recipe.yaml import Steps, dotted

_SECTIONS: tuple[tuple[Steps, type], ...] = (
    (("data",), DataSpec),
    (("training",), Training),
    (("engine",), EngineSpec),
    (("tracking",), TrackingSpec),
    (("student",), ParticipantSpec),
    (("training", "learning_rate"), LearningRate),
    (("data", "window"), WindowSpec),
)


class Misplaced:
    """Finds where an unknown key would be valid: as an option of a component that the recipe uses, or in a section."""

    def __init__(self, tree: Mapping[str, Any], plugins: PluginManager, top: frozenset[str]):
        self.tree, self.plugins, self.top = tree, plugins, top

    def hint(self, path: Steps) -> str:
        """Suggest the place where the key at `path` is valid; empty if it is valid nowhere else."""
        key = str(path[-1])
        if takers := [each for each in self._components if key in each.fields and each.path != path[:-1]]:
            near = min(takers, key=lambda each: _distance(each.path, path))
            of = f"{near.kind.replace('_', ' ')} {near.name!r}"
            return f"did you mean {dotted((*near.path, key))!r}, an option of the {of}?"
        place = next((place for place, model in _SECTIONS if key in fields_of(model) and place != path[:-1]), None)
        if place is None and key in self.top and len(path) > 1:
            place = ()
        return "" if place is None else f"did you mean {dotted((*place, key))!r}{'' if place else ', at the top level'}?"

    @cached_property
    def _components(self) -> list[Known]:
        return list(known_components(self.tree, self.plugins))


def _distance(place: Steps, path: Steps) -> tuple[int, bool]:
    """The less, the more of its path a component shares with a key; teachers' objectives go with keys of teachers."""
    shared = next((n for n, (one, other) in enumerate(zip(place, path, strict=False)) if one != other), len(place))
    return -shared, (place[0] == "teacher_losses") != (path[0] == "teachers")

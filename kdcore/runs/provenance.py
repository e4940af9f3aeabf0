"""Provenance of a run: the recordings, files, versions and code that its results depend on, apart from the recipe."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from kdcore.cache import cache_folder
from kdcore.data.fingerprint import UnidentifiedError
from kdcore.data.preparation import recordings_fingerprint
from kdcore.data.splits import usable_samples
from kdcore.plugin.code_files import code_hash
from kdcore.plugin.manager import PluginManager, plugin_manager
from kdcore.recipe.build import Builder, factories_used, versions_used
from kdcore.recipe.models import Recipe
from kdcore.recipe.named_files import DIGITS, file_hashes
from kdcore.runs.journal import changed_keys

if TYPE_CHECKING:
    from kdcore.runs.records import Facts

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Provenance:
    """The current state of everything that a run of a recipe depends on.

    Args:
        fingerprint: Fingerprint of the recordings; ``unknown`` if kdcore cannot identify them.
        files: Hashes of files that the recipe names, such as pretrained weights, by path in the recipe.
        versions: Versions of kdcore and of the plugins that the recipe uses, by name.
        code: Hashes of the source files of kdcore and these plugins, by package.
    """

    fingerprint: str
    files: Mapping[str, str]
    versions: Mapping[str, str]
    code: Mapping[str, str]

    @property
    def digest(self) -> str:
        """Hash of all fields."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def changes_since(self, facts: Facts | Provenance) -> list[str]:
        """Return reasons why results with these facts would not be reproduced now; empty if nothing has changed."""
        reasons = []
        if self.fingerprint == UNKNOWN:
            reasons.append("the recordings cannot be identified")
        elif facts.fingerprint != self.fingerprint:
            reasons.append(
                f"the recordings have changed (fingerprint {facts.fingerprint[:DIGITS]}, now {self.fingerprint[:DIGITS]})"
            )
        reasons += [f"the file at {place} has changed" for place in sorted(changed_keys(facts.files, self.files))]
        before = {name: number for name, number in facts.versions.items() if name in self.versions or _is_ours(name)}
        for name in changed_keys(before, self.versions):
            reasons.append(f"{name} was {before.get(name, 'not used')}, now {self.versions.get(name, 'not used')}")
        same = [name for name in self.code if before.get(_version_key(name)) == self.versions.get(_version_key(name))]
        reasons += [f"the code of {_version_key(name)} has changed" for name in same if facts.code.get(name) != self.code[name]]
        return reasons


def _is_ours(name: str) -> bool:
    return name == "kdcore" or name.startswith("plugin ")


def _version_key(name: str) -> str:
    """Return the key in `Facts.versions` for a key of `Facts.code`. A factory has no version and is returned unchanged."""
    return name if name == "kdcore" or ":" in name else f"plugin {name}"


def provenance_of(recipe: Recipe) -> Provenance:
    """Return the provenance of a run of `recipe` now. Recordings are listed and hashed, but not decoded.

    Raises:
        DataError: If the recordings cannot be listed.
    """
    from kdcore import __version__

    plugins = plugin_manager()
    builder = Builder(recipe, plugins)
    with builder.locating_data_errors():
        dataset = builder.dataset()
        samples = usable_samples(recipe, dataset)
        try:
            fingerprint = recordings_fingerprint(dataset, samples, recipe.filled_data, cache_folder())
        except UnidentifiedError:
            fingerprint = UNKNOWN
    used = versions_used(recipe, plugins)
    versions = {"kdcore": __version__, **{f"plugin {name}": number for name, number in sorted(used.items())}}
    return Provenance(fingerprint, named_files(recipe.filled()), versions, code_hashes(recipe, list(used), plugins))


def code_hashes(recipe: Recipe, used: Sequence[str], plugins: PluginManager) -> dict[str, str]:
    """Return hashes of the code of kdcore, of plugins by name, and of factories by ``module:factory``; see `code_hash`."""
    modules = {"kdcore": "kdcore", **{name: plugins.plugins[name].module for name in sorted(used)}}
    for factory in factories_used(recipe):
        modules[factory] = factory.partition(":")[0]
        recipe.registry.get("encoder", factory).load()  # code_hash looks it up among the loaded modules
    hashes = {name: code_hash(module)[:DIGITS] for name, module in modules.items()}
    return {name: found for name, found in hashes.items() if found}


def named_files(filled: Mapping[str, Any]) -> dict[str, str]:
    """Return hashes of the files that a filled recipe names, by path in the recipe, without recordings and plugins."""
    tree = {key: value for key, value in filled.items() if key not in ("plugins", *Recipe.NO_CONFIGURATION)}
    tree["data"] = {key: value for key, value in tree["data"].items() if key != "dataset"}
    return file_hashes(tree)

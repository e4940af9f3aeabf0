"""Provenance of a run: the recordings, files, versions and code that its numbers depend on besides the recipe."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdcore.cache import cache_folder
from kdcore.data.fingerprint import UnidentifiedError
from kdcore.data.preparation import listed_samples, recordings_fingerprint
from kdcore.data.splits import complete_samples
from kdcore.plugin.manager import PluginManager, plugin_manager
from kdcore.recipe.build import Builder, factories_used, versions_used
from kdcore.recipe.models import Recipe
from kdcore.training.trained_teachers import package_home, source_hash

if TYPE_CHECKING:
    from kdcore.runs.records import Facts

DIGITS = 12
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Provenance:
    """Everything that a run of a recipe depends on, as of now.

    Args:
        fingerprint: Identity of the recordings; ``unknown`` if kdcore cannot identify them.
        files: Place in the recipe → hash of the file that it names, such as pretrained weights.
        versions: Version of kdcore and of every plugin that the recipe uses.
        code: Package → hash of its source files, for kdcore and the same plugins.
    """

    fingerprint: str
    files: Mapping[str, str]
    versions: Mapping[str, str]
    code: Mapping[str, str]

    @property
    def digest(self) -> str:
        """A hash of all of it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def changes_since(self, facts: Facts | Provenance) -> list[str]:
        """Reasons why results with these facts are not results of today's recipe; empty if they are."""
        reasons = []
        if self.fingerprint == UNKNOWN:
            reasons.append("the recordings cannot be identified")
        elif facts.fingerprint != self.fingerprint:
            reasons.append(
                f"the recordings have changed (fingerprint {facts.fingerprint[:DIGITS]}, now {self.fingerprint[:DIGITS]})"
            )
        changed = sorted(place for place in {*facts.files, *self.files} if facts.files.get(place) != self.files.get(place))
        reasons += [f"the file at {place} has changed" for place in changed]
        before = {name: number for name, number in facts.versions.items() if name in self.versions or _is_ours(name)}
        for name in dict.fromkeys([*before, *self.versions]):
            then, now = before.get(name, "not used"), self.versions.get(name, "not used")
            if then != now:
                reasons.append(f"{name} was {then}, now {now}")
        same = [name for name in self.code if before.get(_version_key(name)) == self.versions.get(_version_key(name))]
        reasons += [f"the code of {_version_key(name)} has changed" for name in same if facts.code.get(name) != self.code[name]]
        return reasons


def _is_ours(name: str) -> bool:
    return name == "kdcore" or name.startswith("plugin ")


def _version_key(name: str) -> str:
    """The key in `Facts.versions` of a package in `Facts.code`; a factory has no version and stays as it is."""
    return name if name == "kdcore" or ":" in name else f"plugin {name}"


def provenance_of(recipe: Recipe) -> Provenance:
    """The provenance that a run of `recipe` would have now. Lists and hashes the recordings; reads none.

    Raises:
        DataError: If the recordings cannot be listed.
    """
    from kdcore import __version__

    plugins = plugin_manager()
    builder = Builder(recipe, plugins)
    with builder.locating_data_errors():
        dataset = builder.dataset()
        listed, _ = listed_samples(dataset, recipe.data.on_bad_sample)
        samples, _ = complete_samples(listed, recipe.modalities, recipe.data.missing, recipe.student_modalities)
        try:
            fingerprint = recordings_fingerprint(dataset, samples, recipe.filled_data, cache_folder())
        except UnidentifiedError:
            fingerprint = UNKNOWN
    used = versions_used(recipe, plugins)
    versions = {"kdcore": __version__, **{f"plugin {name}": number for name, number in sorted(used.items())}}
    return Provenance(fingerprint, named_files(recipe), versions, code_hashes(recipe, list(used), plugins))


def code_hashes(recipe: Recipe, used: Sequence[str], plugins: PluginManager) -> dict[str, str]:
    """Package → hash of its source files: of kdcore, of plugins by their names, and of each factory by its own."""
    modules = {"kdcore": "kdcore", **{name: plugins.plugins[name].module for name in sorted(used)}}
    for factory in factories_used(recipe):
        modules[factory] = factory.partition(":")[0]
        recipe.registry.get("encoder", factory).load()  # its home is found among the modules that are loaded
    homes = {name: package_home(module) for name, module in modules.items()}
    return {name: source_hash(home)[:DIGITS] for name, home in homes.items() if home}


def named_files(recipe: Recipe) -> dict[str, str]:
    """Place in the recipe → hash of the file there. Recordings and plugins are identified elsewhere and left out."""
    tree = {key: value for key, value in recipe.filled().items() if key not in ("plugins", *Recipe.NO_CONFIGURATION)}
    tree["data"] = {key: value for key, value in tree["data"].items() if key != "dataset"}
    found = {}
    for place, value in _texts(tree):
        path = Path(value).expanduser()
        if len(value) < 4096 and "\0" not in value and path.is_file():
            with open(path, "rb") as file:
                found[place] = hashlib.file_digest(file, "sha256").hexdigest()[:DIGITS]
        elif place.endswith(".weights.file") and path.is_dir():
            found[place] = _hash_of_folder(path)
    return found


def _hash_of_folder(folder: Path) -> str:
    """A hash of the names and contents of the files of a folder, not of those below."""
    whole = hashlib.sha256()
    for file in sorted(each for each in folder.iterdir() if each.is_file()):
        with open(file, "rb") as opened:
            whole.update(file.name.encode() + hashlib.file_digest(opened, "sha256").digest())
    return whole.hexdigest()[:DIGITS]


def _texts(values: Any, place: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(values, str):
        yield place, values
    elif isinstance(values, Mapping | list):
        for key, value in values.items() if isinstance(values, Mapping) else enumerate(values):
            yield from _texts(value, f"{place}.{key}" if place else str(key))

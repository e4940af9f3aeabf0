"""Scaffolding of a new plugin: a package with a working component, tests, and a recipe that uses it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

import kdcore
from kdcore import API_VERSION, UsageError, __version__, did_you_mean, plugin_manager
from kdcore_devtools.example_recordings import recordings

TEMPLATES = Path(__file__).parent / "templates"
SUFFIX = ".jinja"

USAGE = {
    "loss": "losses: [cross-entropy, {name: <name>, weight: 0.5}]",
    "encoder": "student: {modality: accelerometer, encoder: {name: <name>, width: 32}}",
    "fusion": "fusion: {name: <name>, share: 0.5}",
    "schedule": "schedule: {name: <name>, teachers: {epochs: 30}, student: {epochs: 40}}",
    "dataset": "data: {dataset: {name: <name>, root: recordings}, protocol: cross-subject}",
    "transform": "student: {transforms: [{name: <name>, width: 5}]}",
    "modality": "student: {modality: <name>}",
}
"""Example of a component in a recipe, by kind. These are the kinds with templates."""

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_RENAMED = {"github": ".github", "gitignore": ".gitignore"}


@dataclass(frozen=True)
class NewPlugin:
    """Names of a new plugin.

    Args:
        kind: Kind of its component.
        name: Name of the plugin and its component.

    Raises:
        UsageError: If there is no template for the kind, or the name is invalid.
    """

    kind: str
    name: str

    def __post_init__(self) -> None:
        if self.kind not in USAGE:
            raise UsageError(f"there is no template for the kind {self.kind!r} ({did_you_mean(self.kind, USAGE)})")
        if not _NAME.fullmatch(self.name) or self.name.startswith("kdcore-"):
            raise UsageError(
                f"{self.name!r} is not a valid plugin name: use lowercase letters, digits and single hyphens, a letter first, "
                f"such as 'soft-margin'; the package is called kdcore-NAME"
            )
        self._refuse_taken()

    def _refuse_taken(self) -> None:
        manager = plugin_manager()
        plugin = manager.plugins.get(self.name)
        taken = f"plugin {self.name!r} already ({plugin.target})" if plugin else ""
        for entry in manager.registry.entries(self.kind):
            if entry.name == self.name:
                taken = f"{self.kind} {self.name!r} already, from the plugin {entry.plugin!r}"
        if taken:
            raise UsageError(f"there is a {taken}; choose another name")
        if self.object in kdcore.__all__:
            raise UsageError(
                f"the class would be called {self.object}, like one of kdcore's own; choose another name than {self.name!r}"
            )

    @property
    def package(self) -> str:
        """Name of the package on PyPI, and of its folder."""
        return f"kdcore-{self.name}"

    @property
    def module(self) -> str:
        """Name of the Python module."""
        return self.package.replace("-", "_")

    @property
    def object(self) -> str:
        """Name of the component class, or of the constant for a modality."""
        words = self.name.split("-")
        if self.kind == "modality":
            return "_".join(words).upper()
        return "".join(word.capitalize() for word in (words[:-1] if words[-1] == self.kind else words)) + self.kind.capitalize()

    def values(self) -> Mapping[str, object]:
        """Values for the templates."""
        return {
            "kind": self.kind,
            "article": "an" if self.kind[0] in "aeiou" else "a",
            "name": self.name,
            "package": self.package,
            "module": self.module,
            "object": self.object,
            "stem": self.kind,
            "file": f"{self.kind}.py",
            "api": API_VERSION,
            "minor": ".".join(__version__.split(".")[:2]),
            "usage": USAGE[self.kind].replace("<name>", self.name),
        }

    def files(self) -> Iterator[tuple[Path, str]]:
        """Return the content of all files, by path in the package folder."""
        environment = Environment(
            loader=FileSystemLoader(TEMPLATES),
            variable_start_string="<<",  # GitHub workflows contain braces themselves
            variable_end_string=">>",
            undefined=StrictUndefined,
            keep_trailing_newline=True,
            autoescape=False,
        )
        for folder in ("common", self.kind):
            for template in sorted((TEMPLATES / folder).rglob(f"*{SUFFIX}")):
                parts = template.relative_to(TEMPLATES / folder).with_suffix("").parts
                place = Path(*(self.module if part == "package" else _RENAMED.get(part, part) for part in parts))
                yield place, environment.get_template(template.relative_to(TEMPLATES).as_posix()).render(self.values())
        if self.kind == "dataset":
            yield from recordings(Path("recordings"))


def new_plugin(kind: str, name: str, to: Path = Path()) -> Path:
    """Create a new plugin in a new folder below `to`.

    Args:
        kind: loss, encoder, fusion, schedule, dataset, transform or modality.
        name: Name of the plugin and its component, e.g. ``soft-margin``; the package is ``kdcore-soft-margin``.
        to: An existing folder.

    Returns:
        The new folder.

    Raises:
        UsageError: If the name is invalid or in use, or the folder exists.
    """
    plugin = NewPlugin(kind, name)
    folder = to / plugin.package
    if not to.is_dir():
        raise UsageError(f"{to} is not a folder" if to.exists() else f"{to}: no such folder; create it first")
    if folder.exists():
        raise UsageError(f"{folder} already exists; nothing was written")
    for place, content in plugin.files():
        file = folder / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")
    return folder

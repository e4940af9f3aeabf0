"""Writes a page for every kind of component, from what components say of themselves: docstrings, type hints, defaults."""

from __future__ import annotations

import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

from kdcore.plugin.docstring import without_sections
from kdcore.plugin.manager import found_plugins
from kdcore.plugin.option_schema import Description, Option, describe
from kdcore.plugin.registry import KINDS, Entry

_MATH_BLOCK = re.compile(r"^\.\. math::[ \t]*(.*(?:\n[ \t]+.*|\n(?=\n[ \t]))*)", re.MULTILINE)
_MATH = re.compile(r":math:`([^`]+)`")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    for kind, plural in KINDS.items():
        files.append(File.generated(config, f"components/{plural}.md", content=page(kind)))
    return files


def page(kind: str) -> str:
    """All components of a kind that come with kdcore."""
    plugins, registry = found_plugins().plugins, found_plugins().registry
    shipped = [entry for entry in registry.entries(kind) if plugins[entry.plugin].distribution == "kdcore"]
    title = KINDS[kind].replace("_", " ").capitalize()
    intro = f"What `kdcore list {KINDS[kind].replace('_', '-')}` lists, as `kdcore describe NAME` shows it."
    return "\n\n".join([f"# {title}", intro, *(section(entry) for entry in shipped)]) + "\n"


def section(entry: Entry) -> str:
    """One component."""
    found = describe(entry)
    _refuse_undocumented(found)
    text = re.sub(r"^(\w+: )", r"- \1", found.doc, flags=re.MULTILINE) if entry.kind == "modality" else _text(found.doc)
    parts = [f"## {entry.name}", f"From the plugin `{entry.plugin}`.", text]
    if found.options:
        rows = [
            f"| `{each.name}` | {_cell(each.type)} | {_default(each)} | {_maths(_cell(each.description))} |"
            for each in found.options
        ]
        parts.append("\n".join(["| option | type | default | meaning |", "|---|---|---|---|", *rows]))
    return "\n\n".join(parts)


def _refuse_undocumented(found: Description) -> None:
    missing = [] if found.doc else ["docstring"]
    missing += [f"meaning of {option.name}" for option in found.options if not option.description]
    if missing:
        raise PluginError(f"the {found.kind} {found.name!r} has no {', no '.join(missing)}")


def _default(option: Option) -> str:
    return "required" if option.required else f"`{_cell(option.default)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _text(doc: str) -> str:
    return _maths(without_sections(doc, "Args", "Raises", "Returns", "Attributes"))


def _maths(text: str) -> str:
    blocks = _MATH_BLOCK.sub(lambda found: "\n\\[\n" + " ".join(found[1].split()) + "\n\\]\n", text)
    return _MATH.sub(r"\\(\1\\)", blocks)

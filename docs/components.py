"""Writes a page for every kind of component, from what components say of themselves: docstrings, type hints, defaults."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from itertools import product
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

from kdcore import KdcoreError, Needs
from kdcore.plugin.docstring import without_sections
from kdcore.plugin.facts import component_facts
from kdcore.plugin.manager import found_plugins
from kdcore.plugin.option_schema import Description, Option, describe
from kdcore.plugin.registry import KINDS, Entry
from kdcore.testing import Case
from kdcore.testing.loss_inputs import Shapes, plausible

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
    intro = f"All {title.lower()} that come with kdcore. `kdcore describe NAME` shows the same in the terminal."
    return "\n\n".join([f"# {title}", intro, *(section(entry) for entry in shipped)]) + "\n"


def section(entry: Entry) -> str:
    """One component."""
    found = describe(entry)
    _refuse_undocumented(entry, found)
    text = re.sub(r"^(\w+: )", r"- \1", found.doc, flags=re.MULTILINE) if entry.kind == "modality" else _text(found.doc)
    parts = [f"## {entry.name}", f"From the plugin `{entry.plugin}`.", text]
    if found.options:
        rows = [
            f"| `{each.name}` | {_cell(each.type)} | {_default(each)} | {_maths(_cell(each.description))} |"
            for each in found.options
        ]
        parts.append("\n".join(["| option | type | default | meaning |", "|---|---|---|---|", *rows]))
    if entry.kind == "loss":
        needs = component_facts(entry, {}).needs if not any(each.required for each in found.options) else None
        if needs and needs.forward_passes:
            parts.append(
                "It [runs networks](../losses.md#run-networks-on-other-inputs), so use it in a recipe or in `kdcore.distil`."
            )
        else:
            parts.append(f"With your own tensors ([more](../python.md#losses-on-tensors)):\n\n```python\n{usage(entry)}\n```")
    return "\n\n".join(parts)


def usage(entry: Entry) -> str:
    """Lines of Python that call a loss with tensors; they have been run."""
    module = f"{entry.target.partition(':')[0].partition('.')[0]}.conformance"
    cases = import_module(module).cases if find_spec(module) else {}
    case = cases.get(entry.name, Case())
    case = case[0] if isinstance(case, list) else case
    assert not callable(case.options)
    required = {each.name: case.options[each.name] for each in describe(entry).options if each.required}
    for options in (required, dict(case.options)):
        needs = component_facts(entry, options).needs
        assert needs is not None
        # the shortest call that works
        for shapes, set_up, index in product(plausible(needs, case.inputs or {}), (False, True), (False, True)):
            text = _call(entry, options, needs, shapes, set_up, index)
            with suppress(KdcoreError, ValueError, RuntimeError, IndexError):
                exec(text, {})
                return text
    raise PluginError(f"the loss {entry.name!r} could be called with none of the usual activations; give a case of it")


def _classified(name: str, taps: Mapping[str, tuple[int, ...]], learns: bool) -> str:
    """A network that averages its first tap over positions and classifies the mean."""
    tap, shape = next(iter(taps.items()))
    x, layer, grad = f"{name}_map", f"{name}_layer", ", requires_grad=True" if learns else ""
    return "\n".join(
        [
            f"{x} = torch.randn({', '.join(map(str, (8, *shape)))}{grad})",
            f"{layer} = torch.nn.Linear({shape[0]}, 5)",
            f"{name} = kdcore.Outputs(",
            f'    {layer}({x}.flatten(2).mean(2)), {{"{tap}": {x}}},',
            f"    classifier=kdcore.Classifier({layer}.weight, {layer}.bias),",
            ")",
        ]
    )


def _call(entry: Entry, options: dict[str, Any], needs: Needs, shapes: Shapes, set_up: bool, index: bool) -> str:
    """A call with random outputs of networks: 8 samples, 5 classes."""

    def drawn(taps: Mapping[str, tuple[int, ...]], rows: int, learns: bool = False) -> str:
        def tensor(*shape: int) -> str:
            return f"torch.randn({', '.join(map(str, (rows, *shape)))}{', requires_grad=True' if learns else ''})"

        found = ", ".join(f'"{tap}": {tensor(*shape)}' for tap, shape in taps.items())
        return f"kdcore.Outputs({tensor(5)}, {{{found}}})" if taps or needs.ablated else tensor(5)

    def outputs(name: str, taps: Mapping[str, tuple[int, ...]], learns: bool = False) -> str:
        if needs.classifiers:
            return _classified(name, taps or {"features": (6, 4)}, learns)
        said = f"{name} = {drawn(taps, 8, learns)}"
        if needs.ablated:  # the outputs for an input of zeros
            rows = 8 if learns and needs.ablated == "mixed" else 1
            said = f"{said.removesuffix(')')},\n    ablated={drawn(taps, rows)},\n)"
        return said

    lines = ["import torch, kdcore", "", outputs("student", shapes.student, learns=True)]
    arguments, first = ["student"], outputs("teacher", shapes.teacher)
    if needs.teachers:
        lines.append(first)
        arguments.append("teacher")
    if needs.teachers > 1:
        lines.append(outputs("other", shapes.teacher))
        arguments[1] = '{"one": teacher, "two": other}'
    if needs.labels:
        targets = component_facts(entry, options).targets or ("classes",)
        several = "torch.randint(2, (8, 5)).float()" if "labels" in targets else "torch.randn(8, 5)"
        lines.append(f"labels = {'torch.randint(5, (8,))' if 'classes' in targets else several}")
        arguments.append("labels" if needs.teachers else "labels=labels")
    if needs.peers:
        lines.append(outputs("peer", shapes.student))
        arguments.append("peers=peer")
    if needs.class_embeddings:
        lines.append("embeddings = torch.randn(5, 8)")
        arguments.append("class_embeddings=embeddings")
    told = "".join(f", {name}={value!r}" for name, value in options.items())
    lines.append(f'loss = kdcore.loss("{entry.name}"{told})')
    if set_up:
        networks = ", ".join(arguments[: 1 + bool(needs.teachers)])
        lines.append(f"loss.setup({networks})  # it has parameters: before the optimizer is made")
    if index:
        arguments.append("index=torch.arange(8)")
    return "\n".join([*lines, f"loss({', '.join(arguments)})"])


def _refuse_undocumented(entry: Entry, found: Description) -> None:
    missing = [] if found.doc else ["docstring"]
    missing += [f"meaning of {option.name}" for option in found.options if not option.description]
    if missing:
        raise PluginError(f"the {entry.kind} {entry.name!r} has no {', no '.join(missing)}")


def _default(option: Option) -> str:
    return "required" if option.required else f"`{_cell(option.default)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _text(doc: str) -> str:
    return _maths(without_sections(doc, "Args", "Raises", "Returns", "Attributes"))


def _maths(text: str) -> str:
    blocks = _MATH_BLOCK.sub(lambda found: "\n\\[\n" + " ".join(found[1].split()) + "\n\\]\n", text)
    return _MATH.sub(r"\\(\1\\)", blocks)

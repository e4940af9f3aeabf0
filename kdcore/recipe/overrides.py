"""Overrides on the command line: ``losses.gsdm.weight=0.1``."""

from __future__ import annotations

from collections.abc import Sequence

from kdcore.errors import COMMAND_LINE, Problem, RecipeError
from kdcore.recipe.merge import TEXTS, find_entry, labels_of, merge, merge_recipes
from kdcore.recipe.yaml import Node, Steps, dotted, parse, steps
from kdcore.suggestions import did_you_mean


def apply_overrides(root: Node, overrides: Sequence[str], problems: list[Problem]) -> Node:
    """Return `root` with every override applied.

    Names of components are applied first, whatever the order, since another name drops the options of the old component.
    """
    parsed = [pair for text in overrides if (pair := _parsed(text, problems))]
    for path, value in sorted(parsed, key=lambda pair: pair[0][-1] != "name"):
        try:
            root = _assigned(root, path, value, ())
        except RecipeError as error:
            problems.extend(error.problems)
    return root


def _parsed(text: str, problems: list[Problem]) -> tuple[Steps, Node] | None:
    path, equals, value = text.partition("=")
    path = path.strip()
    where = steps(path)
    if not equals or not where or dotted(where) != path:
        hint = "write path=value, e.g. data.batch_size=32"
        if equals and "[-" in path:
            hint = "entries are counted from 0; negative indices are not supported"
        problems.append(Problem("", f"could not parse the override {text!r}", hint=hint))
        return None
    if where[0] == "extends":
        what = "`extends` cannot be overridden"
        problems.append(Problem(path, what, hint="write a file that extends it", source=COMMAND_LINE))
        return None
    in_value: list[Problem] = []
    node = None
    try:
        node = parse(value, None, in_value)
    except RecipeError as error:
        if _is_text(value):
            return where, Node(value)
        in_value += error.problems
    problems += [Problem(path, each.message, hint=each.hint, source=COMMAND_LINE) for each in in_value]
    return None if node is None or in_value else (where, node)


def _is_text(value: str) -> bool:
    """True if a value that is no YAML is meant as text, such as ``{action}.parquet``, rather than as a list or mapping."""
    balanced = all(value.count(left) == value.count(right) for left, right in ("{}", "[]"))
    quoted = value.count('"') % 2 or value.count("'") % 2
    return balanced and not quoted and "\n" not in value and not _is_enclosed(value.strip())


def _is_enclosed(value: str) -> bool:
    """True if the bracket that a text starts with is closed at its end."""
    depth = 0
    for place, character in enumerate(value if value[:1] in ("{", "[") else ""):
        depth += (character in "{[") - (character in "}]")
        if depth == 0:
            return place == len(value) - 1
    return False


def _assigned(node: Node | None, path: Steps, value: Node, done: Steps, option: bool = False) -> Node:
    """`node`, an `option` of a component or not, with `value` at `path`, which `done` has led to."""
    text = "name" if option else TEXTS.get(str(done[-1]) if done else "", "name")
    if not path:
        return merge(node, value, option, text) if node else value
    step, rest = path[0], path[1:]
    here = (*done, step)
    if node is None or node.value is None:
        node = Node({})
    if isinstance(node.value, str):
        node = node.replaced({text: node} if text else {})
    if node.is_list:
        return _assigned_in_list(node, step, rest, value, here)
    if not node.is_mapping or isinstance(step, int):
        raise RecipeError([Problem(dotted(here), "no such key in this recipe", source=COMMAND_LINE)])
    if not done and not rest:
        return merge_recipes(node, node.replaced({step: value}))
    if not rest and step == "name":
        return merge(node, Node({"name": value}))
    return node.replaced({**node.value, step: _assigned(node.get(step), rest, value, here, option="name" in node.value)})


def _assigned_in_list(node: Node, step: str | int, rest: Steps, value: Node, here: Steps) -> Node:
    labels = labels_of(node.value)
    index = step if isinstance(step, int) else find_entry(node.value, labels, step)
    if index is None or index >= len(labels):
        counted = f"it has {len(labels)} {'entry' if len(labels) == 1 else 'entries'}, counted from 0"
        hint = did_you_mean(str(step), labels, "entries") if all(labels) else counted
        raise RecipeError([Problem(dotted(here), "no such entry in this list", hint=hint, source=COMMAND_LINE)])
    items = list(node.value)
    if not rest and value.value is None:
        del items[index]
    else:
        items[index] = _assigned(items[index], rest, value, here)
    return node.replaced(items)

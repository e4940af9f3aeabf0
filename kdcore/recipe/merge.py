"""Merging one recipe into another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kdcore.recipe.yaml import Node

TERM_LISTS = ("losses", "teacher_losses")
"""Lists whose entries can also be addressed by name."""

TEXTS = {"weights": "file", "labels": None}
"""Key → the key of a mapping that a text stands for; None if a mapping replaces it. Other texts are names of components."""


def merge_recipes(base: Node, over: Node) -> Node:
    """Merge the recipe `over` into `base`.

    Mappings merge key by key, lists and scalars are replaced, and a component of another name replaces that of `base`
    with all its options. A mapping merged into a list of losses addresses its terms by id or name: it changes,
    removes (``null``) or appends them.
    """
    merged = {**base.value}
    for key, node in over.value.items():
        merged[key] = _merge_entry(merged.get(key), key, node, option=False)
    return over.replaced(merged)


def _merge_entry(below: Node | None, key: str, node: Node, option: bool) -> Node:
    if key in TERM_LISTS and node.is_mapping and not option:
        return _merge_terms(below if below and below.is_list else node.replaced([]), node)
    return merge(below, node, option, TEXTS.get(key, "name")) if below else node


def merge(base: Node, over: Node, option: bool = False, text: str | None = "name") -> Node:
    """Merge a part of a recipe, `over`, into `base`.

    Args:
        base: The part below.
        over: The part above.
        option: True for an option of a component, whose texts are values.
        text: Key of a mapping that a text below stands for; None if a mapping replaces it.
    """
    if not over.is_mapping or (isinstance(base.value, str) and (option or text is None)):
        return over
    below = base.replaced({text: base}) if isinstance(base.value, str) and text not in over.value else base
    if not below.is_mapping or _renamed(below, over):
        return over
    merged = dict(below.value)
    for key, node in over.value.items():
        merged[key] = _merge_entry(merged.get(key), key, node, option="name" in below.value)
    return over.replaced(merged)


def _renamed(base: Node, over: Node) -> bool:
    before, after = base.get("name"), over.get("name")
    return before is not None and after is not None and before.value != after.value


def _merge_terms(base: Node, over: Node) -> Node:
    terms: list[Node | None] = list(base.value)
    labels = labels_of(base.value)
    for key, node in over.value.items():
        index = find_entry(base.value, labels, key)
        if index is not None:
            below = terms[index]
            terms[index] = merge(below, node) if below and node.value is not None else None
        elif node.value is not None:
            terms.append(_new_term(key, node))
    return base.replaced([term for term in terms if term])


def _new_term(key: str, node: Node) -> Node:
    if not node.is_mapping:
        return node
    return node.replaced(({"id": node.replaced(key)} if "name" in node.value else {"name": node.replaced(key)}) | node.value)


def labels_of(terms: Sequence[Node]) -> list[str]:
    """The labels of the entries of a list of losses."""
    pairs = [(_text(term.get("name") or term), _text(term.get("id"))) for term in terms]
    return term_labels(pairs)


def find_entry(entries: Sequence[Node], labels: Sequence[str], key: str) -> int | None:
    """Return the index of the entry with the label `key`, or of the only one with that name, such as ``plugin/loss``."""
    if key in labels:
        return labels.index(key)
    named = [index for index, entry in enumerate(entries) if _text(entry.get("name") or entry) == key]
    return named[0] if len(named) == 1 else None


def term_labels(terms: Iterable[tuple[str, str | None]]) -> list[str]:
    """Return labels for (name, id): the id, or else the name without its plugin.

    A name that occurs again is counted: ``dkd``, ``dkd-2``. If several plugins have a loss of that name, the plugin tells them
    apart: ``margin``, ``other-margin``.
    """
    terms = list(terms)
    seen: dict[str, set[str]] = {}
    taken = {label for _, label in terms if label}
    labels: list[str] = []
    for name, label in terms:
        if not label:
            bare = name.rpartition("/")[2]
            numbers = (f"{bare}-{number}" for number in range(2, len(terms) + 2))
            named = [name.replace("/", "-")] if seen.get(bare, {name}) - {name} else []
            label = next(each for each in (bare, *named, *numbers) if each not in taken)
            taken.add(label)
            seen.setdefault(bare, set()).add(name)
        labels.append(label)
    return labels


def _text(node: Node | None) -> str:
    return node.value if node and isinstance(node.value, str) else ""


def without_nulls(node: Node) -> Node:
    """`null` takes away what was inherited; among the options of a component it is a value."""
    if node.is_list:
        return node.replaced([_pruned(each) for each in node.value])
    if not node.is_mapping:
        return node
    return node.replaced({key: _pruned(each) for key, each in node.value.items() if each.value is not None})


def _pruned(node: Node) -> Node:
    return node if node.is_mapping and _text(node.get("name")) else without_nulls(node)

"""Expansion of ``like: acc`` and ``copies: 3``."""

from __future__ import annotations

from collections.abc import Mapping

from kdcore.errors import Problem
from kdcore.recipe.merge import merge
from kdcore.recipe.yaml import Node, Steps, dotted
from kdcore.suggestions import did_you_mean


def expand_like_and_copies(root: Node, problems: list[Problem]) -> Node:
    """Expand every ``like`` and ``copies`` of a recipe."""
    resolved = _Likes(root, problems).resolve()
    student = resolved.get("student")
    copies = student.get("copies") if student else None
    if student is None or copies is None:
        return resolved
    single = _without(student, "copies")
    if type(copies.value) is not int or not 1 <= copies.value <= 100:
        what = f"must be a whole number from 1 to 100, not {copies.value!r}"
        problems.append(Problem("student.copies", what, copies.file, copies.line))
        return resolved.replaced({**resolved.value, "student": single})
    numbered = {f"student-{number}": single for number in range(1, copies.value + 1)}
    students = student.replaced({**_mapping(resolved.get("students")), **numbered})
    return resolved.replaced({**_without(resolved, "student").value, "students": students})


class _Likes:
    """Resolves ``like`` among all participants of a recipe."""

    def __init__(self, root: Node, problems: list[Problem]):
        self.root, self.problems = root, problems
        self.circles: dict[frozenset[str], tuple[Node, str]] = {}
        self.participants: dict[str, tuple[Steps, Node]] = {}
        self.participants |= {name: (("students", name), node) for name, node in _mapping(root.get("students")).items()}
        self.participants |= {"student": (("student",), student)} if (student := root.get("student")) else {}
        self.participants |= {name: (("teachers", name), node) for name, node in _mapping(root.get("teachers")).items()}

    def resolve(self) -> Node:
        """Return the recipe without ``like``."""
        top = dict(self.root.value)
        for group in ("teachers", "students"):
            if members := _mapping(top.get(group)):
                resolved = {name: self._expanded(node, (group, name), (name,)) for name, node in members.items()}
                top[group] = top[group].replaced(resolved)
        if "student" in top:
            top["student"] = self._expanded(top["student"], ("student",), ("student",))
        return self.root.replaced(top)

    def _expanded(self, node: Node, path: Steps, chain: tuple[str, ...]) -> Node:
        like = node.get("like")
        if like is None:
            return node
        own = _without(node, "like")
        if like.value is None:
            return own
        if not isinstance(like.value, str) or like.value not in self.participants:
            hint = did_you_mean(str(like.plain()), self.participants, "participants")
            self._problem(path, like, f"there is no participant {like.plain()!r}", hint)
            return own
        if like.value in chain:
            self._circle(path, like, chain[chain.index(like.value) :])
            return own
        other_path, other = self.participants[like.value]
        expanded = self._expanded(other, other_path, (*chain, like.value))
        return merge(_without(expanded, "copies"), own)

    def _circle(self, path: Steps, like: Node, members: tuple[str, ...]) -> None:
        """Report a circle once, at its first member, and no missing keys of its members."""
        first, names = self.circles.setdefault(frozenset(members), (like, " → ".join((*members, members[0]))))
        self._problem(path, first, f"circular `like:` reference: {names}")

    def _problem(self, path: Steps, like: Node, message: str, hint: str = "") -> None:
        problem = Problem(dotted((*path, "like")), message, like.file, like.line, hint)
        if problem not in self.problems:
            self.problems.append(problem)


def _mapping(node: Node | None) -> Mapping[str, Node]:
    return node.value if node and node.is_mapping else {}


def _without(node: Node, key: str) -> Node:
    return node.replaced({name: each for name, each in node.value.items() if name != key}) if node.is_mapping else node

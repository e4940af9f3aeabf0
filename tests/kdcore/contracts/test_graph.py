"""The graph of who learns from whom, against reachability by powers of its matrix."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdcore import Graph, Node, Stage, Training
from kdcore.recipe.schedule_checks import default_stages

NAMES = "abcdefg"


@st.composite
def graphs(draw):
    """Any graph of up to seven participants, of which some are not trained."""
    names = NAMES[: draw(st.integers(1, len(NAMES)))]
    nodes = {}
    for name in names:
        sources = draw(st.lists(st.sampled_from([other for other in names if other != name] or [""]), unique=True))
        role = draw(st.sampled_from(["teacher", "student"]))
        nodes[name] = Node(name, role, tuple(filter(None, sources)), draw(st.booleans()))
    return Graph(nodes)


def reachability(graph):
    """(n, n) bool: whether there is a way of at least one edge from each participant to each of its sources."""
    names = list(graph.nodes)
    edges = np.array([[other in graph.nodes[name].learns_from for other in names] for name in names], dtype=np.int64)
    found, power = np.zeros_like(edges), np.eye(len(names), dtype=np.int64)
    for _ in names:
        power = np.minimum(power @ edges, 1)
        found |= power
    return found.astype(bool)


@given(graphs())
def test_reaches_and_circles(graph):
    names, reached = list(graph.nodes), reachability(graph)
    for i, name in enumerate(names):
        assert graph.reaches(name) == {other for j, other in enumerate(names) if reached[i, j]}
        circle = [other for j, other in enumerate(names) if j == i or (reached[i, j] and reached[j, i])]
        assert graph.circle(name) == tuple(circle)


@given(graphs())
def test_groups_are_circles_in_an_order_in_which_each_follows_its_sources(graph):
    names, reached = list(graph.nodes), reachability(graph)
    groups = graph.groups()
    trained = [name for name in names if graph.nodes[name].trains]
    assert sorted(name for group in groups for name in group) == sorted(trained), "each participant once"
    place = {name: number for number, group in enumerate(groups) for name in group}
    for i, name in enumerate(names):
        for j, other in enumerate(names):
            if i == j or not {name, other} <= set(trained):
                continue
            assert (place[name] == place[other]) == (reached[i, j] and reached[j, i])
            if reached[i, j] and not reached[j, i]:
                assert place[other] < place[name]


def longest(graph, reached, name):
    """Number of circles on the longest way from `name` to a participant that learns from nobody, its own left out."""
    names = list(graph.nodes)
    i = names.index(name)
    before = [j for j, other in enumerate(names) if reached[i, j] and not reached[j, i] and graph.nodes[other].trains]
    return max((longest(graph, reached, names[j]) + 1 for j in before), default=0)


@given(graphs())
def test_generations_are_as_few_as_the_longest_chain(graph):
    reached = reachability(graph)
    generations = graph.generations()
    place = {name: number for number, group in enumerate(generations) for name in group}
    assert place == {name: longest(graph, reached, name) for name, node in graph.nodes.items() if node.trains}
    assert all(list(group) == [name for name in graph.nodes if name in group] for group in generations), "in the recipe's order"


@given(graphs(), st.data())
def test_some_participants_are_ordered_as_all_are(graph, data):
    """Leaving participants out may let others train earlier, and never lets one train before another that it learns from."""
    chosen = data.draw(st.lists(st.sampled_from(list(graph.nodes)), unique=True))
    reached, names = reachability(graph), list(graph.nodes)
    generations = graph.generations(chosen)
    place = {name: number for number, group in enumerate(generations) for name in group}
    assert set(place) == {name for name in chosen if graph.nodes[name].trains}
    for name in place:
        for other in place:
            i, j = names.index(name), names.index(other)
            if reached[i, j] and not reached[j, i]:
                assert place[other] < place[name]


def test_teachers_of_one_fusion_train_together():
    chain = {"a": Node("a", "teacher"), "b": Node("b", "teacher"), "c": Node("c", "student", ("a", "b"))}
    assert Graph(chain, fused=("a", "b")).groups() == (("a", "b"), ("c",))
    assert Graph(chain).groups() == (("a",), ("b",), ("c",))


def test_participants_that_wait_for_one_another_are_refused():
    nodes = {"a": Node("a", "teacher"), "b": Node("b", "student", ("a",)), "c": Node("c", "teacher", ("b",))}
    with pytest.raises(ValueError, match="the participants a, c, b depend on each other"):
        Graph(nodes, fused=("a", "c")).groups()


def test_who_is_not_trained_has_no_stage():
    nodes = {"stored": Node("stored", "teacher", trains=False), "s": Node("s", "student", ("stored",))}
    graph = Graph(nodes)
    assert (graph.teachers, graph.students) == ((), ("s",))
    assert graph.groups() == graph.generations() == (("s",),)


def test_the_default_schedule_gives_each_group_its_own_training_and_split():
    own, common = Training(epochs=7), Training(epochs=3)
    nodes = {
        "t": Node("t", "teacher", training=own, split="teacher"),
        "a": Node("a", "student", ("t", "b")),
        "b": Node("b", "student", ("a",)),
    }
    assert list(default_stages(Graph(nodes, training=common))) == [
        Stage("t", ("t",), own, 7, "teacher"),
        Stage("a+b", ("a", "b"), common, 3),
    ]

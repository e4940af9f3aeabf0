"""The schedule of recipes without one."""

from __future__ import annotations

from collections.abc import Iterator

from kdcore.contracts.schedule import Graph, Stage


def default_stages(graph: Graph) -> Iterator[Stage]:
    """Yield a stage for each of `Graph.groups`, sources first, named after its participants."""
    for group in graph.groups():
        first = graph.nodes[group[0]]
        training = first.training or graph.training
        yield Stage("+".join(group), group, training, training.epochs, first.split or "train")

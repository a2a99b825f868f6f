"""Room on nodes: where one more worker would find what it asks for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tune.cluster import Node, Shape

__all__ = ["Room"]


class Room:
    """What is left on each node once some workers have taken their part. Other users of the cluster
    are not counted: Ray alone places workers, and this is only what to expect of it.

    Args:
        nodes: those that are alive.
        placed: the node's id and the shape of each worker that is up.
    """

    def __init__(self, nodes: Sequence[Node], placed: Iterable[tuple[str, Shape]]) -> None:
        # Ray keeps nodes with GPUs for those that ask for one, too.
        self._nodes = sorted(nodes, key=lambda node: node.totals.get("GPU", 0.0))
        self._expected: set[Shape] = set()
        self._no_room: dict[Shape, frozenset[str]] = {}
        self._left = {node.id: dict(node.totals) for node in self._nodes}
        for node_id, shape in placed:
            self._add(node_id, shape, -1)

    def has(self, shape: Shape) -> bool:
        """Whether a worker of this shape would find its place now."""
        if shape in self._no_room:
            return False
        return any(not lacking for _, lacking in self._lacking(shape))

    def take(self, shape: Shape) -> frozenset[str]:
        """Give a worker of this shape its place.

        Returns:
            the resources that it lacks on the nodes that are large enough for it, or on all nodes
            where none is; empty where it has its place now.
        """
        if shape in self._no_room:
            return self._no_room[shape]
        every = list(self._lacking(shape))
        for node, lacking in every:
            if not lacking:
                self._add(node.id, shape, -1)
                self._expected.add(shape)
                return frozenset()
        each = [lacking for _, lacking in every]
        if not every:
            each = [shape.lacks(node.totals) for node in self._nodes]
        self._no_room[shape] = frozenset().union(*each) or shape.names
        return self._no_room[shape]

    def is_expected_by_another(self, shape: Shape) -> bool:
        """Whether workers of other shapes that ask for the same resources have been given a place,
        and are not up yet."""
        return any(other != shape and other.names & shape.names for other in self._expected)

    def ended_for(
        self, shape: Shape, idle: Sequence[tuple[str, Shape]]
    ) -> tuple[str, list[int]] | None:
        """The node on which the fewest idle workers would have to end for one of this shape.

        Args:
            shape: of the worker that lacks room.
            idle: the node's id and the shape of each idle worker.

        Returns:
            the node's id, and the indices of those to end; None where that would not do.
        """
        found: tuple[str, list[int]] | None = None
        for node, _ in self._lacking(shape):
            left, ended = dict(self._left[node.id]), list[int]()
            for index, (node_id, other) in enumerate(idle):
                lacking = shape.lacks(left)
                if node_id == node.id and lacking & other.names:
                    ended.append(index)
                    for name, amount in other.amounts:
                        left[name] = left.get(name, 0.0) + amount
            if not shape.lacks(left) and (found is None or len(ended) < len(found[1])):
                found = node.id, ended
        return found

    def give_back(self, node_id: str, shape: Shape) -> None:
        """A worker on a node is being ended."""
        self._no_room.clear()
        self._add(node_id, shape, 1)

    def _lacking(self, shape: Shape) -> Iterable[tuple[Node, set[str]]]:
        """The nodes that are large enough, each with what is taken there."""
        for node in self._nodes:
            if node.fits(shape):
                yield node, shape.lacks(self._left[node.id])

    def _add(self, node_id: str, shape: Shape, sign: int) -> None:
        left = self._left.get(node_id)
        if left is not None:  # else the node has died
            for name, amount in shape.amounts:
                left[name] = left.get(name, 0.0) + sign * amount

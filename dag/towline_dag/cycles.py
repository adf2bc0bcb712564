"""Orders and cycles of a graph given as the successors of each node, without recursion."""

from collections.abc import Iterable, Sequence

Successors = Sequence[Sequence[int]]


def topological_order(successors: Successors) -> list[int]:
    """Returns the nodes with each after all that lead to it; nodes on a cycle, or behind one, are left out."""
    return _order(successors, range(len(successors)))


def find_cycles(successors: Successors, most: int) -> list[list[int]]:
    """Returns up to `most` cycles that share no node, each from its smallest node in the order of its edges."""
    cycles: list[list[int]] = []
    left = set(range(len(successors)))
    while len(cycles) < most:
        left -= set(_order(successors, left))
        if not left:
            break
        cycles.append(_cycle(successors, left))
        left -= set(cycles[-1])
    return cycles


def _order(successors: Successors, nodes: Iterable[int]) -> list[int]:
    """Orders the part of the graph that consists of `nodes`."""
    open_edges = dict.fromkeys(nodes, 0)
    for node in open_edges:
        for target in successors[node]:
            if target in open_edges:
                open_edges[target] += 1
    order = [node for node, count in open_edges.items() if count == 0]
    for node in order:  # grows while it is walked
        for target in successors[node]:
            if target in open_edges:
                open_edges[target] -= 1
                if open_edges[target] == 0:
                    order.append(target)
    return order


def _cycle(successors: Successors, nodes: set[int]) -> list[int]:
    """Walks back through `nodes`, each of which has a predecessor among them, until one comes again."""
    predecessor = {target: node for node in nodes for target in successors[node] if target in nodes}
    trail: dict[int, None] = {}
    node = min(nodes)
    while node not in trail:
        trail[node] = None
        node = predecessor[node]
    walked = list(trail)
    cycle = walked[walked.index(node) :][::-1]
    start = cycle.index(min(cycle))
    return cycle[start:] + cycle[:start]

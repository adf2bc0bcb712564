"""Shapes of DAGs, as documents."""

import itertools
from collections.abc import Iterable
from typing import Any

Document = dict[str, Any]


def fan(width: int) -> Document:
    """One node, `width` behind it, one behind those."""
    middle = [f"m{index}" for index in range(width)]
    return _document(["a", *middle, "z"], [*(("a", node) for node in middle), *((node, "z") for node in middle)])


def chain(length: int) -> Document:
    """Nodes one behind the other."""
    nodes = [f"n{index}" for index in range(length)]
    return _document(nodes, itertools.pairwise(nodes))


def wide(count: int) -> Document:
    """Nodes without edges."""
    return _document([f"n{index}" for index in range(count)], ())


def layered(count: int, width: int = 5) -> Document:
    """Layers in which every node follows two of the layer before."""
    layers = [[f"n{row}_{index}" for index in range(width)] for row in range(count // width)]
    edges = [
        (layer[(index + shift) % width], node)
        for layer, behind in itertools.pairwise(layers)
        for index, node in enumerate(behind)
        for shift in (0, 1)
    ]
    return _document([node for layer in layers for node in layer], edges)


def _document(nodes: Iterable[str], edges: Iterable[tuple[str, str]]) -> Document:
    return {
        "nodes": [{"id": node, "type": "DELAY", "config": {"seconds": 0}} for node in nodes],
        "edges": [{"from": source, "to": target} for source, target in edges],
    }

"""An upper bound on the work of a CEL expression, known before it runs, so that no expression can stall its evaluator.

A bound is a polynomial in the sizes of the JSON values that the expression reads. It is derived from the syntax tree
once; with the sizes of the actual values it gives a number to compare with MAX_COST. A size counts values, and 16
characters of text as one more. One unit of cost takes at most about 30 ns and 16 bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from towline_dag.cel_tree import Call, Const, Fold, Literal, Name, Path, Select, Tree, path

MAX_COST = 1 << 22
_MAX_TERMS = 256


@dataclass(frozen=True, slots=True)
class Size:
    """An unknown: the size of the value at a global path or, with `fold`, of an element that this fold visits."""

    path: Path = ()
    fold: int = 0
    is_count: bool = False
    """Of the direct elements alone."""


Polynomial = Mapping[tuple[Size, ...], float]
"""Coefficients by the factors of each term."""


class TooComplex(Exception):
    """The bound has more terms than are worth evaluating."""


@dataclass(frozen=True, slots=True)
class Bound:
    """How large a value can be when written out, how many elements it can have, and what it costs to compute."""

    size: Polynomial
    count: Polynomial
    cost: Polynomial


def bound(tree: Tree, roots: frozenset[str]) -> Polynomial:
    """Returns the bound on the cost of `tree` in terms of what it reads from `roots`; raises TooComplex."""
    return _Estimate(roots).of(tree, {}).cost


def evaluate(cost: Polynomial, values: Mapping[str, object]) -> float:
    """Returns the bound for these values of the roots."""
    sizes = {size: _measure(size, values) for term in cost for size in term}
    total = 0.0
    for term, coefficient in cost.items():
        product = coefficient
        for size in term:
            product *= sizes[size]
        total += product
    return total


def weigh(value: object) -> int:
    """Returns the size of a JSON value."""
    total = 0
    pending: list[object] = [value]
    while pending:
        item = pending.pop()
        total += 1
        if isinstance(item, str):
            total += len(item) // 16
        elif isinstance(item, dict):
            entries = cast("dict[str, object]", item)
            pending.extend(entries)
            pending.extend(entries.values())
        elif isinstance(item, list):
            pending.extend(cast("list[object]", item))
    return total


def _measure(size: Size, values: Mapping[str, object]) -> int:
    value: object = values
    for key in size.path:
        value = cast("dict[str, object]", value).get(key) if isinstance(value, Mapping) else None
    if not size.is_count:
        return weigh(value)
    return len(cast("Sequence[object]", value)) if isinstance(value, list | dict) else 1


_NOTHING: Polynomial = {}
_ONE: Polynomial = {(): 1.0}

# Their operands and values are single numbers or booleans.
_SCALAR = frozenset({"_-_", "_*_", "_/_", "_%_", "-_", "!_", "_&&_", "_||_", "@not_strictly_false"})
# They stop at the end of the smaller side.
_COMPARISON = frozenset({"_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_"})
# They may look at one side again for each part of the other.
_SEARCH = frozenset({"contains", "matches"})


class _Estimate:
    """Derives bounds; numbers the folds it meets."""

    def __init__(self, roots: frozenset[str]) -> None:
        self._roots = roots
        self._folds = 0

    def of(self, tree: Tree, local: Mapping[str, Bound]) -> Bound:
        """Returns the bound of `tree` where `local` are the bounds of the variables of the folds around it."""
        read = path(tree, self._roots)
        if read is not None:
            return Bound({(Size(read),): 1.0}, {(Size(read, is_count=True),): 1.0}, _ONE)
        match tree:
            case Const(weight):
                return _atom(float(weight))
            case Name(name):
                return local.get(name, _atom())
            case Select(operand, _, is_test):
                inner = self.of(operand, local)
                return Bound(_ONE if is_test else inner.size, inner.size, _add(inner.cost, _ONE))
            case Literal(items):
                parts = [self.of(item, local) for item in items]
                size = _add(_ONE, *(part.size for part in parts))
                return Bound(size, {(): float(len(items))}, _add(_ONE, *(part.cost for part in parts)))
            case Call(function, args):
                return _call(function, [self.of(arg, local) for arg in args])
            case Fold():
                return self._fold(tree, local)

    def _fold(self, fold: Fold, local: Mapping[str, Bound]) -> Bound:
        source = self.of(fold.source, local)
        start = self.of(fold.start, local)
        self._folds += 1
        element = Size(fold=self._folds)
        is_list = isinstance(fold.start, Literal)
        visited = Bound({(element,): 1.0}, {(element,): 1.0}, _ONE)
        # A list is copied whenever an element is appended: half of its final length on average.
        so_far = Bound(_NOTHING, _NOTHING, _scale(source.count, 0.5) if is_list else _ONE)
        inside = {**local, fold.variable: visited, fold.accumulator: so_far}
        steps = [self.of(step, inside) for step in fold.steps]
        cost = _sum_over(_add(*(step.cost for step in steps)), element, source)
        size = _add(start.size, _sum_over(steps[-1].size, element, source)) if is_list else _ONE
        result = self.of(fold.result, {**local, fold.accumulator: Bound(size, source.count, _ONE)})
        return Bound(result.size, result.count, _add(source.cost, start.cost, cost, result.cost))


def _atom(size: float = 1.0) -> Bound:
    return Bound({(): size}, {(): size}, _ONE)


def _call(function: str, args: Sequence[Bound]) -> Bound:
    cost = _add(_ONE, *(arg.cost for arg in args))
    sizes = _add(*(arg.size for arg in args))
    if function in _SCALAR:
        return Bound(_ONE, _ONE, cost)
    if function in _COMPARISON:
        return Bound(_ONE, _ONE, _add(cost, _smaller(args[0].size, args[1].size)))
    if function in _SEARCH:
        return Bound(_ONE, _ONE, _add(cost, sizes, _multiply(args[0].size, args[1].size)))
    if function == "@in":
        return Bound(_ONE, _ONE, _add(cost, sizes))
    if function == "_[_]":
        return Bound(args[0].size, args[0].size, _add(cost, args[1].size))
    if function == "_?_:_":
        return Bound(_add(args[1].size, args[2].size), _add(args[1].count, args[2].count), cost)
    # Concatenation, conversions, and whatever else reads its arguments once.
    return Bound(_add({(): 2.0}, sizes), _add({(): 2.0}, *(arg.count for arg in args)), _add(cost, sizes))


def _add(*polynomials: Polynomial) -> Polynomial:
    total: dict[tuple[Size, ...], float] = {}
    for polynomial in polynomials:
        for term, coefficient in polynomial.items():
            total[term] = total.get(term, 0.0) + coefficient
    if len(total) > _MAX_TERMS:
        raise TooComplex
    return total


def _scale(polynomial: Polynomial, factor: float) -> Polynomial:
    return {term: coefficient * factor for term, coefficient in polynomial.items()}


def _multiply(left: Polynomial, right: Polynomial) -> Polynomial:
    products = (
        {tuple(sorted((*term, *other), key=_order)): coefficient * factor}
        for term, coefficient in left.items()
        for other, factor in right.items()
    )
    return _add(*products)


def _order(size: Size) -> tuple[Path, int, bool]:
    return size.path, size.fold, size.is_count


def _smaller(left: Polynomial, right: Polynomial) -> Polynomial:
    """Picks a bound on the minimum: an element of a fold is better than a global value, a constant better than both."""
    return min(left, right, key=_growth)


def _growth(polynomial: Polynomial) -> tuple[int, float]:
    degree = max((sum(1 if size.fold else 2 for size in term) for term in polynomial), default=0)
    return degree, sum(polynomial.values())


def _sum_over(step: Polynomial, element: Size, source: Bound) -> Polynomial:
    """Sums `step` over the elements of `source`, whose sizes sum up to no more than the size of the source."""
    total: Polynomial = {}
    for term, coefficient in step.items():
        rest = tuple(size for size in term if size != element)
        summed: Polynomial = {rest: coefficient}
        if len(rest) == len(term):
            summed = _multiply(summed, source.count)
        for _ in range(len(term) - len(rest)):
            summed = _multiply(summed, source.size)
        total = _add(total, summed)
    return total

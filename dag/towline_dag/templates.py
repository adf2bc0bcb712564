"""Config with expressions in it: any string may hold `${{ CEL }}`, at any depth.

A string that is exactly one `${{ }}` becomes the value with its own type; elsewhere a string is put in as it is and any
other value as compact JSON. `$${{` stands for a literal `${{`. Keys of objects are never templates.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar, cast

from towline_dag.expressions import ExpressionError, Program, Scope, compile_expression
from towline_dag.limits import MAX_CONFIG_DEPTH, MAX_CONFIG_EXPRESSIONS, MAX_RENDERED_BYTES

Evaluate = Callable[[Program], object]
Render = Callable[[Evaluate], object]
Part = str | Program


@dataclass(frozen=True, slots=True, eq=False)
class Template:
    """A JSON value as written, and how to render it. A constant one stands for itself."""

    value: object
    is_constant: bool
    references: frozenset[str]
    """The nodes that its expressions name."""
    programs: tuple[Program, ...]
    _render: Render

    def position(self, node_id: str) -> str:
        """Returns line and column of the place in its first expression that names a node, as in `Program.position`."""
        return next(program.position(node_id) for program in self.programs if node_id in program.references)

    def render(self, scope: Scope) -> object:
        """Returns the value with its expressions evaluated; raises ExpressionError."""
        return self._render(_Rendering(scope).evaluate)


def compile_template(value: object) -> Template:
    """Compiles the expressions in a JSON value; raises ExpressionError for the first that is wrong."""
    programs: list[Program] = []
    render = _compile(value, programs, MAX_CONFIG_DEPTH)
    return Template(
        value=value,
        is_constant=render is None,
        references=frozenset(reference for program in programs for reference in program.references),
        programs=tuple(programs),
        _render=render or (lambda _evaluate: value),
    )


class _Rendering:
    """Evaluates the expressions of one template, within what they may add up to."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._left = MAX_RENDERED_BYTES

    def evaluate(self, program: Program) -> object:
        try:
            value = program.evaluate(self._scope)
        except ExpressionError as error:
            raise ExpressionError(_quoted(program.source, error)) from error
        self._left -= len(_text(value).encode())
        if self._left < 0:
            raise ExpressionError(f"its expressions add up to more than {MAX_RENDERED_BYTES // 1024} KiB")
        return value


def _compile(value: object, programs: list[Program], depth: int) -> Render | None:
    """Returns how to render `value`, or None where nothing is to be rendered."""
    if depth < 0:
        raise ExpressionError(f"it is nested deeper than {MAX_CONFIG_DEPTH} levels")
    if isinstance(value, str):
        return _compile_string(value, programs) if "${{" in value else None
    if isinstance(value, dict):
        entries = cast("dict[str, object]", value)
        renders = _compile_parts(entries.items(), ".{}", programs, depth)
        return _object(entries, renders) if renders else None
    if isinstance(value, list):
        items = cast("list[object]", value)
        renders = _compile_parts(enumerate(items), "[{}]", programs, depth)
        return _list(items, renders) if renders else None
    return None


def _object(entries: dict[str, object], renders: dict[str, Render]) -> Render:
    return lambda evaluate: entries | {key: render(evaluate) for key, render in renders.items()}


def _list(items: list[object], renders: dict[int, Render]) -> Render:
    return lambda evaluate: [renders[index](evaluate) if index in renders else item for index, item in enumerate(items)]


Key = TypeVar("Key", str, int)


def _compile_parts(
    parts: Iterable[tuple[Key, object]], place: str, programs: list[Program], depth: int
) -> dict[Key, Render]:
    renders: dict[Key, Render] = {}
    for key, part in parts:
        try:
            render = _compile(part, programs, depth - 1)
        except ExpressionError as error:
            raise ExpressionError(error.message, place.format(key) + error.place) from error
        if render is not None:
            renders[key] = render
    return renders


def _compile_string(text: str, programs: list[Program]) -> Render:
    parts = list(_split(text))
    programs.extend(part for part in parts if isinstance(part, Program))
    if len(programs) > MAX_CONFIG_EXPRESSIONS:
        raise ExpressionError(f"this is beyond the limit of {MAX_CONFIG_EXPRESSIONS} expressions")
    if len(parts) == 1 and isinstance(only := parts[0], Program):
        return lambda evaluate: evaluate(only)
    return lambda evaluate: "".join(part if isinstance(part, str) else _text(evaluate(part)) for part in parts)


def _split(text: str) -> Iterator[Part]:
    position = 0
    while opening := _OPENING.search(text, position):
        yield from text[position : opening.start()] and [text[position : opening.start()]]
        position = opening.end()
        if opening[0] == "$${{":
            yield "${{"
            continue
        end = _end(text, position)
        yield _program(text[position:end].strip())
        position = end + 2
    yield from text[position:] and [text[position:]]


def _program(source: str) -> Program:
    try:
        return compile_expression(source)
    except ExpressionError as error:
        raise ExpressionError(_quoted(source, error)) from error


_OPENING = re.compile(r"\$?\$\{\{")
# What can hold a brace that does not end the expression: the strings of CEL, raw ones first, and its maps.
_TOKEN = re.compile(
    r"""(?:[rR][bB]?|[bB][rR])(?:"{3}.*?"{3}|'{3}.*?'{3}|"[^"\n]*"|'[^'\n]*')"""
    r"""|"{3}(?:\\.|[^\\])*?"{3}|'{3}(?:\\.|[^\\])*?'{3}|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'"""
    r"""|[{}"']""",
    re.DOTALL,
)


def _end(text: str, start: int) -> int:
    """Returns where the `}}` is that ends the expression which begins at `start`."""
    depth = 0
    for token in _TOKEN.finditer(text, start):
        if token[0] == "{":
            depth += 1
        elif token[0] == "}" and depth:
            depth -= 1
        elif token[0] == "}" and text.startswith("}}", token.start()):
            return token.start()
        elif token[0] in "}'\"":
            what = "a } that closes nothing" if token[0] == "}" else "a string that is not closed"
            raise ExpressionError(f"{_excerpt(text[start - 3 :])} has {what}")
    raise ExpressionError(f"{_excerpt(text[start - 3 :])} has no closing }}}}; a literal ${{{{ is written $${{{{")


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _quoted(source: str, error: ExpressionError) -> str:
    return f"{_excerpt(f'${{{{ {source} }}}}')}: {error.message}"


def _excerpt(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:79]}…"

"""What a workflow version says of its runs as a whole: their output, their deadline, how many go at a time."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

from towline_dag import limits
from towline_dag.expressions import ExpressionError, Program, Scope, compile_expression
from towline_dag.fields import Fields
from towline_dag.templates import Template, compile_template


@dataclass(frozen=True, slots=True, eq=False)
class Concurrency:
    """At most `limit` runs go at a time of those with an equal value of `key`; without a key, of all."""

    key: Program | None
    limit: int

    def group(self, workflow_id: str, scope: Scope) -> str:
        """Returns the id of the group that a run belongs to; raises ExpressionError."""
        value = None if self.key is None else self.key.evaluate(scope)
        text = json.dumps([workflow_id, value], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True, eq=False)
class Policies:
    """`output` is None where the outputs of the last steps are the run's; `timeout_ms` is 0 without a deadline."""

    output: Template | None = None
    timeout_ms: int = 0
    concurrency: Concurrency | None = None

    @property
    def references(self) -> frozenset[str]:
        """The nodes that the output reads."""
        return frozenset() if self.output is None else self.output.references

    @property
    def reads_input(self) -> bool:
        """Tells whether an expression among them may read the run's input."""
        keyed = self.concurrency is not None and self.concurrency.key is not None
        return keyed or not (self.output is None or self.output.is_constant)


def read_policies(fields: Fields, node_ids: Iterable[str]) -> Policies:
    """Returns the policies that `fields` describe; what is wrong with them is noted there."""
    return Policies(
        output=_output(fields, frozenset(node_ids)) if fields.has("output") else None,
        timeout_ms=fields.integer("timeoutMs", 0, limits.MAX_RUN_TIMEOUT_MS, 0),
        concurrency=_concurrency(fields.object("concurrency")) if fields.has("concurrency") else None,
    )


def _output(fields: Fields, node_ids: frozenset[str]) -> Template | None:
    try:
        template = compile_template(fields.raw("output"))
    except ExpressionError as error:
        fields.refuse(f"output{error.place}", error.message)
        return None
    for name in sorted(template.references - node_ids):
        where = template.position(name)
        fields.refuse("output", f"{where}: {name!r} is not a node{fields.violations.suggestion(name, node_ids)}")
    return template


def _concurrency(fields: Fields) -> Concurrency:
    if fields.entries() and not fields.raw("limit"):
        fields.refuse("limit", f"must be between 1 and {limits.MAX_CONCURRENCY}")
    return Concurrency(_key(fields), fields.integer("limit", 1, limits.MAX_CONCURRENCY, 1))


def _key(fields: Fields) -> Program | None:
    source = fields.text("key", limits.MAX_EXPRESSION_CHARACTERS)
    if not source:
        return None
    try:
        program = compile_expression(source)
    except ExpressionError as error:
        fields.refuse("key", error.message)
        return None
    if program.references:
        fields.refuse("key", "reads a node: it is evaluated before any has run")
        return None
    return program

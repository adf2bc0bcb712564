"""Audits what a database holds: chunk by chunk, each in a snapshot of its own, beside whatever else works on it."""

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from towline_controlplane.audit.findings import Breach, RunRows
from towline_controlplane.audit.judge import judge
from towline_controlplane.blueprints import Blueprint, Blueprints
from towline_controlplane.errors import InvalidDag
from towline_controlplane.model import Attempt, Event, Run, Step, StepState
from towline_controlplane.store import audit, runs
from towline_controlplane.store.database import Database, Transaction

_ROWS = 20_000
_RUNS = 200
"""A chunk ends behind the run that brings it to so many rows, and has so many runs at most."""

Owned = TypeVar("Owned", Step, Attempt, Event)


@dataclass(frozen=True, slots=True)
class Report:
    """What an audit found in how many runs; not `complete` if it ended early because it had found enough."""

    runs: int
    breaches: tuple[Breach, ...]
    complete: bool = True


async def audit_database(database: Database, most: int = 1_000) -> Report:
    """Checks every run and the installation around them; ends early once it has found `most` breaches."""
    blueprints = Blueprints()
    breaches = await database.read(lambda tx: audit_installation(tx, most))
    after, count = "", 0
    while len(breaches) < most:
        run_ids, found = await database.read(lambda tx, after=after: _audit_next(tx, blueprints, after))
        if not run_ids:
            return Report(count, tuple(breaches))
        after, count = run_ids[-1], count + len(run_ids)
        breaches.extend(found)
    return Report(count, tuple(breaches[:most]), complete=False)


def audit_installation(tx: Transaction, most: int) -> list[Breach]:
    """Returns what is broken beside the rows of single runs."""
    return [
        Breach(rule.invariant, rule.what, expected, found, run_id, node_id)
        for rule in audit.INSTALLATION_RULES
        for run_id, node_id, expected, found in audit.broken(tx, rule, most)
    ]


def audit_runs(tx: Transaction, blueprints: Blueprints, run_ids: Collection[str]) -> list[Breach]:
    """Returns what is broken in these runs; a row that cannot be read is a breach of its run alone (I30)."""
    try:
        rows = audit.load_runs(tx, run_ids)
    except (ValueError, TypeError, KeyError) as error:
        if len(run_ids) > 1:
            return [breach for run_id in run_ids for breach in audit_runs(tx, blueprints, [run_id])]
        return [Breach("I30", "its rows", "rows of a run", repr(error), run_id) for run_id in run_ids]
    by_query = [
        Breach(rule.invariant, rule.what, expected, found, run_id, node_id)
        for rule in audit.RUN_RULES
        for run_id, node_id, expected, found in audit.broken_of_runs(tx, rule, run_ids)
    ]
    return [*_judge_all(tx, blueprints, rows), *by_query]


def _audit_next(tx: Transaction, blueprints: Blueprints, after: str) -> tuple[list[str], list[Breach]]:
    run_ids: list[str] = []
    size = 0
    for run_id, rows in audit.runs_after(tx, after, _RUNS):
        run_ids.append(run_id)
        size += rows
        if size >= _ROWS:
            break
    return run_ids, audit_runs(tx, blueprints, run_ids)


def _judge_all(tx: Transaction, blueprints: Blueprints, rows: audit.StoredRuns) -> list[Breach]:
    steps, attempts, events = _by_run(rows.steps), _by_run(rows.attempts), _by_run(rows.events)
    breaches: list[Breach] = []
    for run in rows.runs:
        try:
            blueprint = blueprints.of_run(tx, run)
        except (LookupError, InvalidDag) as error:
            breaches.append(Breach("I21", "version", run.version_id, str(error), run.id))
            continue
        breaches.extend(judge(_rows(tx, blueprint, run, (steps[run.id], attempts[run.id], events[run.id]))))
    return breaches


def _rows(
    tx: Transaction, blueprint: Blueprint, run: Run, owned: tuple[Sequence[Step], Sequence[Attempt], Sequence[Event]]
) -> RunRows:
    steps, attempts, events = owned
    by_node: defaultdict[str, list[Attempt]] = defaultdict(list)
    for attempt in attempts:
        by_node[attempt.node_id].append(attempt)
    run_input, outputs = _values_for_conditions(tx, blueprint, run.id, steps)
    return RunRows(
        dag=blueprint.dag,
        run=run,
        steps={step.node_id: step for step in steps},
        attempts=by_node,
        events=events,
        run_input=run_input,
        outputs=outputs,
    )


def _values_for_conditions(
    tx: Transaction, blueprint: Blueprint, run_id: str, steps: Iterable[Step]
) -> tuple[object, dict[str, object]]:
    conditions = [edge.expression for edge in blueprint.dag.edges if edge.expression is not None]
    if not conditions:
        return None, {}
    referred = {node_id for condition in conditions for node_id in condition.references}
    keys = [(run_id, s.node_id) for s in steps if s.node_id in referred and s.state is StepState.SUCCEEDED]
    stored = runs.load_outputs(tx, keys)
    outputs = {node_id: json.loads(output.text) for (_, node_id), output in stored.items() if output.text is not None}
    text = audit.load_inputs(tx, [run_id]).get(run_id)
    return None if text is None else json.loads(text), outputs


def _by_run(rows: Iterable[Owned]) -> defaultdict[str, list[Owned]]:
    by_run: defaultdict[str, list[Owned]] = defaultdict(list)
    for row in rows:
        by_run[row.run_id].append(row)
    return by_run

"""Workflows and their immutable versions. A deleted workflow stays, for its runs, and is never seen again."""

import sys
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Select, Update, exists, insert, select, update

from towline_controlplane.errors import NotFound
from towline_controlplane.model import Workflow, WorkflowVersion
from towline_controlplane.store import tables
from towline_controlplane.store.database import Transaction
from towline_controlplane.store.keysets import NEWEST_FIRST, Order, Place
from towline_controlplane.store.rows import WORKFLOW, WORKFLOW_VERSION

_LAST: Final = chr(sys.maxunicode)
_SURROGATES: Final = range(0xD800, 0xE000)  # no text has them
_VERSION_COLUMNS = WORKFLOW_VERSION.columns(tables.workflow_versions)


@dataclass(frozen=True, slots=True)
class WorkflowFilter:
    """What a list of workflows is narrowed to; None or nothing means all."""

    owner_id: str | None = None
    name_prefix: str = ""


def insert_workflow(tx: Transaction, workflow: Workflow, version: WorkflowVersion) -> None:
    """Inserts a workflow with its first version."""
    tx.connection.execute(insert(tables.workflows).values(WORKFLOW.row(workflow)))
    tx.connection.execute(insert(tables.workflow_versions).values(WORKFLOW_VERSION.row(version)))


def insert_version(tx: Transaction, version: WorkflowVersion) -> int:
    """Makes `version` the newest of its workflow and returns the number it gets, whatever number it brings.

    Raises NotFound if there is no such workflow. Racing calls get numbers without gaps.
    """
    workflows = tables.workflows.c
    raised = (
        _of_living(version.workflow_id)
        .values(current_version=workflows.current_version + 1, current_version_id=version.id, update_time=tx.now)
        .returning(workflows.current_version)
    )
    number = tx.connection.execute(raised).scalar_one_or_none()
    if number is None:
        raise NotFound("no such workflow")
    row = WORKFLOW_VERSION.row(version) | {"number": number}
    tx.connection.execute(insert(tables.workflow_versions).values(row))
    return number


def get_workflow(tx: Transaction, workflow_id: str, owner_id: str | None) -> Workflow | None:
    """Returns a workflow if it is the owner's; owner None sees all."""
    return WORKFLOW.first(tx.connection, _living(owner_id).where(tables.workflows.c.id == workflow_id))


def lock_workflow(tx: Transaction, workflow_id: str, owner_id: str | None) -> Workflow | None:
    """The same, locked: nobody else changes the workflow until the transaction ends."""
    query = _living(owner_id).where(tables.workflows.c.id == workflow_id)
    return WORKFLOW.first(tx.connection, query.with_for_update(key_share=True))


def list_workflows(
    tx: Transaction, narrow: WorkflowFilter, after: Place | None, limit: int, order: Order = NEWEST_FIRST
) -> list[Workflow]:
    """Returns workflows from behind `after`."""
    name = tables.workflows.c.name
    query = _living(narrow.owner_id)
    if narrow.name_prefix:
        query = query.where(name >= narrow.name_prefix)
        query = query if (behind := _behind(narrow.name_prefix)) is None else query.where(name < behind)
    return WORKFLOW.all(tx.connection, order.page(query, tables.workflows, after, limit))


def update_workflow(tx: Transaction, workflow_id: str, name: str, description: str) -> bool:
    """Renames a workflow and sets its update time; False if there is none."""
    return _changes(tx, _of_living(workflow_id).values(name=name, description=description, update_time=tx.now))


def delete_workflow(tx: Transaction, workflow_id: str) -> bool:
    """Hides a workflow for good; False if there is none."""
    return _changes(tx, _of_living(workflow_id).values(delete_time=tx.now))


def get_version(tx: Transaction, version_id: str) -> WorkflowVersion | None:
    """Returns a version, also that of a deleted workflow."""
    query = select(*_VERSION_COLUMNS).where(tables.workflow_versions.c.id == version_id)
    return WORKFLOW_VERSION.first(tx.connection, query)


def list_versions(tx: Transaction, workflow_id: str, after_number: int | None, limit: int) -> list[WorkflowVersion]:
    """Returns versions, newest first, from behind `after_number` (None: from the newest)."""
    versions = tables.workflow_versions.c
    query = select(*_VERSION_COLUMNS).where(versions.workflow_id == workflow_id)
    if after_number is not None:
        query = query.where(versions.number < after_number)
    return WORKFLOW_VERSION.all(tx.connection, query.order_by(versions.number.desc()).limit(limit))


def pin_version(tx: Transaction, workflow_id: str, version_id: str) -> bool:
    """Pins a version, only if it is the workflow's own; tells whether it was."""
    versions = tables.workflow_versions.c
    own = exists().where(versions.id == version_id, versions.workflow_id == workflow_id)
    return _changes(tx, _of_living(workflow_id).where(own).values(pinned_version_id=version_id, update_time=tx.now))


def _behind(prefix: str) -> str | None:
    """Returns the first text behind all that begin with the prefix, by code points; None if there is none."""
    while prefix and prefix[-1] == _LAST:
        prefix = prefix[:-1]
    if not prefix:
        return None
    after = ord(prefix[-1]) + 1
    return prefix[:-1] + chr(after if after not in _SURROGATES else _SURROGATES.stop)


def _living(owner_id: str | None) -> Select[Any]:
    workflows = tables.workflows.c
    query = select(*WORKFLOW.columns(tables.workflows)).where(workflows.delete_time.is_(None))
    return query if owner_id is None else query.where(workflows.owner_id == owner_id)


def _of_living(workflow_id: str) -> Update:
    workflows = tables.workflows.c
    return update(tables.workflows).where(workflows.id == workflow_id, workflows.delete_time.is_(None))


def _changes(tx: Transaction, statement: Update) -> bool:
    return tx.connection.execute(statement).rowcount == 1

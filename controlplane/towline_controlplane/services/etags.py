"""Entity tags: what names a state of an object, so that a caller changes only what it has seen (AIP-154).

A tag is a digest of all that can change about the object; the time of its last change makes a state that came back a
new one. It tells nobody anything that the object itself does not.
"""

import hashlib
import json
from typing import Final

from towline_controlplane.errors import EtagMismatch
from towline_controlplane.model import Workflow
from towline_controlplane.schedule_records import Schedule

_LENGTH: Final = 32


def etag(row: Workflow | Schedule) -> str:
    """Returns the tag of this state of an object."""
    state = _of_schedule(row) if isinstance(row, Schedule) else _of_workflow(row)
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()[:_LENGTH]


def require_etag(row: Workflow | Schedule, wanted: str) -> None:
    """Raises EtagMismatch unless the object is in the state that `wanted` names; an empty one names all."""
    if wanted and wanted != etag(row):
        kind = "schedule" if isinstance(row, Schedule) else "workflow"
        raise EtagMismatch(f"the {kind} has changed since it was read; read it again")


def _of_workflow(row: Workflow) -> tuple[object, ...]:
    """Versions never change, so that their ids stand for them."""
    return row.id, row.name, row.description, row.current_version_id, row.pinned_version_id, row.update_time


def _of_schedule(row: Schedule) -> tuple[object, ...]:
    """A revision stands for all that people set; times that come are not of that kind."""
    return row.id, row.revision, row.update_time

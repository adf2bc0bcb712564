"""Entity tags: what names a state of an object, so that a caller changes only what it has seen (AIP-154).

A tag is a digest of all that can change about the object; the time of its last change makes a state that came back a
new one. It tells nobody anything that the object itself does not.
"""

import hashlib
import json
from typing import Final

from towline_controlplane.errors import EtagMismatch
from towline_controlplane.model import Workflow

_LENGTH: Final = 32


def etag(row: Workflow) -> str:
    """Returns the tag of this state of a workflow; its versions never change, so that their ids stand for them."""
    state = (row.id, row.name, row.description, row.current_version_id, row.pinned_version_id, row.update_time)
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()[:_LENGTH]


def require_etag(row: Workflow, wanted: str) -> None:
    """Raises EtagMismatch unless the workflow is in the state that `wanted` names; an empty one names all."""
    if wanted and wanted != etag(row):
        raise EtagMismatch("the workflow has changed since it was read; read it again")

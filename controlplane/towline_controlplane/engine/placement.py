"""Which agents may run a step: a distinct set of requirements is a queue, claimed from by agents that satisfy it."""

import hashlib
import json
from collections.abc import Mapping


def queue_id(labels: Mapping[str, str]) -> str:
    """Returns the id of the queue for these requirements; equal requirements give equal ids everywhere."""
    text = json.dumps({"labels": dict(labels)}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def satisfies(agent_labels: Mapping[str, str], required: Mapping[str, str]) -> bool:
    """Tells whether an agent with these labels may claim from a queue that requires `required`."""
    return all(agent_labels.get(key) == value for key, value in required.items())

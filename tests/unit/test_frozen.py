"""Rows are copied field by field, and are equal and hashable like frozen dataclasses."""

import dataclasses

import pytest

from towline_controlplane.frozen import replace
from towline_controlplane.model import Failure, FailureClass, Lease

LEASE = Lease("run", "node", 1, 2, "hash", "agent")


def test_a_copy_differs_in_what_was_changed_only() -> None:
    changed = replace(LEASE, epoch=3, agent_id="other")
    assert changed == Lease("run", "node", 1, 3, "hash", "other")
    assert changed == dataclasses.replace(LEASE, epoch=3, agent_id="other")
    assert Lease("run", "node", 1, 2, "hash", "agent") == LEASE


def test_a_field_that_is_not_there_is_refused() -> None:
    with pytest.raises(KeyError, match="epochs"):
        replace(LEASE, epochs=3)


def test_equal_rows_have_equal_hashes() -> None:
    rows = {Failure(FailureClass.TRANSIENT, "A", "b"), Failure(FailureClass.TRANSIENT, "A", "b")}
    assert len(rows) == 1
    assert not hasattr(LEASE, "__dict__")

"""Judges the rows of one run by every rule. Pure."""

from towline_controlplane.audit.attempt_rules import check_attempts
from towline_controlplane.audit.edge_rules import check_edges
from towline_controlplane.audit.findings import Breach, Findings, RunRows
from towline_controlplane.audit.history import check_history
from towline_controlplane.audit.run_rules import check_nodes, check_run, check_states

_RULES = (check_run, check_states, check_attempts, check_edges, check_history)


def judge(rows: RunRows) -> list[Breach]:
    """Returns every invariant that the rows break; nothing if the run is as it may be at a commit."""
    findings = Findings(rows.run.id)
    check_nodes(rows, findings)
    if not findings.breaches:  # the other rules look steps up by their node
        for rule in _RULES:
            rule(rows, findings)
    return findings.breaches

"""Watches the rows after every transaction, and everything that only a simulation can see beside them.

Its numbers are those of the invariants. It keeps the rows as they were after the transaction before, so that it sees
every change by itself.
"""

import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from sim_agent import Execution, SentLogs

from towline.v1.agent_service_pb2 import (
    AppendLogsResponse,
    Directive,
    Lease,
    Offer,
    PullResponse,
    ReportResponse,
    SyncRequest,
    SyncResponse,
    Verdict,
)
from towline_agent.holdings import lease_key
from towline_controlplane.engine import transitions
from towline_controlplane.model import AttemptState, RunState, StepState

Row = Mapping[str, Any]
StepKey = tuple[str, str]

_TERMINAL = {
    "runs": {state.value for state in transitions.RUN_TERMINAL},
    "steps": {state.value for state in transitions.STEP_TERMINAL},
    "attempts": {state.value for state in transitions.ATTEMPT_TERMINAL},
}
_KEYS: Mapping[str, tuple[str, ...]] = {
    "runs": ("id",),
    "steps": ("run_id", "node_id"),
    "attempts": ("run_id", "node_id", "number"),
}


def _reachable(table: Mapping[Any, frozenset[Any]]) -> dict[str, set[str]]:
    """One transaction may take several transitions at once."""
    found: dict[str, set[str]] = {}
    for start in table:
        seen, waiting = {start}, [start]
        while waiting:
            new = table[waiting.pop()] - seen
            seen |= new
            waiting += new
        found[start.value] = {state.value for state in seen}
    return found


def _with_retry(table: Mapping[Any, frozenset[Any]], retry: Mapping[Any, frozenset[Any]]) -> dict[Any, frozenset[Any]]:
    return {state: following | retry.get(state, frozenset()) for state, following in table.items()}


_REACHABLE = {
    "runs": _reachable(_with_retry(transitions.RUN, transitions.RUN_RETRY)),
    "steps": _reachable(_with_retry(transitions.STEP, transitions.STEP_RETRY)),
    "attempts": _reachable(transitions.ATTEMPT),
}


class Auditor:
    """Looks after each transaction; what is wrong goes to `defects`."""

    def __init__(
        self, file: Path, dags: Mapping[str, dict[str, Any]], clock: Callable[[], int], defects: list[str]
    ) -> None:
        self.executions: list[Execution] = []
        self.sent_logs = SentLogs(defects=defects)
        self.runs_by_key: dict[str, str] = {}
        self.banned: set[str] = set()
        """Agents that an admin has disabled at some time: what they hold is moved at once, before they can know."""
        self._dags = dags
        self._clock = clock
        self._defects = defects
        self._cancelled: set[str] = set()
        self._frozen: set[str] = set()
        """Hand-outs of which the control plane has heard that they stand still, and of nothing else since."""
        self._retried: set[str] = set()
        self._connection = sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, isolation_level=None)
        self._version = -1
        self._raw: dict[str, dict[Any, tuple[Any, ...]]] = {table: {} for table in _KEYS}
        self._columns: dict[str, tuple[str, ...]] = {}

    def close(self) -> None:
        """Gives up the connection."""
        self._connection.close()

    # After each transaction

    def look(self) -> None:
        """Checks what the last transaction changed."""
        (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        if version == self._version:
            return
        self._version = version
        before = self._raw
        self._raw = {table: self._load(table) for table in _KEYS}
        changed = {
            table: [(key, before[table].get(key)) for key, row in rows.items() if before[table].get(key) != row]
            for table, rows in self._raw.items()
        }
        runs = [(run_id, old) for run_id, old in changed["runs"] if old is not None]
        # What a retry has begun again may have ended the same way in the same commit.
        self._retried = {r for r, old in runs if self._named("runs", old)["retries"] < self.row("runs", r)["retries"]}
        for table, changes in changed.items():
            for key, old in changes:
                if old is not None:
                    self._check_transition(table, key, self._named(table, old), self.row(table, key))
        for key, old in changed["steps"]:
            if old is not None:
                self._check_step(before, key, self._named("steps", old), self.row("steps", key))
        for key, _ in changed["attempts"]:
            self._check_attempt(key, self.row("attempts", key))
        for run_id in self._cancelled:
            self._demand(self.row("runs", run_id)["cancel_requested"], f"I8: the cancel of {run_id} was forgotten")

    def row(self, table: str, key: Any) -> Row:
        """Returns a row as it is now."""
        return self._named(table, self._raw[table][key])

    def rows(self, table: str) -> dict[Any, Row]:
        """Returns all rows as they are now."""
        return {key: self._named(table, row) for key, row in self._raw[table].items()}

    # What was answered is there (I8)

    def started(self, key: str, run_id: str) -> None:
        """A start was acknowledged."""
        self.look()
        self._demand(run_id in self._raw["runs"], f"I8: {run_id} was acknowledged and is not stored")
        known = self.runs_by_key.setdefault(key, run_id)
        self._demand(known == run_id, f"I10: the key {key} gave {known} and {run_id}")

    def cancelled(self, run_id: str) -> None:
        """A cancel was acknowledged; a repeated retry may have begun the run again before its answer came."""
        if self.row("runs", run_id)["retries"]:
            return
        self._cancelled.add(run_id)
        self._demand(self.row("runs", run_id)["cancel_requested"], f"I8: the cancel of {run_id} is not stored")

    def answered(self, request: Any, answer: Any) -> None:
        """An agent got an answer."""
        match answer:
            case AppendLogsResponse():
                self._logs_acknowledged(answer)
            case PullResponse():
                self._offers_given(answer.offers)
            case ReportResponse():
                self._offers_given(answer.offers)
                for result, verdict in zip(request.results, answer.verdicts, strict=True):
                    if verdict.code == Verdict.ACCEPTED:
                        self._report_acknowledged(result.lease)
            case SyncResponse():
                self._synced(request, answer)
            case _:
                return

    def weight_of(self, execution: Execution) -> int:
        """Returns the slots that an execution takes."""
        return self._node((execution.run_id, execution.node_id)).get("weight", 1)

    def ended(self, execution: Execution) -> None:
        """A plugin has ended by itself, or for want of time: not while it stands still."""
        self._demand(execution.key not in self._frozen, f"I11: {execution.node_id} ended while it was frozen")

    def _synced(self, request: SyncRequest, answer: SyncResponse) -> None:
        self._frozen |= {lease_key(held.lease) for held in request.held if held.frozen}
        directed = [each.lease for each in answer.directives if each.action != Directive.FREEZE]
        self._frozen -= {lease_key(lease) for lease in directed}

    def _offers_given(self, offers: Iterable[Offer]) -> None:
        for offer in offers:
            step = self._raw["steps"].get((offer.lease.run_id, offer.lease.node_id))
            stored = step is not None and self._named("steps", step)["epoch"] >= offer.lease.epoch
            self._demand(stored, f"I8: the offer of {_lease(offer.lease)} is not stored")

    def _report_acknowledged(self, lease: Lease) -> None:
        attempt = self._raw["attempts"].get((lease.run_id, lease.node_id, lease.attempt))
        row = self._named("attempts", attempt) if attempt else None
        recorded = row is not None and row["report_digest"] is not None and row["epoch"] == lease.epoch
        self._demand(recorded, f"I8: the report of {_lease(lease)} was accepted and is not stored")

    def _logs_acknowledged(self, answer: AppendLogsResponse) -> None:
        if answer.lease_lost or not answer.next_offset:
            return
        key = (answer.lease.run_id, answer.lease.node_id, answer.lease.attempt)
        query = "SELECT size FROM attempt_logs WHERE run_id = ? AND node_id = ? AND attempt = ?"
        found = self._connection.execute(query, key).fetchone()
        stored = found is not None and found[0] >= answer.next_offset
        self._demand(stored, f"I8: {answer.next_offset} bytes of the log of {_lease(answer.lease)} are not stored")

    # What plugins see

    def executing(self, execution: Execution) -> None:
        """A plugin has begun: its inputs are the recorded outputs of the winners (I5, I7)."""
        run = self.row("runs", execution.run_id)
        recorded: dict[str, Any] = {}
        for edge in self._dags[run["workflow_id"]]["edges"]:
            if edge["to"] != execution.node_id:
                continue
            source = self.row("steps", (execution.run_id, edge["from"]))
            self._demand(source["state"] in _TERMINAL["steps"], f"I5: {execution.node_id} runs before {edge['from']}")
            if source["state"] == "SUCCEEDED" and source["output"] is not None:
                recorded[edge["from"]] = json.loads(source["output"])
        self._demand(execution.inputs == recorded, f"I7: {execution.node_id} got {execution.inputs}, not {recorded}")

    # At the end

    def unfinished(self) -> list[str]:
        """Returns the ids of the runs that have not ended."""
        return [key for key, run in self.rows("runs").items() if run["state"] not in _TERMINAL["runs"]]

    def conclude(self, *, disks_kept: bool) -> None:
        """Checks what must hold once all is over."""
        self.look()
        for run_id, run in self.rows("runs").items():
            self._check_run(run_id, run)
        runs = set(self.runs_by_key.values())
        self._demand(runs == set(self._raw["runs"]), "I10: runs that nobody asked for, or two for one key")
        for key, attempt in self.rows("attempts").items():
            self._check_log(key, attempt, complete=disks_kept)

    # Inside

    def _check_transition(self, table: str, key: Any, old: Row, new: Row) -> None:
        legal = new["state"] in _REACHABLE[table][old["state"]]
        self._demand(legal, f"{table} {key}: {old['state']} → {new['state']} is not a transition")
        if table == "runs" and key in self._retried:
            self._cancelled.discard(key)  # it begins again, perhaps in the commit in which the cancel ended it
        still_ended = old["state"] in _TERMINAL[table] and new["state"] == old["state"]
        again = table != "attempts" and (key if table == "runs" else key[0]) in self._retried
        changed = [name for name in old if old[name] != new[name]] if still_ended and not again else []
        self._demand(not changed, f"I1, I6: {table} {key} has ended as {old['state']} and changed {changed}")

    def _check_step(self, before: dict[str, dict[Any, tuple[Any, ...]]], key: StepKey, old: Row, new: Row) -> None:
        """A transaction takes results and commands first, then hands out: what it is judged by is the run after it."""
        self._demand(
            new["epoch"] in (old["epoch"], old["epoch"] + 1), f"I3: {key}: epoch {old['epoch']} → {new['epoch']}"
        )
        if new["epoch"] == old["epoch"]:
            return
        run = self.row("runs", key[0])
        self._demand(run["state"] != RunState.PAUSED, f"I11: {key} was handed out in a paused run")
        self._check_holder(key, new["agent_id"])
        self._demand(not run["cancel_requested"], f"I12: {key} was handed out in a cancelled run")
        self._demand(new["not_before"] <= self._clock(), f"I13: {key} was handed out before its time")
        last_key = (*key, old["attempt"])
        if last_key not in before["attempts"]:
            return
        if new["attempt"] != old["attempt"]:
            last = self.row("attempts", last_key)
            self._demand(last["state"] in _TERMINAL["attempts"], f"I3: {key} was handed out while {last['state']}")
            self._check_fenced(key, last)
        elif old["state"] == StepState.LEASED:
            lapse = self._named("attempts", before["attempts"][last_key])["offer_expire_time"]
            self._demand(lapse <= self._clock(), f"I3: {key} was offered again before its offer had lapsed")

    def _check_holder(self, key: StepKey, agent_id: str) -> None:
        query = "SELECT drained, disabled, slots FROM agents WHERE id = ?"
        drained, disabled, slots = self._connection.execute(query, (agent_id,)).fetchone()
        self._demand(not drained, f"I20: {key} was handed to {agent_id}, which is drained")
        self._demand(not disabled, f"I20: {key} was handed to {agent_id}, which is disabled")
        leased = (step for step in self.rows("steps").values() if step["state"] == StepState.LEASED)
        held = [(step["run_id"], step["node_id"]) for step in leased if step["agent_id"] == agent_id]
        taken = sum(self._node(each).get("weight", 1) for each in held)
        self._demand(taken <= slots, f"I19: {agent_id} holds what takes {taken} of its {slots} slots")

    def _check_fenced(self, key: StepKey, last: Row) -> None:
        """The step is handed out again after its last attempt: who held that is not at it any more."""
        by_silence = last["state"] == AttemptState.LOST and last["report_digest"] is None
        if by_silence and last["agent_id"] not in self.banned:
            live = [each for each in self._running(key) if each.key == _key_of(last)]
            self._demand(not live, f"I27: {key} was given away while {_who(live)} still ran it")
        if self._node(key)["sideEffects"] == "UNSAFE" and last["number"] > self.row("steps", key)["attempt_base"]:
            self._demand(last["report_digest"] is not None, f"UNSAFE {key} was run again after a loss")

    def _check_attempt(self, key: tuple[str, str, int], attempt: Row) -> None:
        run_id, node_id, number = key
        step = self.row("steps", (run_id, node_id))
        self._demand(number == 1 or (run_id, node_id, number - 1) in self._raw["attempts"], f"I4: {key} has a gap")
        self._demand(attempt["epoch"] <= step["epoch"], f"I3: {key} is ahead of its step")
        if attempt["state"] != AttemptState.SUCCEEDED:
            return
        self._demand((step["state"], step["attempt"]) == ("SUCCEEDED", number), f"I7: {key} won and its step did not")
        wins = [each for each in self.executions if each.key == _key_of(attempt) and each.output is not None]
        outputs = {each.output.decode() for each in wins if each.output is not None}
        self._demand(step["output"] in outputs, f"I7: {key} succeeded with what no execution of it said")

    def _check_run(self, run_id: str, run: Row) -> None:
        query = "SELECT sequence FROM events WHERE run_id = ? ORDER BY sequence"
        numbers = [number for (number,) in self._connection.execute(query, (run_id,))]
        self._demand(numbers == list(range(1, run["event_count"] + 1)), f"I15: the events of {run_id} are {numbers}")
        steps = [step for step in self.rows("steps").values() if step["run_id"] == run_id]
        open_steps = [step for step in steps if step["state"] not in _TERMINAL["steps"]]
        ended = run["state"] in _TERMINAL["runs"]
        self._demand(ended == (not open_steps), f"I6: {run_id} is {run['state']} with {len(open_steps)} open steps")

    def _check_log(self, key: tuple[str, str, int], attempt: Row, *, complete: bool) -> None:
        query = "SELECT start, data FROM log_chunks WHERE run_id = ? AND node_id = ? AND attempt = ? ORDER BY start"
        stored = b""
        for start, data in self._connection.execute(query, key):
            self._demand(start == len(stored), f"I14: the log of {key} has a gap or an overlap at {start}")
            stored += data
        sent = self.sent_logs.texts.get((*key, attempt["epoch"]), b"")
        self._demand(sent.startswith(stored), f"I14: the log of {key} is not what its holder sent")
        if complete and attempt["report_digest"] is not None:
            expected: int = json.loads(attempt["usage"])["log_bytes"]
            self._demand(len(stored) == expected, f"I14: {len(stored)} of {expected} bytes of the log of {key} arrived")

    def _running(self, key: StepKey) -> list[Execution]:
        return [e for e in self.executions if (e.run_id, e.node_id) == key and e.ended is None and e.process.alive]

    def _node(self, key: StepKey) -> dict[str, Any]:
        dag = self._dags[self.row("runs", key[0])["workflow_id"]]
        return next(node for node in dag["nodes"] if node["id"] == key[1])

    def _load(self, table: str) -> dict[Any, tuple[Any, ...]]:
        cursor = self._connection.execute(f"SELECT {', '.join(_KEYS[table])}, * FROM {table}")
        width = len(_KEYS[table])
        if table not in self._columns:
            self._columns[table] = tuple(column[0] for column in cursor.description[width:])
        return {row[0] if width == 1 else row[:width]: row[width:] for row in cursor}

    def _named(self, table: str, row: tuple[Any, ...]) -> Row:
        return dict(zip(self._columns[table], row, strict=True))

    def _demand(self, holds: object, broken: str) -> None:
        if not holds:
            self._defects.append(broken)


def _key_of(attempt: Row) -> str:
    return lease_key(
        Lease(run_id=attempt["run_id"], node_id=attempt["node_id"], attempt=attempt["number"], epoch=attempt["epoch"])
    )


def _lease(lease: Lease) -> str:
    return f"{lease.run_id}/{lease.node_id}#{lease.attempt} epoch {lease.epoch}"


def _who(executions: list[Execution]) -> str:
    return ", ".join(execution.process.name for execution in executions)

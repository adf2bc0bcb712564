"""The rows of one commit: loaded set-based, moved by the engine's decisions, saved once.

The only place that pairs the engine with the store. It lives for one transaction, in the committer's thread.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from towline_controlplane.blueprints import Blueprint, Blueprints
from towline_controlplane.engine.advance import advance
from towline_controlplane.engine.commands import Command, EndRun, Propagate, Retry
from towline_controlplane.engine.creation import RunRequest, create_run
from towline_controlplane.engine.graph import Dag
from towline_controlplane.engine.handout import Handout, Holder, hand_out
from towline_controlplane.engine.transitions import RUN_TERMINAL
from towline_controlplane.engine.view import Decision, View, references, successors
from towline_controlplane.fairness import FairShares
from towline_controlplane.frozen import replace
from towline_controlplane.model import Attempt, Output, Run, Step, StepState
from towline_controlplane.requirements import Requirements
from towline_controlplane.schedule_records import OpenRun
from towline_controlplane.store import concurrency, leases, queues, released_blobs, retention, runs, schedules
from towline_controlplane.store.database import Transaction
from towline_controlplane.store.runs import Request, RequestKey, StepKey
from towline_controlplane.unsaved import Unsaved
from towline_controlplane.views import Views, forget_bulk


@dataclass(frozen=True, slots=True)
class Needs:
    """The rows that a submission looks at. `open_runs` loads every open step of a run, `whole_runs` every step."""

    steps: tuple[StepKey, ...] = ()
    open_runs: tuple[str, ...] = ()
    whole_runs: tuple[str, ...] = ()
    request: Request | None = None
    """An idempotency key to take, unless it is taken."""

    @property
    def run_ids(self) -> frozenset[str]:
        """The runs that the rows belong to."""
        return frozenset({run_id for run_id, _ in self.steps} | {*self.open_runs, *self.whole_runs})


@dataclass(slots=True)
class Changes:
    """What a commit did, for those who are told after it."""

    now: int
    runs: dict[str, Run] = field(default_factory=dict[str, Run])
    steps: dict[StepKey, Step] = field(default_factory=dict[StepKey, Step])
    views: list[View] = field(default_factory=list[View])
    """What is known of the runs from now on."""
    queue_ids: set[str] = field(default_factory=set[str])
    """Of queues that nobody may have known before."""

    @property
    def admits(self) -> bool:
        """Tells whether a slot of a concurrency limit was freed, or a run may have begun to wait for one."""
        limited = (run for run in self.runs.values() if run.concurrency_group is not None)
        return any(run.state in RUN_TERMINAL or not run.admitted for run in limited)

    @property
    def frees_schedule(self) -> bool:
        """Tells whether a run of a schedule has ended."""
        return any(run.schedule_id is not None and run.state in RUN_TERMINAL for run in self.runs.values())


class Ledger:
    """Views of the runs that a batch of submissions touches, and what has become of their rows."""

    def __init__(
        self, tx: Transaction, blueprints: Blueprints, shares: FairShares, views: Views, jitter: Callable[[], float]
    ) -> None:
        self.tx = tx
        self._changes = Changes(tx.now)
        self._blueprints = blueprints
        self._shares = shares
        self._remembered = views
        self._jitter = jitter
        self._views: dict[str, View] = {}
        self._loaded: set[StepKey] = set()
        self._requests: dict[RequestKey, Request] = {}
        self._deleted: set[str] = set()
        self._unsaved = Unsaved()
        self._ended: defaultdict[str, list[str]] = defaultdict(list)

    def load(self, needs: Iterable[Needs]) -> None:
        """Takes the keys, locks the runs in the order of their ids, loads the steps with their newest attempts."""
        wanted = list(needs)
        requests = [need.request for need in wanted if need.request is not None]
        self._requests = runs.remember_requests(self.tx, requests) if requests else {}
        keys = {key for need in wanted for key in need.steps}
        opened = {run_id for need in wanted for run_id in need.open_runs}
        whole = {run_id for need in wanted for run_id in need.whole_runs}
        run_ids = {run_id for run_id, _ in keys} | opened | whole
        if run_ids:
            self._open(runs.lock_runs(self.tx, run_ids))
        self._load_steps(keys)
        for run_id in sorted(opened & self._views.keys()):
            self._take(runs.load_open_steps(self.tx, run_id))
        for run_id in sorted(whole & self._views.keys()):
            self._take(runs.load_all_steps(self.tx, run_id))
        self._load_attempts(key for key in (*keys, *self._loaded) if key[0] in self._views)

    def run(self, run_id: str) -> Run | None:
        """Returns a loaded run as the batch has it, None if it does not exist."""
        view = self._views.get(run_id)
        return view.run if view else None

    def step(self, run_id: str, node_id: str) -> Step | None:
        """Returns a loaded step as the batch has it."""
        view = self._views.get(run_id)
        return view.steps.get(node_id) if view else None

    def attempt(self, run_id: str, node_id: str) -> Attempt | None:
        """Returns the newest attempt of a loaded step as the batch has it."""
        view = self._views.get(run_id)
        return view.attempts.get(node_id) if view else None

    def open_runs(self, schedule_id: str, limit: int) -> list[OpenRun]:
        """Returns runs of a schedule that have not ended, as the batch has them."""
        known = {run_id: view.run for run_id, view in self._views.items() if view.run.schedule_id == schedule_id}
        stored = schedules.open_runs(self.tx, schedule_id, limit)
        return [
            *(run for run in stored if run.id not in known),
            *(OpenRun(run.id, run.cancel_requested) for run in known.values() if run.state not in RUN_TERMINAL),
        ]

    def holder(self, request: Request) -> Request:
        """Returns the request that has the idempotency key, which may be this one."""
        return self._requests[request.key]

    def create(self, blueprint: Blueprint, request: RunRequest) -> Run:
        """Adds a new run with all its steps."""
        view, decision = create_run(blueprint.dag, request, self.tx.now)
        self._views[request.run_id] = self._unsaved.created[request.run_id] = view
        self._note(view, decision)
        return view.run

    def delete(self, run_id: str) -> None:
        """Hides a loaded run that has ended, from the rest of the batch too."""
        del self._views[run_id]
        self._ended.pop(run_id, None)
        self._deleted.add(run_id)

    def decide(self, run_id: str, command: Command) -> Run:
        """Applies a command to a loaded run that has not ended."""
        view = self._views[run_id]
        if view.run.state in RUN_TERMINAL:
            raise ValueError(f"run {run_id} has ended")
        self._note(view, advance(view, command, self.tx.now, self._jitter()))
        return view.run

    def retry(self, run_id: str) -> Run:
        """Starts a wholly loaded run that has ended without success over from its failed steps."""
        view = self._views[run_id]
        # What ended with the run in this batch has no edges left to decide: they are those of the new start.
        self._ended.pop(run_id, None)
        self._parse_outputs(view, view.dag.referenced)
        blobs = _blobs(view)
        self._note(view, advance(view, Retry(), self.tx.now, self._jitter()))
        released_blobs.note_use(self.tx, blobs - _blobs(view))
        return view.run

    def dag(self, run_id: str) -> Dag:
        """Returns the DAG of a loaded run."""
        return self._views[run_id].dag

    def steps(self, run_id: str) -> Mapping[str, Step]:
        """Returns the loaded steps of a run."""
        return self._views[run_id].steps

    def propagate(self) -> None:
        """Decides the edges behind everything that ended, in waves over all runs of the batch, until nothing ends.

        A run that has nothing open then, and an output to be worked out, ends with it.
        """
        while self._ended:
            wave = dict(self._ended)
            self._ended.clear()
            self._load_behind(wave)
            for run_id, ended in wave.items():
                if self._views[run_id].run.state not in RUN_TERMINAL:
                    self.decide(run_id, Propagate(tuple(ended)))
        for run_id, view in self._views.items():
            if view.run.open_steps == 0 and view.run.state not in RUN_TERMINAL:
                self._load_outputs(view, view.dag.policies.references)
                self.decide(run_id, EndRun())

    def claimable(self, queue_ids: Collection[str], limit: int, chance: float) -> list[Step]:
        """Returns steps that can be handed out, as saved, in their order; their inputs are loaded."""
        found = leases.lock_claimable(self.tx, queue_ids, limit, chance)
        self._open(found.event_counts)
        self._load_steps(found.keys)
        steps = [self._views[run_id].steps[node_id] for run_id, node_id in found.keys]
        due = [step for step in steps if leases.is_claimable(step, self.tx.now)]
        self._load_steps((step.run_id, source) for step in due for source in self._sources(step))
        return due

    def hand_out(self, step: Step, holder: Holder) -> Handout:
        """Gives a claimable step to `holder`."""
        view = self._views[step.run_id]
        handout = hand_out(view.run, step, holder, self.tx.now)
        self._note(view, handout.decision)
        return handout

    def inputs(self, step: Step) -> dict[str, Output]:
        """Returns the outputs of the predecessors of a claimable step that have one, by node id."""
        steps = self._views[step.run_id].steps
        sources = ((node_id, steps[node_id]) for node_id in self._sources(step))
        return {
            node_id: Output(source.output, source.output_digest)
            for node_id, source in sources
            if source.output is not None or source.output_digest is not None
        }

    def artifact_counts(self, step: Step) -> dict[str, int]:
        """Returns how many artifacts the predecessors of a claimable step have, of those that succeeded with any."""
        steps = self._views[step.run_id].steps
        sources = (steps[node_id] for node_id in self._sources(step))
        return {
            source.node_id: source.artifact_count
            for source in sources
            if source.artifact_count and source.state is StepState.SUCCEEDED
        }

    def blueprint(self, run_id: str) -> Blueprint:
        """Returns the blueprint of a loaded run."""
        return self._blueprints.of_run(self.tx, self._views[run_id].run)

    def save(self) -> None:
        """Writes every row that has changed since the last save once."""
        self._enqueue()
        self._unsaved.save(self.tx)
        ended = [r.id for r in self._unsaved.runs.values() if r.concurrency_group and r.state in RUN_TERMINAL]
        if ended:
            concurrency.release_slots(self.tx, ended)
        if self._deleted:
            retention.hide_runs(self.tx, self._deleted)
        self._changes.runs.update(self._unsaved.runs)
        self._changes.steps.update(self._unsaved.steps)
        self._unsaved = Unsaved()
        self._deleted.clear()

    def close(self) -> Changes:
        """Returns what all saves have changed, and the views for commits to come."""
        for run_id, node_id in self._loaded | self._changes.steps.keys():
            if run_id in self._views:
                forget_bulk(self._views[run_id], node_id)
        self._changes.views.extend(self._views.values())
        return self._changes

    def _enqueue(self) -> None:
        """Gives every step that became READY its place among those of other owners."""
        enqueued = [
            step for step in self._unsaved.steps.values() if step.state is StepState.READY and not step.fair_key
        ]
        self._ensure_queues(enqueued)
        heads = leases.first_fair_keys(self.tx, {(step.queue_id, step.priority) for step in enqueued})
        for step in enqueued:
            view = self._views[step.run_id]
            lane = (step.queue_id, step.priority)
            key = self._shares.next_key(lane, view.run.owner_id, heads, self.tx.now)
            placed = replace(step, fair_key=key)
            view.steps[step.node_id] = self._unsaved.steps[step.run_id, step.node_id] = placed

    def _ensure_queues(self, enqueued: Iterable[Step]) -> None:
        """Steps with more memory than at first wait in queues of their own, which may be new."""
        raised = {step.queue_id: self._asked(step) for step in enqueued if step.memory_limit_mb}
        if raised:
            queues.ensure_queues(self.tx, raised)
            self._changes.queue_ids.update(raised)

    def _asked(self, step: Step) -> Requirements:
        node = self._views[step.run_id].dag.nodes[step.position]
        return node.requirements.with_memory(step.memory_limit_mb)

    def _note(self, view: View, decision: Decision) -> None:
        self._unsaved.note(view, decision)
        view.apply(decision)
        if decision.ended:
            self._ended[view.run.id].extend(decision.ended)

    def _view_of(self, run: Run) -> View:
        blueprint = self._blueprints.of_run(self.tx, run)
        return View(blueprint.dag, run, json.loads(run.input) if blueprint.reads_input else None)

    def _open(self, event_counts: Mapping[str, int]) -> None:
        """Gets views of locked runs whose newest events have these numbers."""
        for run_id in event_counts.keys() - self._views.keys():
            view = self._remembered.take(run_id, event_counts[run_id])
            if view is not None:
                self._views[run_id] = view
        missing = event_counts.keys() - self._views.keys()
        for run in runs.load_runs(self.tx, missing) if missing else ():
            self._views[run.id] = self._view_of(run)

    def _sources(self, step: Step) -> list[str]:
        dag = self._views[step.run_id].dag
        return [dag.nodes[source].id for source in dag.incoming[step.position]]

    def _load_behind(self, wave: dict[str, list[str]]) -> None:
        referred = {run_id: references(self._views[run_id].dag, ended) for run_id, ended in wave.items()}
        self._load_steps(
            (run_id, node_id)
            for run_id, ended in wave.items()
            for node_id in successors(self._views[run_id].dag, ended) | referred[run_id]
        )
        for run_id, node_ids in referred.items():
            self._parse_outputs(self._views[run_id], node_ids)

    def _load_outputs(self, view: View, node_ids: Iterable[str]) -> None:
        wanted = set(node_ids)
        self._load_steps((view.run.id, node_id) for node_id in wanted)
        self._parse_outputs(view, wanted)

    def _load_steps(self, keys: Iterable[StepKey]) -> None:
        missing = {
            (run_id, node_id)
            for run_id, node_id in keys
            if run_id in self._views and node_id not in self._views[run_id].steps
        }
        if missing:
            self._take(runs.load_steps(self.tx, missing))

    def _load_attempts(self, keys: Iterable[StepKey]) -> None:
        missing: set[StepKey] = set()
        for run_id, node_id in keys:
            view = self._views[run_id]
            step = view.steps.get(node_id)
            if step is not None and step.attempt and node_id not in view.attempts:
                missing.add((run_id, node_id))
        for attempt in runs.load_newest_attempts(self.tx, missing) if missing else ():
            self._views[attempt.run_id].attempts[attempt.node_id] = attempt

    def _take(self, steps: Iterable[Step]) -> None:
        for step in steps:
            self._loaded.add((step.run_id, step.node_id))
            self._views[step.run_id].steps.setdefault(step.node_id, step)

    @staticmethod
    def _parse_outputs(view: View, node_ids: Iterable[str]) -> None:
        for node_id in node_ids:
            step = view.steps[node_id]
            if node_id not in view.outputs and step.state is StepState.SUCCEEDED and step.output is not None:
                view.outputs[node_id] = json.loads(step.output)


def _blobs(view: View) -> set[str]:
    return {step.output_digest for step in view.steps.values() if step.output_digest is not None}

"""What two control planes may do about the same thing at the same time, and all that may come of it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from lives import VERSIONS, Life, Stage
from rig import FakeAgent, failed, succeeded
from schedule_samples import a_schedule, runs_of, start_of

from towline_controlplane.engine.firing import stopped
from towline_controlplane.errors import InvalidState
from towline_controlplane.handouts import StepOffer
from towline_controlplane.ids import new_id
from towline_controlplane.model import FailureClass, RunState, WorkflowVersion
from towline_controlplane.schedule_records import Origin, Overlap, Schedule
from towline_controlplane.store import schedules
from towline_controlplane.store.database import Transaction
from towline_controlplane.submissions import Verdict

Act = Callable[[Life], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Scene:
    """What two control planes are about to do to some runs, and what may come of it as (first, second)."""

    run_ids: list[str]
    acts: tuple[Act, Act]


@dataclass(slots=True)
class Props:
    """What scenes are made of: once for a database, as runs differ and workflows need not."""

    stage: Stage
    agents: list[FakeAgent] = field(default_factory=list[FakeAgent])
    versions: dict[str, WorkflowVersion] = field(default_factory=dict[str, WorkflowVersion])

    async def prepare(self, life: Life) -> None:
        self.agents = [await life.rig.agent("one"), await life.rig.agent("two")]
        self.versions["plain"] = await life.rig.workflow(["a"])
        self.versions["timed"] = await life.rig.workflow(["a"], timeoutMs=1_000)
        self.versions["limited"] = await life.rig.workflow(["a"], concurrency={"limit": 1})
        self.versions["once"] = await life.rig.workflow([{"id": "a", "retryConfig": {"maxAttempts": 1}}])

    async def start(self, life: Life, version: str = "plain") -> str:
        return (await life.rig.start_version(self.versions[version])).id

    async def lease(self, life: Life) -> StepOffer:
        self.agents[0].rig = life.rig
        (offer,) = await self.agents[0].pull()
        await self.agents[0].start(offer)
        return offer

    def pull(self, number: int) -> Act:
        async def act(life: Life) -> int:
            claim = await self.agents[number].claim(1)
            _, served = await life.rig.orchestrator.exchange((), (), claim)
            return len(served.offers)

        return act

    def report(self, offer: StepOffer) -> Act:
        async def act(life: Life) -> object:
            result = self.agents[0].result(offer, succeeded("a"))
            verdicts, _ = await life.rig.orchestrator.exchange((), [result], None)
            return verdicts[0]

        return act


def duty(name: str) -> Act:
    return lambda life: life.ticks[name]()


def steer(command: str, run_id: str) -> Act:
    async def act(life: Life) -> str:
        try:
            return (await getattr(life.rig.orchestrator, command)(run_id, None)).state
        except InvalidState:
            return "refused"

    return act


async def claims_of_one_step(props: Props, life: Life) -> Scene:
    return Scene([await props.start(life)], (props.pull(0), props.pull(1)))


async def starts_with_one_key(props: Props, life: Life) -> Scene:
    key, started = new_id(), list[str]()

    async def act(replica: Life) -> bool:
        started.append((await replica.rig.start_version(props.versions["plain"], key, "digest")).id)
        return len(set(started)) == 1

    return Scene(started, (act, act))


async def reapers(props: Props, life: Life) -> Scene:
    run_id = await props.start(life)
    await props.lease(life)
    await restart(props.agents[0])
    return Scene([run_id], (duty("leases"), duty("leases")))


async def report_and_reaper(props: Props, life: Life) -> Scene:
    run_id = await props.start(life)
    offer = await props.lease(life)
    await restart(props.agents[0])
    return Scene([run_id], (props.report(offer), duty("leases")))


async def restart(agent: FakeAgent) -> None:
    agent.session_id = new_id()
    await agent.open_session()


async def timers_of_an_offer(props: Props, life: Life) -> Scene:
    run_id = await props.start(life)
    props.agents[0].rig = life.rig
    await props.agents[0].pull()
    life.rig.clock.advance(6)
    return Scene([run_id], (duty("offers"), duty("offers")))


async def timers_of_a_run(props: Props, life: Life) -> Scene:
    run_id = await props.start(life, "timed")
    life.rig.clock.advance(2)
    return Scene([run_id], (duty("deadlines"), duty("deadlines")))


async def admissions_to_one_slot(props: Props, life: Life) -> Scene:
    run_ids = [await props.start(life, "limited"), await props.start(life, "limited")]
    return Scene(run_ids, (duty("admission"), duty("admission")))


async def pause_and_claim(props: Props, life: Life) -> Scene:
    run_id = await props.start(life)
    return Scene([run_id], (steer("pause", run_id), props.pull(0)))


async def cancel_and_claim(props: Props, life: Life) -> Scene:
    run_id = await props.start(life)
    return Scene([run_id], (steer("cancel", run_id), props.pull(0)))


async def cancel_and_report(props: Props, life: Life) -> Scene:
    run_id = await props.start(life)
    offer = await props.lease(life)
    return Scene([run_id], (steer("cancel", run_id), props.report(offer)))


async def retries_of_a_run(props: Props, life: Life) -> Scene:
    run_id = await props.start(life, "once")
    offer = await props.lease(life)
    await props.agents[0].report(offer, failed("a", FailureClass.PERMANENT))
    return Scene([run_id], (steer("retry", run_id), steer("retry", run_id)))


async def times_of_a_schedule(props: Props, life: Life) -> Scene:
    schedule, started = await due_schedule(props, life), list[str]()
    return Scene(started, (fire(props, schedule, started), fire(props, schedule, started)))


async def backfill_and_time(props: Props, life: Life) -> Scene:
    schedule, started = await due_schedule(props, life), list[str]()
    version = props.versions["plain"]

    async def backfill(replica: Life) -> str:
        start = start_of(schedule, version, schedule.next_time or 0)
        run = await replica.rig.orchestrator.start_for_schedule(start, Origin.BACKFILL)
        await note_runs(props, schedule, started)
        return "had a run" if run is None else "started"

    return Scene(started, (backfill, fire(props, schedule, started)))


async def pause_and_time(props: Props, life: Life) -> Scene:
    schedule, started = await due_schedule(props, life), list[str]()
    done: list[bool] = []

    def pause_it(tx: Transaction) -> None:
        row = schedules.lock_schedule(tx, schedule.id, None)
        assert row is not None
        schedules.save_schedule(tx, stopped(row, "paused"))

    async def pause(replica: Life) -> str:
        await replica.rig.database.write(pause_it)
        done.append(True)
        return "paused"

    async def act(replica: Life) -> object:
        acted = await fire(props, schedule, started)(replica)
        was_paused = bool(done)
        row = await props.stage.database.read(lambda tx: schedules.get_schedule(tx, schedule.id, None))
        assert row is not None
        assert row.paused or not was_paused
        return acted

    return Scene(started, (pause, act))


async def due_schedule(props: Props, life: Life) -> Schedule:
    """Returns a schedule whose time has come, the only one."""
    clock = life.rig.clock
    version = props.versions["plain"]
    VERSIONS[version.workflow_id] = version
    every_minute = {"cron": None, "interval": 60_000_000, "overlap": Overlap.ALLOW_ALL}
    schedule = a_schedule(clock(), version.workflow_id, **every_minute)

    def replace_all(tx: Transaction) -> None:
        for row in schedules.list_schedules(tx, None, None, 100):
            schedules.delete_schedule(tx, row.id)
        schedules.insert_schedule(tx, schedule)

    await life.rig.database.write(replace_all)
    clock.now = schedule.next_time or 0
    return schedule


def fire(props: Props, schedule: Schedule, started: list[str]) -> Act:
    async def act(replica: Life) -> int:
        acted = await replica.ticks["schedules"]() == 0.0
        await note_runs(props, schedule, started)
        return int(acted)

    return act


async def note_runs(props: Props, schedule: Schedule, started: list[str]) -> None:
    """Adds the runs of a schedule to those of the scene: one at most."""
    runs = await runs_of(props.stage.database, schedule.id)
    assert len(runs) <= 1
    started += [run.id for run in runs]


Outcomes = set[tuple[object, object]]
RUNNING, PENDING, PAUSED, CANCELLED = RunState.RUNNING, RunState.PENDING, RunState.PAUSED, RunState.CANCELLED
RACES: list[tuple[Callable[[Props, Life], Awaitable[Scene]], Outcomes]] = [
    (claims_of_one_step, {(1, 0), (0, 1)}),
    (starts_with_one_key, {(True, True)}),
    (reapers, {(1, 0), (0, 1)}),
    (report_and_reaper, {(Verdict.ACCEPTED, 0), (Verdict.LEASE_LOST, 1)}),
    (timers_of_an_offer, {(1, 0), (0, 1)}),
    (timers_of_a_run, {(1, 0), (0, 1)}),
    (admissions_to_one_slot, {(1, 0), (0, 1)}),
    (pause_and_claim, {(PAUSED, 0), (PAUSED, 1)}),
    (cancel_and_claim, {(CANCELLED, 0), (PENDING, 1)}),
    (cancel_and_report, {(RUNNING, Verdict.ACCEPTED), ("refused", Verdict.ACCEPTED)}),
    (times_of_a_schedule, {(1, 0), (0, 1)}),
    (backfill_and_time, {("started", 1), ("had a run", 1)}),
    (pause_and_time, {("paused", 0), ("paused", 1)}),
    (retries_of_a_run, {(PENDING, "refused"), ("refused", PENDING)}),
]
IDS = [make.__name__ for make, _ in RACES]

"""What two control planes may do about the same thing at the same time, and all that may come of it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from lives import Life, Stage
from rig import FakeAgent, failed, succeeded

from towline_controlplane.errors import InvalidState
from towline_controlplane.handouts import StepOffer
from towline_controlplane.ids import new_id
from towline_controlplane.model import FailureClass, RunState, WorkflowVersion
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
    (retries_of_a_run, {(PENDING, "refused"), ("refused", PENDING)}),
]
IDS = [make.__name__ for make, _ in RACES]

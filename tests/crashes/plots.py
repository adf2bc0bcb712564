"""What a client and an agent do in a scenario, over and over until it is done, whatever becomes of the control plane.

Both behave as real ones: the client repeats a request that was not answered under the same idempotency key, the agent
repeats its reports with the same lease until they are answered, and claims again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from lives import Life
from rig import LEASE_SECONDS, FakeAgent, Rig, failed, succeeded

from towline_controlplane.engine.commands import EndAttempt, Outcome
from towline_controlplane.engine.transitions import RUN_TERMINAL
from towline_controlplane.errors import InvalidState, Unavailable
from towline_controlplane.handouts import StepOffer
from towline_controlplane.ids import new_id
from towline_controlplane.log_writer import LogChunk
from towline_controlplane.model import FailureClass, Run, RunState, Step, StepState, WorkflowVersion
from towline_controlplane.submissions import Verdict

Steps = Mapping[str, Step]
RESTART_AGENT = "restart the agent"
WAIT = "wait"
_TURNS = 60


@dataclass(frozen=True, slots=True)
class Order:
    """What the client asks for next, once the run is so far; `command` is a method of the orchestrator."""

    command: str
    when: Callable[[Run, Steps], bool]


@dataclass(frozen=True, slots=True)
class Plot:
    """A workflow, what its nodes give, and what happens to its run; a node withholds its result for some orders."""

    name: str
    ends: tuple[RunState, Mapping[str, StepState]]
    nodes: Sequence[str | Mapping[str, object]]
    edges: Sequence[tuple[str, str]] = ()
    conditions: Mapping[tuple[str, str], Mapping[str, str]] = field(
        default_factory=dict[tuple[str, str], Mapping[str, str]]
    )
    policies: Mapping[str, object] = field(default_factory=dict[str, object])
    results: Mapping[tuple[str, int], EndAttempt] = field(default_factory=dict[tuple[str, int], EndAttempt])
    withheld: Mapping[str, int] = field(default_factory=dict[str, int])
    orders: Sequence[Order] = ()
    logged: frozenset[str] = frozenset()
    duties: Sequence[str] = ("offers",)
    slots: int = 1


@dataclass(slots=True)
class Cast:
    """The client and the agent of one run: what they know, which a crash of the control plane does not take away."""

    plot: Plot
    version: WorkflowVersion
    agent: FakeAgent
    key: str = field(default_factory=new_id)
    run_id: str = ""
    ordered: int = 0
    tried: int = 0
    renewed: int = 0
    unconfirmed: list[StepOffer] = field(default_factory=list[StepOffer])
    held: list[StepOffer] = field(default_factory=list[StepOffer])
    results: dict[str, tuple[StepOffer, EndAttempt]] = field(default_factory=dict[str, tuple[StepOffer, EndAttempt]])

    async def play(self, life: Life) -> None:
        """Goes on until the run has ended and nothing is left to say."""
        self.agent.rig = life.rig
        for _ in range(_TURNS):
            try:
                await self._renew(life.rig)
                await self._ask(life.rig)
                await self._work(life)
                for duty in self.plot.duties:
                    await life.ticks[duty]()
                if await self._is_over(life.rig):
                    return
            except Unavailable:
                continue
            life.rig.clock.advance(1 if self.held or self.results or self.unconfirmed else 6)
        raise AssertionError(f"still not over: {await life.rig.run(self.run_id)}, {await life.rig.steps(self.run_id)}")

    async def _is_over(self, rig: Rig) -> bool:
        done = self.ordered == len(self.plot.orders) and not self.results and not self.unconfirmed
        return done and (await rig.run(self.run_id)).state in RUN_TERMINAL

    async def _renew(self, rig: Rig) -> None:
        if rig.clock() - self.renewed > LEASE_SECONDS * 1_000_000 / 3:
            await self.agent.renew()
            self.renewed = rig.clock()

    async def _ask(self, rig: Rig) -> None:
        if not self.run_id:
            self.run_id = (await rig.start_version(self.version, self.key, "digest")).id
        if self.ordered == len(self.plot.orders):
            return
        order = self.plot.orders[self.ordered]
        if self.tried or order.when(await rig.run(self.run_id), await rig.steps(self.run_id)):
            self.tried += 1
            await self._give(rig, order.command)
            self.ordered, self.tried = self.ordered + 1, 0

    async def _give(self, rig: Rig, command: str) -> None:
        if command == RESTART_AGENT:
            self.agent.session_id = new_id()
            self.unconfirmed, self.held, self.results = [], [], {}
            await self.agent.open_session()
        elif command != WAIT:
            try:
                await getattr(rig.orchestrator, command)(self.run_id, None)
            except InvalidState:
                assert self.tried > 1, "only what has been done already can be refused"

    async def _work(self, life: Life) -> None:
        started = [self.agent.lease(offer) for offer in self.unconfirmed]
        reports = [self.agent.result(*each) for each in self.results.values()]
        free = self.plot.slots - len(self.held) - len(self.unconfirmed)
        claim = await self.agent.claim(free) if free else None
        verdicts, served = await life.rig.orchestrator.exchange(started, reports, claim)
        self.held, self.unconfirmed = self.held + self.unconfirmed, list(served.offers)
        for token, verdict in zip(list(self.results), verdicts, strict=True):
            if isinstance(verdict, Exception):
                raise verdict
            assert verdict is not Verdict.ALREADY_REPORTED
            del self.results[token]
        for offer in [offer for offer in self.held if self.plot.withheld.get(offer.step.node_id, 0) <= self.ordered]:
            await self._finish(life, offer)

    async def _finish(self, life: Life, offer: StepOffer) -> None:
        node_id, number = offer.step.node_id, offer.attempt.number
        if node_id in self.plot.logged:
            for offset, data in ((0, b"one\n"), (4, b"two\n")):
                await life.logs.append(LogChunk(self.agent.lease(offer), offset, data, final=offset == 4))
        self.held.remove(offer)
        self.results[offer.token] = (offer, self.plot.results.get((node_id, number)) or succeeded(node_id))


def _leased(node_id: str) -> Callable[[Run, Steps], bool]:
    return lambda _run, steps: steps[node_id].state is StepState.LEASED


def _cancelled(node_id: str) -> EndAttempt:
    return EndAttempt(node_id, Outcome.CANCELLED, digest="cancelled")


_DIAMOND = [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")]
_ALL = dict.fromkeys("abcd", StepState.SUCCEEDED)
_TRUE = {"type": "EXPRESSION", "expression": "nodes.a.output.n > 1"}
_FALSE = {"type": "EXPRESSION", "expression": "nodes.a.output.n > 2"}

PLOTS = (
    Plot("diamond", (RunState.SUCCEEDED, _ALL), ["a", "b", "c", "d"], _DIAMOND, logged=frozenset("a"), slots=2),
    Plot(
        "retry",
        (RunState.SUCCEEDED, {"a": StepState.SUCCEEDED, "b": StepState.SUCCEEDED}),
        [{"id": "a", "retryConfig": {"maxAttempts": 2, "backoffMs": 1000}}, "b"],
        [("a", "b")],
        results={("a", 1): failed("a")},
    ),
    Plot(
        "condition",
        (RunState.SUCCEEDED, _ALL | {"c": StepState.SKIPPED}),
        ["a", "b", "c", {"id": "d", "join": "ANY"}],
        _DIAMOND,
        {("a", "b"): _TRUE, ("a", "c"): _FALSE},
        {"output": "${{ nodes.a.output.n }}"},
        results={("a", 1): succeeded("a", '{"n":2}')},
        slots=2,
    ),
    Plot(
        "cancel",
        (RunState.CANCELLED, {"a": StepState.CANCELLED, "b": StepState.CANCELLED}),
        ["a", "b"],
        [("a", "b")],
        results={("a", 1): _cancelled("a")},
        withheld={"a": 1},
        orders=(Order("cancel", _leased("a")),),
    ),
    Plot(
        "pause",
        (RunState.SUCCEEDED, {"a": StepState.SUCCEEDED, "b": StepState.SUCCEEDED}),
        ["a", "b"],
        [("a", "b")],
        withheld={"a": 1},
        orders=(
            Order("pause", _leased("a")),
            # Of the one that was ready, if the offer of the other got lost with the control plane.
            Order("resume", lambda _run, steps: StepState.READY in (steps["a"].state, steps["b"].state)),
        ),
    ),
    Plot(
        "timeout",
        (RunState.TIMED_OUT, {"a": StepState.CANCELLED, "b": StepState.CANCELLED}),
        ["a", "b"],
        [("a", "b")],
        policies={"timeoutMs": 4_000},
        results={("a", number): _cancelled("a") for number in range(1, 5)},
        withheld={"a": 1},
        orders=(Order(WAIT, lambda run, _steps: run.deadline_reached),),
        duties=("offers", "deadlines"),
    ),
    Plot(
        "run retry",
        (RunState.SUCCEEDED, {"a": StepState.SUCCEEDED, "b": StepState.SUCCEEDED}),
        ["a", "b"],
        [("a", "b")],
        results={("a", 1): failed("a", FailureClass.PERMANENT)},
        orders=(Order("retry", lambda run, _steps: run.state is RunState.FAILED),),
    ),
    Plot(
        "lost agent",
        (RunState.SUCCEEDED, {"a": StepState.SUCCEEDED}),
        ["a"],
        withheld={"a": 1},
        orders=(Order(RESTART_AGENT, _leased("a")),),
        duties=("offers", "leases"),
    ),
    Plot(
        "limit",
        (RunState.SUCCEEDED, {"a": StepState.SUCCEEDED}),
        ["a"],
        policies={"concurrency": {"limit": 1}},
        duties=("offers", "admission"),
    ),
)

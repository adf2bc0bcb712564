"""The agent protocol (`towline.v1.AgentService`): enrollment, leases, results, logs, bundles.

The agent's identity comes from its credential only. Everything it says of an attempt carries the lease, which the
orchestrator judges inside the commit.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc

from towline.v1 import agent_service_pb2 as pb
from towline.v1.agent_service_pb2_grpc import AgentServiceServicer
from towline_controlplane.blobs import Blobs
from towline_controlplane.bus import MATCHING_TOPIC, STOPPING_TOPIC, Doorbell, agent_topic, queue_topic
from towline_controlplane.enrollment import enroll
from towline_controlplane.errors import InvalidArgument, NotFound, SessionReplaced, SessionUnknown, TowlineError
from towline_controlplane.handouts import StepOffer
from towline_controlplane.log_writer import LogChunk, LogWriter
from towline_controlplane.loops.lease_expiry import LeaseExpiry, withdraw
from towline_controlplane.matching import QueueIndex
from towline_controlplane.model import AgentRecord, Attempt, Lease
from towline_controlplane.orchestrator import Orchestrator
from towline_controlplane.outputs import Outputs
from towline_controlplane.rooms import Claim
from towline_controlplane.services import agent_messages as messages
from towline_controlplane.services.agent_artifacts import AgentArtifacts
from towline_controlplane.services.callers import current_agent
from towline_controlplane.services.offers import OfferMessages
from towline_controlplane.sessions import Sessions
from towline_controlplane.store import plugins
from towline_controlplane.store.database import Database
from towline_controlplane.store.leases import OpenLease
from towline_controlplane.submissions import Report

MAX_WAIT_SECONDS = 25.0
_POLL_SECONDS = 5.0
"""A ring can be lost: a waiting Pull looks at the store itself this often."""
_LOG_WINDOW = 8
"""Chunks of one stream that are on their way to the store at a time."""


@dataclass(frozen=True, slots=True)
class _UnderWay:
    lease: pb.Lease
    appended: asyncio.Task[int | None]


@dataclass(frozen=True, slots=True)
class _Found:
    offers: Sequence[StepOffer]
    asked_at: float
    """When the store was asked: not later than the offers were made."""


@dataclass(frozen=True, slots=True)
class AgentProtocol(AgentServiceServicer):
    """Serves agents; holds no state of its own."""

    database: Database
    orchestrator: Orchestrator
    doorbell: Doorbell
    queues: QueueIndex
    sessions: Sessions
    lease_expiry: LeaseExpiry
    log_writer: LogWriter
    blobs: Blobs
    outputs: Outputs
    offers: OfferMessages
    artifacts: AgentArtifacts
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    def end_long_polls(self) -> None:
        """Makes every waiting Pull answer what it has, now and from now on, so that its agent goes elsewhere."""
        self.stopping.set()
        self.doorbell.ring([STOPPING_TOPIC])

    async def Enroll(self, request: pb.EnrollRequest, context: grpc.aio.ServicerContext[Any, Any]) -> pb.EnrollResponse:
        """Turns an enrollment token into an agent."""
        agent_id, credential = await enroll(
            self.database, request.token, request.name, self.offers.limits.credential_days
        )
        return pb.EnrollResponse(agent_id=agent_id, credential=credential)

    async def Pull(self, request: pb.PullRequest, context: grpc.aio.ServicerContext[Any, Any]) -> pb.PullResponse:
        """Waits until a step can be offered."""
        agent = _in_session(request.session_id)
        started = messages.leases(request.started, agent)
        wait = min(messages.seconds(request.wait), MAX_WAIT_SECONDS)
        received_at = asyncio.get_running_loop().time()
        found = await self._pull(agent, started, request, wait)
        return pb.PullResponse(offers=await self.offers.write(found.offers, found.asked_at - received_at))

    async def Report(self, request: pb.ReportRequest, context: grpc.aio.ServicerContext[Any, Any]) -> pb.ReportResponse:
        """Records results and offers next steps in the same answer."""
        agent = _in_session(request.session_id)
        reports = [messages.report(result, agent) for result in request.results]
        verdicts, served = await self.orchestrator.exchange(
            messages.leases(request.started, agent),
            await self.outputs.keep_large(await self.offers.schemas.judged(_sound(reports))),
            await self._claim(agent, request),
        )
        return pb.ReportResponse(
            verdicts=messages.verdicts(reports, verdicts),
            offers=await self.offers.write(served.offers),
        )

    async def Sync(self, request: pb.SyncRequest, context: grpc.aio.ServicerContext[Any, Any]) -> pb.SyncResponse:
        """Renews the session with all its leases, and answers with what is to be stopped."""
        agent = current_agent()
        messages.check_session_id(request.session_id)
        if request.HasField("info"):
            kept = messages.leases((each.lease for each in request.held), agent)
            await self.sessions.open(agent, request.session_id, messages.session_info(request.info), kept)
            await self.lease_expiry.withdraw_earlier_sessions(agent.id, request.session_id)
        else:
            _in_session(request.session_id)
            await self.sessions.renew(agent, request.session_id)
        held = [(each, messages.lease(each.lease, agent)) for each in request.held]
        await self.orchestrator.confirm(lease for _, lease in held)
        now, opened = await self.sessions.open_leases(agent.id)
        current = {_key(lease.attempt): lease for lease in opened}
        forgotten = [current[key].attempt for key in current.keys() - {_key(lease) for _, lease in held}]
        await self.orchestrator.settle(
            [
                withdraw(each, "the agent has lost sight of it")
                for each in forgotten
                if self.sessions.is_forgotten(each, now)
            ]
        )
        return pb.SyncResponse(
            lease_duration=messages.duration(self.sessions.lease_seconds),
            interval=messages.duration(self.sessions.interval_seconds),
            directives=_directives(agent, held, current),
            server_version=messages.SERVER_VERSION,
            next_credential=await self.sessions.next_credential(agent),
        )

    async def AppendLogs(
        self,
        request_iterator: AsyncIterator[pb.AppendLogsRequest],
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> AsyncIterator[pb.AppendLogsResponse]:
        """Appends chunks as they come; several are under way at a time, answered in their order."""
        agent = current_agent()
        under_way: asyncio.Queue[_UnderWay | Exception | None] = asyncio.Queue(_LOG_WINDOW)
        taking = asyncio.create_task(self._take_chunks(request_iterator, agent, under_way))
        try:
            while (item := await under_way.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                offset = await item.appended
                yield pb.AppendLogsResponse(
                    lease=item.lease,
                    next_offset=offset or 0,
                    lease_lost=offset is None,
                    interval=messages.duration(self.log_writer.interval_seconds),
                )
        finally:
            taking.cancel()

    async def FetchPlugin(
        self, request: pb.FetchPluginRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.FetchPluginResponse]:
        """Streams a registered bundle from `offset` on."""
        if request.offset < 0:
            raise InvalidArgument.of("offset", "must not be negative")
        if await self.database.read(lambda tx: plugins.find_by_digest(tx, request.digest)) is None:
            raise NotFound(f"there is no plugin bundle {request.digest}")
        async for chunk in self.blobs.open(request.digest, request.offset):
            yield pb.FetchPluginResponse(chunk=chunk)

    async def PutArtifact(
        self, request_iterator: AsyncIterator[pb.PutArtifactRequest], context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.PutArtifactResponse:
        """Stores a file that an attempt made."""
        return await self.artifacts.put(request_iterator, current_agent())

    async def GetArtifact(
        self, request: pb.GetArtifactRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.GetArtifactResponse]:
        """Streams an artifact of a direct predecessor of a leased step."""
        async for response in self.artifacts.get(request, current_agent()):
            yield response

    async def _take_chunks(
        self,
        requests: AsyncIterator[pb.AppendLogsRequest],
        agent: AgentRecord,
        under_way: "asyncio.Queue[_UnderWay | Exception | None]",
    ) -> None:
        try:
            async for request in requests:
                chunk = LogChunk(
                    messages.lease(request.lease, agent), request.offset, messages.log_data(request), request.final
                )
                await under_way.put(_UnderWay(request.lease, asyncio.create_task(self.log_writer.append(chunk))))
        except TowlineError as refusal:
            await under_way.put(refusal)
        else:
            await under_way.put(None)

    async def _pull(self, agent: AgentRecord, started: Sequence[Lease], request: pb.PullRequest, wait: float) -> _Found:
        """Returns what can be had until the deadline. Only who has room stands in line: turns are for those."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + wait
        line: Collection[str] | None = None
        while True:
            claim = await self._claim(agent, request)
            line = frozenset(claim.queue_ids).intersection(claim.queue_ids if line is None else line)
            in_turn = map(queue_topic, sorted(line))
            async with self.doorbell.listen([STOPPING_TOPIC, MATCHING_TOPIC, agent_topic(agent.id)], in_turn) as bell:
                while await self.queues.matching(agent) == claim.queue_ids:
                    asked_at = clock()
                    _, served = await self.orchestrator.exchange(started, (), claim)
                    started, remaining = (), deadline - clock()
                    if served.found_end:
                        bell.end_turn()
                    is_over = remaining <= 0 or claim.want == 0 or self.stopping.is_set()
                    if served.offers or served.ask_again or is_over:
                        return _Found(served.offers, asked_at)
                    if line != served.queue_ids:
                        line = served.queue_ids
                        break
                    await bell.wait(min(remaining, _POLL_SECONDS))

    async def _claim(self, agent: AgentRecord, request: pb.PullRequest | pb.ReportRequest) -> Claim:
        limits = self.offers.limits
        return Claim(
            agent_id=agent.id,
            session_id=agent.session_id or "",
            queue_ids=await self.queues.matching(agent),
            want=messages.want(request.want),
            offer_seconds=limits.offer_seconds,
            limits=limits.platform.limits,
            sizes=self.queues.sizes,
            free_memory_mb=request.free_memory_bytes >> 20 if request.free_memory_bytes > 0 else None,
        )


def _key(held: Attempt | Lease) -> tuple[str, str, int]:
    return held.run_id, held.node_id, held.epoch


def _directives(
    agent: AgentRecord,
    held: Sequence[tuple[pb.HeldAttempt, Lease]],
    current: Mapping[tuple[str, str, int], OpenLease],
) -> list[pb.Directive]:
    directives: list[pb.Directive] = []
    if agent.drained:
        directives.append(pb.Directive(action=pb.Directive.DRAIN, reason="drained by an admin"))
    for held_attempt, lease in held:
        found = current.get(_key(lease))
        if found is not None and found.attempt.token_hash != lease.token_hash:
            found = None
        has_ended = held_attempt.phase == pb.HeldAttempt.REPORTING
        wanted = _wanted(found, is_frozen=held_attempt.frozen, has_processes=not has_ended)
        if wanted is not None:
            action, reason = wanted
            directives.append(pb.Directive(action=action, lease=held_attempt.lease, reason=reason))
    return directives


def _sound(reports: Sequence[Report | InvalidArgument]) -> list[Report]:
    return [each for each in reports if isinstance(each, Report)]


def _wanted(
    lease: OpenLease | None, *, is_frozen: bool, has_processes: bool
) -> "tuple[pb.Directive.Action, str] | None":
    """Returns what an agent is to do with an attempt that it holds; None: nothing but go on as it is."""
    if lease is None:
        return pb.Directive.RELEASE, "lease lost"
    if lease.cancel_requested:
        return pb.Directive.CANCEL, "run cancelled"
    if lease.frozen and not is_frozen and has_processes:
        return pb.Directive.FREEZE, "run frozen"
    if is_frozen and not lease.frozen:
        return pb.Directive.THAW, "run thawed"
    return None


def _in_session(session_id: str) -> AgentRecord:
    agent = current_agent()
    messages.check_session_id(session_id)
    if agent.session_id is None:
        raise SessionUnknown("the session is not known: send Sync with info first")
    if agent.session_id != session_id:
        raise SessionReplaced("another process runs with this agent's credential")
    return agent

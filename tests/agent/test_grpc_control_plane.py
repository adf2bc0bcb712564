"""The agent over real gRPC."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fake_agent_service import serve
from running_agent import run
from test_bundles import DIGEST, GOOD

from towline.v1.agent_service_pb2 import AppendLogsRequest, EnrollRequest, PullRequest, ReportRequest, SyncRequest
from towline_agent.agent import Agent, Options, describe
from towline_agent.clock import SystemClock
from towline_agent.control_plane import (
    ControlPlaneError,
    CredentialRefused,
    RequestRefused,
    SessionReplaced,
    SessionUnknown,
    Unavailable,
)
from towline_agent.credentials import Credentials
from towline_agent.enrollment import Identity
from towline_agent.execution import EndReason, Exit, Launch, OnOutput, OutputStream
from towline_agent.grpc_control_plane import GrpcControlPlane, GrpcLeaseRenewal
from towline_agent.pulse import ThreadPulse
from towline_agent.testing import FakeControlPlane, make_offer
from towline_agent.testing_processes import FakeSupervisor
from towline_agent.workshop import Surroundings

ERRORS = [Unavailable, SessionUnknown, SessionReplaced, CredentialRefused, RequestRefused]


@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_says_what_to_do(kind: type[ControlPlaneError]) -> None:
    async def scenario() -> None:
        fake = FakeControlPlane()
        async with serve(fake) as (address, _):
            control_plane, renewal = GrpcControlPlane(address, secret()), GrpcLeaseRenewal(address, secret())
            for name in ("pull", "report", "append_logs", "fetch_plugin", "sync"):
                fake.errors[name] = deque([kind("because")])
            with pytest.raises(kind, match="because"):
                await control_plane.pull(PullRequest())
            with pytest.raises(kind):
                await control_plane.report(ReportRequest())
            with pytest.raises(kind):
                await anext(control_plane.append_logs(no_requests()))
            with pytest.raises(kind):
                await anext(control_plane.fetch_plugin("x", 0))
            with pytest.raises(kind):
                await asyncio.to_thread(renewal.sync, SyncRequest(), 5.0)
            renewal.close()
            await control_plane.close()

    run(scenario)


def secret() -> Credentials:
    return Credentials(Identity("id", "secret"), lambda identity: None)


def test_nobody_there_is_unavailable() -> None:
    async def scenario() -> None:
        control_plane, renewal = GrpcControlPlane("127.0.0.1:1"), GrpcLeaseRenewal("127.0.0.1:1", secret())
        with pytest.raises(Unavailable):
            await control_plane.enroll(EnrollRequest())
        with pytest.raises(Unavailable):
            await asyncio.to_thread(renewal.sync, SyncRequest(), 5.0)
        renewal.close()
        with pytest.raises(Unavailable):
            await asyncio.to_thread(renewal.sync, SyncRequest(), 5.0)
        await control_plane.close()

    run(scenario)


def test_leases_are_renewed_at_another_replica_when_one_does_not_answer() -> None:
    async def scenario() -> None:
        fake = FakeControlPlane(known_sessions={"s"})
        async with serve(fake) as (address, _):
            renewal = GrpcLeaseRenewal(f"127.0.0.1:1,{address}", secret())
            with pytest.raises(Unavailable):
                await asyncio.to_thread(renewal.sync, SyncRequest(session_id="s"), 5.0)
            for _ in range(3):
                await asyncio.to_thread(renewal.sync, SyncRequest(session_id="s"), 5.0)
            renewal.close()

    run(scenario)


def test_steps_run_over_the_wire(tmp_path: Path) -> None:
    async def talk(launch: Launch, on_output: OnOutput) -> Exit:
        on_output(OutputStream.STDOUT, b"hello\n" * 100_000)
        return Exit(EndReason.EXITED, exit_code=0, result=b"1")

    async def scenario() -> None:
        fake, supervisor = FakeControlPlane(plugins={DIGEST: GOOD}), FakeSupervisor()
        async with serve(fake) as (address, service):
            control_plane = GrpcControlPlane(address, secret())
            options = Options(describe(2, {}, "1"), tmp_path, Surroundings())
            renewal = GrpcLeaseRenewal(address, secret())
            agent = Agent(control_plane, ThreadPulse(renewal), supervisor, options, lambda: 1, SystemClock())
            life = asyncio.create_task(agent.run())
            supervisor.script("talk", talk)
            offers = [
                make_offer("talk"),
                make_offer("bundle", digest=DIGEST),
                *(make_offer(f"n{n}") for n in range(20)),
            ]
            fake.lost_answers = deque(["report"])
            fake.offer(*offers)
            await fake.until(lambda: len(fake.results) == len(offers))
            agent.drain()
            await life
            await control_plane.close()
            assert fake.logs["talk"].final
            assert fake.logs["talk"].data.count(b"O- hello\n") > 40_000
            assert service.authorizations == {"Bearer secret"}

    run(scenario)


async def no_requests() -> AsyncIterator[AppendLogsRequest]:
    await asyncio.Event().wait()
    yield AppendLogsRequest()

"""A control plane's public services over real gRPC: real store, orchestrator and server; agents are a few lines."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.json_format import ParseDict
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2
from grpc import aio
from rig_services import SERVICES, rig_services

from towline_controlplane.audit_log import AuditLog
from towline_controlplane.auth import Accounts
from towline_controlplane.blobs import FolderBlobs
from towline_controlplane.bus import InProcessDoorbell, logs_topic
from towline_controlplane.call_limits import Attempts, CallLimits
from towline_controlplane.engine.commands import EndAttempt, Outcome
from towline_controlplane.handouts import StepOffer
from towline_controlplane.keyring import Keyring, new_key
from towline_controlplane.log_archive import LogArchive
from towline_controlplane.model import AgentRecord, Lease, Role, Usage, User
from towline_controlplane.orchestrator import Orchestrator
from towline_controlplane.outputs import Outputs
from towline_controlplane.passwords import Passwords
from towline_controlplane.rooms import Claim
from towline_controlplane.services.log_streams import LogStreams
from towline_controlplane.services.outlines import Outlines
from towline_controlplane.services.run_artifacts import RunArtifacts
from towline_controlplane.services.run_streams import RunStreams
from towline_controlplane.services.runs import RunService
from towline_controlplane.services.server import ControlPlaneServer, Guard, ServerOptions
from towline_controlplane.sign_ins import SignIns
from towline_controlplane.store import agents, logs, queues, users
from towline_controlplane.store.agents import SessionInfo
from towline_controlplane.store.database import Database
from towline_controlplane.store.logs import LogAppend
from towline_controlplane.submissions import Report
from towline_controlplane.tokens import AccessTokens, fingerprint, new_agent_credential
from towline_migrations import upgrade

SECRET: Final = "a secret of the tests, long enough to sign with"
SECRETS_KEY: Final = new_key()
PASSWORD: Final = "correct horse"
# bcrypt at the cost of the tests: one hash for everybody saves time.
COST: Final = 4
UPPERCASE: Final[Mapping[str, Any]] = {"id": "a", "type": "TEXT_TRANSFORM", "config": {"transform": "uppercase"}}
DAG: Final[Mapping[str, Any]] = {
    "nodes": [UPPERCASE, {**UPPERCASE, "id": "b"}],
    "edges": [{"from": "a", "to": "b", "condition": {"type": "ALWAYS"}}],
}
METHODS: Final[Mapping[str, MethodDescriptor]] = {
    f"{service.name}/{method.name}": method for service in SERVICES for method in service.methods
}


class Refused(Exception):
    """What a call was refused with, unpacked."""

    def __init__(self, error: aio.AioRpcError) -> None:
        super().__init__(f"{error.code()}: {error.details()}")
        self.code = error.code()
        self.message = error.details() or ""
        self.trailers = dict(error.trailing_metadata() or ())
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        packed = self.trailers.get("grpc-status-details-bin", b"")
        self.status = status_pb2.Status.FromString(packed if isinstance(packed, bytes) else packed.encode())
        for detail in self.status.details:
            detail.Unpack(info)
            detail.Unpack(bad)
        self.reason = info.reason
        self.info = info
        self.violations = {each.field: each.description for each in bad.field_violations}

    @property
    def answer(self) -> tuple[object, ...]:
        """All that a caller can tell refusals apart by."""
        return self.code, self.message, self.reason, tuple(self.violations.items())


async def unrolled(call: Any) -> AsyncGenerator[Any]:
    """Yields the answers of a stream, those of a batch one by one."""
    async for answer in call:
        for each in getattr(answer, "batch", ()) or (answer,):
            yield each


@dataclass(slots=True)
class Caller:
    """Calls methods by their name (`RunService/GetRun`) with one credential; requests are JSON-like."""

    channel: aio.Channel
    credential: str = ""
    id: str = ""

    async def call(self, name: str, request: Any = None, /, **fields: Any) -> Any:
        """Returns the answer, all answers of a stream as a list; raises Refused."""
        method = METHODS[name]
        try:
            call = self.open(name, request, **fields)
            return [each async for each in unrolled(call)] if method.server_streaming else await call
        except aio.AioRpcError as error:
            raise Refused(error) from None

    async def plant(self, name: str, value: str, *plugins: str) -> Any:
        """Creates a secret that plugins are granted, and returns it as it was before."""
        secret = (await self.call("SecretService/CreateSecret", name=name, value=value)).secret
        for plugin in plugins:
            await self.call("SecretService/GrantSecret", secretId=name, plugin=plugin)
        return secret

    def open(
        self,
        name: str,
        request: Any = None,
        /,
        metadata: Sequence[tuple[str, str]] | None = None,
        timeout: float = 30,
        **fields: Any,
    ) -> Any:
        """Begins a call and returns it; a streamed request is an iterable of messages."""
        method = METHODS[name]
        kind = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
        multicallable = getattr(self.channel, kind)(
            f"/{method.containing_service.full_name}/{method.name}",
            request_serializer=GetMessageClass(method.input_type).SerializeToString,
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        if request is None:
            message = ParseDict(fields, GetMessageClass(method.input_type)())
            request = [message] if method.client_streaming else message
        if metadata is None:
            metadata = [("authorization", f"Bearer {self.credential}")] if self.credential else []
        return multicallable(request, metadata=metadata, timeout=timeout)


@dataclass(slots=True)
class Rig:
    """What a scenario works with."""

    folder: Path
    database: Database
    doorbell: InProcessDoorbell
    orchestrator: Orchestrator
    accounts: Accounts
    tokens: AccessTokens
    server: ControlPlaneServer
    channel: aio.Channel
    address: str
    password_hash: str
    secrets_key: str

    @property
    def keys(self) -> Keyring | None:
        """The keys of the control plane."""
        return Keyring.parse(self.secrets_key)

    @property
    def nobody(self) -> Caller:
        """Returns a caller without credentials."""
        return Caller(self.channel)

    async def user(self, name: str, role: Role = Role.USER) -> Caller:
        """Returns a signed-in user."""
        user = User(f"user-{name}", f"{name}@example.com", name, self.password_hash, role, 1, 0)
        await self.database.write(lambda tx: users.insert_user(tx, user))
        return Caller(self.channel, self.tokens.issue(user).text, user.id)

    async def admin(self) -> Caller:
        """Returns a signed-in admin."""
        return await self.user("admin", Role.ADMIN)

    async def agent(self, name: str = "agent-1") -> "RigAgent":
        """Returns an enrolled agent with an open session."""
        credential = new_agent_credential()
        record = AgentRecord(f"id-of-{name}", name, fingerprint(credential), create_time=0)
        session_id = f"session-of-{name}"

        def enroll(tx: agents.Transaction) -> None:
            agents.insert_agent(tx, record)
            agents.open_session(tx, record.id, session_id, SessionInfo(8, {}), tx.now + 3_600_000_000)

        await self.database.write(enroll)
        return RigAgent(self, Caller(self.channel, credential, record.id), session_id)


@dataclass(slots=True)
class RigAgent:
    """Claims and reports as an agent does, beside the wire."""

    rig: Rig
    caller: Caller
    session_id: str

    async def pull(self) -> list[StepOffer]:
        """Returns what can be had now."""
        queue_ids = frozenset(await self.rig.database.read(queues.all_queues))
        _, served = await self.rig.orchestrator.exchange(
            (), (), Claim(self.caller.id, self.session_id, queue_ids, 100, 5.0)
        )
        return list(served.offers)

    async def succeed(self, offer: StepOffer, output: str = "{}", log_bytes: int = 0) -> None:
        """Reports a success, and how long the log is in all."""
        usage = Usage(log_bytes=log_bytes)
        end = EndAttempt(offer.step.node_id, Outcome.SUCCEEDED, digest=f"ok:{output}", output=output, usage=usage)
        outputs = Outputs(self.rig.database, FolderBlobs(self.rig.folder / "blobs"))
        await self.rig.orchestrator.exchange((), await outputs.keep_large([Report(self.lease(offer), end)]), None)

    async def succeed_all(self, output: str = "{}") -> None:
        """Takes and ends steps until none is left."""
        while offers := await self.pull():
            for offer in offers:
                await self.succeed(offer, output)

    async def log(self, offer: StepOffer, offset: int, data: bytes, *, final: bool = False) -> None:
        """Appends to the log of an attempt."""
        attempt = offer.attempt
        append = LogAppend(attempt.run_id, attempt.node_id, attempt.number, offset, data, final)
        await self.rig.database.write(lambda tx: logs.append_many(tx, [append]))
        self.rig.doorbell.ring([logs_topic(attempt.run_id)])

    def lease(self, offer: StepOffer) -> Lease:
        """The lease of an offer, as it is presented."""
        attempt = offer.attempt
        return Lease(
            attempt.run_id, attempt.node_id, attempt.number, attempt.epoch, fingerprint(offer.token), self.caller.id
        )


@asynccontextmanager
async def control_plane(
    folder: Path,
    poll_seconds: float = 0.2,
    log_grace_seconds: float = 60.0,
    secrets_key: str = SECRETS_KEY,
    limits: CallLimits | None = None,
    **options: Any,
) -> AsyncGenerator[Rig]:
    """Serves until the scenario is over."""
    limits = limits or CallLimits()
    url = f"sqlite:///{folder / 'towline.db'}"
    await asyncio.to_thread(upgrade, url)
    database, doorbell = Database.open(url), InProcessDoorbell()
    orchestrator, passwords = Orchestrator(database, doorbell), Passwords(COST)
    accounts = Accounts(database, passwords, tokens := AccessTokens(SECRET))
    sign_ins = SignIns(database, doorbell, passwords, tokens, Attempts(limits.meter))
    blobs = FolderBlobs(folder / "blobs")
    archive = LogArchive(database, blobs, folder / "spool")
    logs = LogStreams(database, doorbell, archive, poll_seconds, log_grace_seconds)
    runs = RunService(
        database,
        orchestrator,
        RunStreams(database, doorbell, poll_seconds),
        Outlines(),
        Outputs(database, blobs),
        logs,
        RunArtifacts(database, blobs),
    )
    servicers = rig_services(
        folder, database, doorbell, orchestrator, runs, blobs, accounts, sign_ins, Keyring.parse(secrets_key)
    )
    audit_log = AuditLog(database)
    server = ControlPlaneServer(
        servicers, Guard(accounts, doorbell, audit_log, limits), ServerOptions(port=0, **options)
    )
    auditing = asyncio.create_task(audit_log.run())
    committing = asyncio.create_task(orchestrator.run())
    address = f"127.0.0.1:{await server.start()}"
    try:
        async with aio.insecure_channel(address) as channel:
            password_hash = await passwords.hash(PASSWORD)
            yield Rig(
                folder,
                database,
                doorbell,
                orchestrator,
                accounts,
                tokens,
                server,
                channel,
                address,
                password_hash,
                secrets_key,
            )
    finally:
        await server.stop(0)
        committing.cancel()
        auditing.cancel()
        await asyncio.gather(committing, auditing, return_exceptions=True)
        await database.close()
        passwords.close()


def serve(folder: Path, scenario: Callable[[Rig], Coroutine[Any, Any, None]], **options: Any) -> None:
    """Runs a scenario against a fresh control plane."""

    async def run() -> None:
        async with control_plane(folder, **options) as rig:
            await scenario(rig)

    asyncio.run(run())


async def refusal(call: Coroutine[Any, Any, Any]) -> Refused:
    """Returns what a call was refused with."""
    try:
        answer = await call
    except Refused as refused:
        return refused
    raise AssertionError(f"not refused: {answer}")


NOT_FOUND: Final = grpc.StatusCode.NOT_FOUND
INVALID_ARGUMENT: Final = grpc.StatusCode.INVALID_ARGUMENT
UNAUTHENTICATED: Final = grpc.StatusCode.UNAUTHENTICATED
PERMISSION_DENIED: Final = grpc.StatusCode.PERMISSION_DENIED

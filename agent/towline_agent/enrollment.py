"""Who this agent is: its id and credential, kept in the state folder and asked for once.

The credential file is the owner's alone and written whole or not at all; the id stays the same as long as it exists.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from towline.v1.agent_service_pb2 import EnrollRequest, EnrollResponse
from towline_agent.clock import Backoff, SystemClock
from towline_agent.control_plane import CredentialRefused, RequestRefused, Unavailable
from towline_agent.files import write_private

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

FILE_NAME = "credential.json"


@dataclass(frozen=True, slots=True)
class Identity:
    """An enrolled agent."""

    agent_id: str
    credential: str
    next_credential: str = ""
    """Given to take the place of the other, which counts until this one has been accepted."""

    def __repr__(self) -> str:
        return f"Identity(agent_id={self.agent_id!r})"


class NotEnrolled(Exception):
    """The agent has no identity and cannot get one; the message says what a person has to do."""


class NotAnswered(NotEnrolled):
    """No control plane has answered in time."""


def load(file: Path) -> Identity | None:
    """Returns the kept identity; raises NotEnrolled if the file cannot be understood."""
    try:
        document = json.loads(file.read_bytes())
        return Identity(document["agentId"], document["credential"], document.get("nextCredential", ""))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise NotEnrolled(f"{file} is damaged: remove it and enroll again with a new token") from error


def save(file: Path, identity: Identity) -> None:
    """Keeps an identity for later starts."""
    document = {"agentId": identity.agent_id, "credential": identity.credential}
    if identity.next_credential:
        document["nextCredential"] = identity.next_credential
    write_private(file, json.dumps(document).encode())


async def enroll(
    call: Callable[[EnrollRequest], Awaitable[EnrollResponse]],
    request: EnrollRequest,
    backoff: Backoff,
    pause: Callable[[float], Awaitable[object]],
) -> Identity:
    """Trades the token for an identity, however long the control plane is away; raises NotEnrolled when it says no."""
    while True:
        try:
            response = await call(request)
        except Unavailable as error:
            delay = backoff.next()
            log.warning(
                "control_plane_unavailable", doing="enroll", reason=str(error), retry_in_seconds=round(delay, 1)
            )
            await pause(delay)
        except CredentialRefused as error:
            raise NotEnrolled(f"the enrollment token was refused ({error}): create a new one") from error
        except RequestRefused as error:
            raise NotEnrolled(f"the control plane refused the name {request.name!r}: {error}") from error
        else:
            return Identity(response.agent_id, response.credential)


async def enroll_within(
    seconds: float, servers: str, call: Callable[[EnrollRequest], Awaitable[EnrollResponse]], request: EnrollRequest
) -> Identity:
    """Enrolls, or raises NotAnswered after `seconds` without an answer, or NotEnrolled when it says no."""
    failures: list[Unavailable] = []

    async def attempt(asked: EnrollRequest) -> EnrollResponse:
        try:
            return await call(asked)
        except Unavailable as error:
            failures.append(error)
            raise

    try:
        async with asyncio.timeout(seconds):
            return await enroll(attempt, request, Backoff(SystemClock().jitter), asyncio.sleep)
    except TimeoutError:
        last = failures[-1] if failures else "no answer"
        raise NotAnswered(f"{servers} did not answer in {seconds:g} s, tried {len(failures)} times: {last}") from None

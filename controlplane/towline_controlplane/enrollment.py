"""How a machine becomes an agent: a token that an admin made is exchanged for a credential of its own."""

import asyncio
import re
from pathlib import Path

from towline_controlplane.errors import InvalidArgument, Unauthenticated
from towline_controlplane.ids import new_id
from towline_controlplane.model import AgentRecord
from towline_controlplane.store import agents, enrollment_tokens
from towline_controlplane.store.database import Database, Transaction
from towline_controlplane.tokens import fingerprint, new_agent_credential

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,127}")
_BOOTSTRAP_USES = 10_000
_BOOTSTRAP_LIFETIME_US = 10 * 365 * 24 * 3600 * 1_000_000


async def enroll(database: Database, token: str, name: str, credential_days: float = 0) -> tuple[str, str]:
    """Returns the id and the credential of a new agent; a refused name leaves the token unused.

    The credential is replaced after so many days; 0: when an admin says so.
    """
    if not _NAME.fullmatch(name):
        raise InvalidArgument.of("name", "must be a letter, then letters, digits, '_', '-' or '.'; at most 128 in all")
    credential = new_agent_credential()
    agent_id = new_id()

    def work(tx: Transaction) -> None:
        if not enrollment_tokens.use(tx, fingerprint(token)):
            raise Unauthenticated("the enrollment token is unknown, used up or expired")
        due = tx.now + int(credential_days * 86_400_000_000) if credential_days else 0
        hashed = fingerprint(credential)
        agents.insert_agent(tx, AgentRecord(agent_id, name, hashed, create_time=tx.now, rotation_time=due))

    await database.write(work)
    return agent_id, credential


async def accept_bootstrap_token(database: Database, file: Path) -> None:
    """Accepts the token in `file` from now on, for agents that are installed together with the control plane."""
    token_hash = fingerprint((await asyncio.to_thread(file.read_text)).strip())
    await database.write(
        lambda tx: enrollment_tokens.insert(tx, token_hash, _BOOTSTRAP_USES, tx.now + _BOOTSTRAP_LIFETIME_US)
    )

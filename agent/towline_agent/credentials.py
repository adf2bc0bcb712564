"""The credential that calls carry, and the one that is to take its place.

A new credential is on disk before it is used, beside the old one, which counts until the new one has been accepted:
so a crash, or an answer that was lost, at any moment leaves one that works. Only the renewal of the leases tries a new
one; until it has been accepted a refusal of the old one is no more than a reason to try again. For any thread.
"""

import threading
from collections.abc import Callable

import structlog

from towline_agent.enrollment import Identity

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class Credentials:
    """Of one agent; `save` puts an identity on disk."""

    def __init__(self, identity: Identity, save: Callable[[Identity], None]) -> None:
        self._identity = identity
        self._save = save
        self._lock = threading.Lock()

    @property
    def current(self) -> str:
        """What has been accepted."""
        return self._identity.credential

    @property
    def newest(self) -> str:
        """What the next renewal is to carry."""
        identity = self._identity
        return identity.next_credential or identity.credential

    def replace_by(self, credential: str) -> None:
        """Takes in a new credential."""
        with self._lock:
            self._keep(Identity(self._identity.agent_id, self._identity.credential, credential))

    def accepted(self, used: str) -> None:
        """A renewal that carried it went through."""
        with self._lock:
            if used == self._identity.next_credential:
                self._keep(Identity(self._identity.agent_id, used))
                log.info("credential_replaced")

    def refused(self, used: str) -> bool:
        """A call that carried it was refused; tells whether that is for good."""
        with self._lock:
            if used == self._identity.next_credential:
                log.warning("new_credential_refused")
                self._keep(Identity(self._identity.agent_id, self._identity.credential))
                return False
            return used == self._identity.credential and not self._identity.next_credential

    def _keep(self, identity: Identity) -> None:
        self._save(identity)
        self._identity = identity

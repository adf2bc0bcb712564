"""The part of the fake control plane that keeps files: artifacts, taken and given as by a real one."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

from towline.v1.agent_service_pb2 import InputArtifact, Lease, PutArtifactResponse, ResultArtifact
from towline_agent.control_plane import LeaseLost, RequestRefused, Unavailable


@dataclass(slots=True)
class FakeArtifacts(ABC):
    """Stores artifacts by node and name; breaks streams when it is told to."""

    lost_leases: set[str] = field(default_factory=set[str])
    """Node ids whose log is not taken any more."""
    chunk_bytes: int = 64 * 1024
    break_fetch_after: deque[int] = field(default_factory=deque[int])
    """The next fetches break after so many bytes."""
    fetches: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    break_put_after: deque[int] = field(default_factory=deque[int])
    """The next uploads break after so many bytes."""
    artifacts: dict[tuple[str, str], bytes] = field(default_factory=dict[tuple[str, str], bytes])
    """What is stored, by node id and name."""
    uploads: dict[str, bytearray] = field(default_factory=dict[str, bytearray])
    puts: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    """Names and offsets of the uploads that were begun."""

    async def put_artifact(
        self, lease: Lease, artifact: ResultArtifact, offset: int, chunks: Iterator[bytes]
    ) -> PutArtifactResponse:
        """Takes a file as the real one does; breaks if told to, and keeps what it has by then."""
        self._fail("put_artifact")
        self.puts.append((artifact.name, offset))
        self._ring()
        if lease.node_id in self.lost_leases:
            raise LeaseLost("lease lost")
        data = self.uploads.setdefault(artifact.digest, bytearray())
        if offset == len(data):
            most = self.break_put_after.popleft() if self.break_put_after else artifact.size_bytes
            for chunk in chunks:
                data += chunk
                if len(data) - offset > most:
                    del data[offset + most :]
                    raise Unavailable("broken")
        complete = len(data) == artifact.size_bytes
        if complete:
            self.artifacts[lease.node_id, artifact.name] = bytes(data)
        self._ring()
        self._answer("put_artifact")
        return PutArtifactResponse(complete=complete, next_offset=len(data))

    async def get_artifact(self, lease: Lease, artifact: InputArtifact, offset: int) -> AsyncIterator[bytes]:
        """Streams an artifact, or part of it if told to break."""
        self._fail("get_artifact")
        self.fetches.append((artifact.digest, offset))
        if (artifact.node_id, artifact.name) not in self.artifacts:
            raise RequestRefused("NOT_FOUND")
        data = self.artifacts[artifact.node_id, artifact.name]
        end = offset + self.break_fetch_after.popleft() if self.break_fetch_after else len(data)
        for start in range(offset, min(end, len(data)), self.chunk_bytes):
            yield data[start : min(start + self.chunk_bytes, end)]
        if end < len(data):
            raise Unavailable("broken")

    @abstractmethod
    def _fail(self, name: str, session_id: str | None = None) -> None:
        """Raises what is planned for a call before it has any effect."""

    @abstractmethod
    def _answer(self, name: str) -> None:
        """Loses the answer of a call if that is planned."""

    @abstractmethod
    def _ring(self) -> None:
        """Tells whoever waits that something has happened."""

"""The calls for artifacts, which no simulated agent makes: what is played leaves no files."""

from collections.abc import AsyncIterator, Iterator

from towline.v1 import agent_service_pb2 as pb
from towline_agent.control_plane import RequestRefused


class NoArtifacts:
    """Refuses them."""

    async def put_artifact(
        self, lease: pb.Lease, artifact: pb.ResultArtifact, offset: int, chunks: Iterator[bytes]
    ) -> pb.PutArtifactResponse:
        """Never called."""
        raise RequestRefused("no artifacts")

    async def get_artifact(self, lease: pb.Lease, artifact: pb.InputArtifact, offset: int) -> AsyncIterator[bytes]:
        """Never called."""
        raise RequestRefused("no artifacts")
        yield b""

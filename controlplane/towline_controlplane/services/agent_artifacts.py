"""Artifacts between the control plane and agents: what attempts made comes in, what their steps may read goes out.

An agent gets at the artifacts of the direct predecessors of a step that it holds, and at nothing else.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from towline.v1 import agent_service_pb2 as pb
from towline_controlplane.artifact_records import Artifact
from towline_controlplane.artifact_uploads import ArtifactUploads
from towline_controlplane.blobs import Blobs
from towline_controlplane.blueprints import Blueprints
from towline_controlplane.engine.lease import Standing, standing
from towline_controlplane.errors import InvalidArgument, LeaseLost, NotFound, Unavailable
from towline_controlplane.model import AgentRecord, Lease
from towline_controlplane.services import agent_messages as messages
from towline_controlplane.services.open_streams import OpenStreams
from towline_controlplane.store import artifacts, runs
from towline_controlplane.store.database import Database, Transaction


@dataclass(frozen=True, slots=True)
class AgentArtifacts:
    """Serves the streams of artifacts of agents; `streams` bounds how many each of them may have open."""

    database: Database
    blobs: Blobs
    blueprints: Blueprints
    uploads: ArtifactUploads
    streams: OpenStreams

    async def put(self, requests: AsyncIterator[pb.PutArtifactRequest], agent: AgentRecord) -> pb.PutArtifactResponse:
        """Stores what a stream brings; answers early when other bytes are wanted, or none."""
        first = await anext(requests, None)
        if first is None:
            raise InvalidArgument.of("lease", "is missing")
        if first.offset < 0:
            raise InvalidArgument.of("offset", "must not be negative")
        lease, artifact = messages.lease(first.lease, agent), messages.named_artifact(first.artifact)
        with self.streams.admit(agent.id):
            progress = await self.uploads.put(lease, artifact, first.offset, _chunks(first, requests))
        return pb.PutArtifactResponse(complete=progress.complete, next_offset=progress.next_offset)

    async def get(self, request: pb.GetArtifactRequest, agent: AgentRecord) -> AsyncIterator[pb.GetArtifactResponse]:
        """Streams an input of a leased step from an offset on."""
        if request.offset < 0:
            raise InvalidArgument.of("offset", "must not be negative")
        lease = messages.lease(request.lease, agent)
        found = await self.database.read(lambda tx: self._input(tx, lease, request.node_id, request.name))
        try:
            async for chunk in self.blobs.open(found.digest, request.offset):
                yield pb.GetArtifactResponse(chunk=chunk)
        except NotFound as error:
            raise Unavailable(f"the artifact cannot be read: {error.message}") from error

    def _input(self, tx: Transaction, lease: Lease, node_id: str, name: str) -> Artifact:
        step = runs.get_step(tx, lease.run_id, lease.node_id)
        attempt = runs.get_attempt(tx, lease.run_id, lease.node_id, lease.attempt)
        run = runs.get_run(tx, lease.run_id, None)
        if step is None or run is None or standing(step, attempt, lease) is not Standing.CURRENT:
            raise LeaseLost("the lease is stale: stop and discard")
        dag = self.blueprints.of_run(tx, run).dag
        sources = {dag.nodes[source].id for source in dag.incoming[step.position]}
        for found in artifacts.inputs_of(tx, run.id, [node_id]) if node_id in sources else ():
            if found.name == name:
                return found
        raise NotFound("no predecessor of the step that succeeded has such an artifact")


async def _chunks(first: pb.PutArtifactRequest, rest: AsyncIterator[pb.PutArtifactRequest]) -> AsyncIterator[bytes]:
    yield first.chunk
    async for request in rest:
        yield request.chunk

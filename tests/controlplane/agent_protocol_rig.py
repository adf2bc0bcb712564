"""The agent protocol on top of a rig, without its server."""

from pathlib import Path

from rig import Rig

from towline_controlplane.artifact_uploads import ArtifactUploads
from towline_controlplane.blobs import FolderBlobs
from towline_controlplane.log_writer import LogWriter
from towline_controlplane.loops.lease_expiry import LeaseExpiry
from towline_controlplane.outputs import Outputs
from towline_controlplane.services.agent_artifacts import AgentArtifacts
from towline_controlplane.services.agent_messages import AgentLimits
from towline_controlplane.services.agent_protocol import AgentProtocol
from towline_controlplane.services.offers import OfferMessages
from towline_controlplane.services.open_streams import OpenStreams
from towline_controlplane.services.plugin_schemas import PluginSchemas
from towline_controlplane.services.secret_handout import SecretHandout
from towline_controlplane.sessions import Sessions


def protocol(rig: Rig, folder: Path) -> AgentProtocol:
    blobs = FolderBlobs(folder)
    outputs = Outputs(rig.database, blobs)
    return AgentProtocol(
        database=rig.database,
        orchestrator=rig.orchestrator,
        doorbell=rig.doorbell,
        queues=rig.orchestrator.queues,
        sessions=Sessions(rig.database, 30.0),
        lease_expiry=LeaseExpiry(rig.database, rig.orchestrator, 30.0),
        log_writer=LogWriter(rig.database, rig.doorbell, rig.orchestrator.confirm),
        blobs=blobs,
        outputs=outputs,
        offers=OfferMessages(
            *(rig.orchestrator, outputs, AgentLimits(5.0)),
            PluginSchemas(rig.database),
            SecretHandout(rig.database, None),
        ),
        artifacts=AgentArtifacts(
            rig.database,
            blobs,
            rig.orchestrator.blueprints,
            ArtifactUploads(rig.database, blobs, folder / "uploads", 1_000),
            OpenStreams(4),
        ),
    )

"""Turns hand-outs into the messages that an agent gets, with the outputs of the predecessors and the secrets in them.

Whatever cannot be sent is taken back before the answer goes, so that it neither holds up the rest of the answer nor
comes round for ever (I30): inputs that are too large, a config that does not fit and secrets that cannot be had fail
the step, an output that cannot be read postpones it, and a message that is full leaves the others for the next one.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from towline.v1 import agent_service_pb2 as pb
from towline_controlplane.errors import LimitExceeded, NotFound, TowlineError, Unavailable
from towline_controlplane.handouts import StepOffer
from towline_controlplane.model import Failure, FailureClass
from towline_controlplane.orchestrator import Orchestrator
from towline_controlplane.outputs import Outputs
from towline_controlplane.services.agent_messages import AgentLimits, offer
from towline_controlplane.services.plugin_schemas import PluginSchemas
from towline_controlplane.services.secret_handout import SecretHandout, SecretUnavailable
from towline_controlplane.store import artifacts
from towline_controlplane.submissions import TakeBack
from towline_controlplane.vault import UNAVAILABLE

MAX_INPUTS_BYTES: Final = 16 << 20
MAX_INPUT_ARTIFACTS: Final = 10_000
MAX_OFFERS_BYTES: Final = 24 << 20
"""In one answer: more than a single offer can have, less than the server may send."""
MAX_UNREADABLE: Final = 10
"""Hand-outs that may fail for an output that cannot be read; the step fails with the last, some minutes later."""
_FIRST_DELAY_MS: Final = 1_000
_LONGEST_DELAY_MS: Final = 60_000
_COUNTED_STEPS: Final = 10_000

_TOO_LARGE: Final = Failure(
    FailureClass.PERMANENT,
    "INPUTS_TOO_LARGE",
    f"its predecessors have outputs of more than {MAX_INPUTS_BYTES >> 20} MiB, or more than {MAX_INPUT_ARTIFACTS:,}"
    " artifacts, together",
)

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class OfferMessages:
    """Writes offers; `_unreadable` counts the hand-outs in vain by run and node."""

    orchestrator: Orchestrator
    outputs: Outputs
    limits: AgentLimits
    schemas: PluginSchemas
    secrets: SecretHandout
    _unreadable: OrderedDict[tuple[str, str], int] = field(default_factory=OrderedDict[tuple[str, str], int])

    async def write(self, offers: Sequence[StepOffer], waited: float = 0.0) -> list[pb.Offer]:
        """Returns the messages of those offers that can be sent; the others go back before this returns.

        They were made when their request had waited for `waited` seconds.
        """
        messages: list[pb.Offer] = []
        back: list[TakeBack] = []
        size = 0
        for given in offers:
            try:
                message = await self._message(given, waited)
            except Exception as error:
                log.exception("offer failed", run=given.run.id, node=given.step.node_id)
                await self.orchestrator.quarantine(given.run.id, error)
                continue
            if isinstance(message, TakeBack):
                back.append(message)
            elif messages and size + message.ByteSize() > MAX_OFFERS_BYTES:
                back.append(_take_back(given))
            else:
                size += message.ByteSize()
                messages.append(message)
        await self.orchestrator.settle(back)
        return messages

    async def _message(self, given: StepOffer, waited: float) -> "pb.Offer | TakeBack":
        key = (given.step.run_id, given.step.node_id)
        wrong = await self.schemas.wrong_config(given)
        if wrong is not None:
            return _take_back(given, failure=wrong)
        try:
            texts = await self.outputs.texts(given.inputs, MAX_INPUTS_BYTES)
            made = await self._artifacts(given)
        except LimitExceeded:
            return _take_back(given, failure=_TOO_LARGE)
        except (NotFound, Unavailable) as error:
            return self._postpone(given, error)
        self._unreadable.pop(key, None)
        message = offer(given, texts, self.limits, waited)
        message.input_artifacts.artifacts.extend(made)
        message.input_artifacts.fetch = given.fetch_artifacts
        return await self._with_secrets(given, message) if given.plugin.secrets else message

    async def _with_secrets(self, given: StepOffer, message: pb.Offer) -> "pb.Offer | TakeBack":
        try:
            message.secrets.update(await self.secrets.values(given))
        except SecretUnavailable as error:
            return _take_back(given, failure=Failure(FailureClass.PERMANENT, UNAVAILABLE, str(error)))
        except Unavailable as error:
            log.warning("secrets_unreadable", run=given.step.run_id, node=given.step.node_id, reason=error.message)
            return _take_back(given, delay_ms=_FIRST_DELAY_MS)
        return message

    async def _artifacts(self, given: StepOffer) -> list[pb.InputArtifact]:
        """Returns the artifacts of the predecessors; steps without any cost nothing."""
        if not given.artifact_counts:
            return []
        if sum(given.artifact_counts.values()) > MAX_INPUT_ARTIFACTS:
            raise LimitExceeded(f"the predecessors have more than {MAX_INPUT_ARTIFACTS} artifacts together")
        sources = sorted(given.artifact_counts)
        found = await self.outputs.database.read(lambda tx: artifacts.inputs_of(tx, given.run.id, sources))
        return [
            pb.InputArtifact(node_id=each.node_id, name=each.name, size_bytes=each.size_bytes, digest=each.digest)
            for each in found
        ]

    def _postpone(self, given: StepOffer, error: TowlineError) -> TakeBack:
        key = (given.step.run_id, given.step.node_id)
        count = self._unreadable[key] = self._unreadable.pop(key, 0) + 1
        if len(self._unreadable) > _COUNTED_STEPS:
            self._unreadable.popitem(last=False)
        log.warning("output_unreadable", run=key[0], node=key[1], count=count, reason=error.message)
        if count < MAX_UNREADABLE:
            return _take_back(given, delay_ms=min(_FIRST_DELAY_MS << (count - 1), _LONGEST_DELAY_MS))
        del self._unreadable[key]
        message = "the output of a predecessor cannot be read from the blob store"
        failure = Failure(FailureClass.PERMANENT, "OUTPUT_UNAVAILABLE", message, error.message)
        return _take_back(given, failure=failure)


def _take_back(given: StepOffer, *, delay_ms: int = 0, failure: Failure | None = None) -> TakeBack:
    return TakeBack(given.step.run_id, given.step.node_id, given.attempt.epoch, delay_ms, failure)

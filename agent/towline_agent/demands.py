"""The sandbox in the words of the control plane: what an offer demands, and what this agent says of itself."""

from types import MappingProxyType

from towline.v1.agent_service_pb2 import Offer
from towline.v1.sandbox_pb2 import Sandbox
from towline_agent.sandbox.levels import Level
from towline_agent.sandbox.standing import Demand, NetworkDemand, Standing

_MESSAGES = MappingProxyType(
    {
        Level.L0: Sandbox.L0,
        Level.L1: Sandbox.L1,
        Level.L2: Sandbox.L2,
        Level.L3: Sandbox.L3,
        Level.L4: Sandbox.L4,
    }
)
_LEVELS = MappingProxyType({message: level for level, message in _MESSAGES.items()})


def demand_of(offer: Offer) -> Demand:
    """Returns what an attempt asks for at least; a level that is not known here is above all that are."""
    asked = offer.confinement
    level = _LEVELS.get(asked.min_sandbox, Level.L4 if asked.min_sandbox else Level.L0)
    if asked.network == Sandbox.NONE:
        return Demand(level, NetworkDemand.NONE)
    return Demand(level, NetworkDemand.UNNEEDED if asked.network_unneeded else NetworkDemand.FULL)


def level_message(level: Level) -> Sandbox.Level:
    """Returns a level as messages name it."""
    return _MESSAGES[level]


def describe_sandbox(standing: Standing) -> Sandbox:
    """Returns what this agent tells of its sandbox."""
    message = Sandbox(
        level=level_message(standing.level),
        features=standing.features,
        missing=[Sandbox.MissingFeature(feature=name, reason=why) for name, why in standing.missing.items()],
        memory_enforcement=standing.memory_enforcement,
        network_isolation=standing.network_isolation,
        kernel=standing.kernel,
    )
    message.probe_time.FromSeconds(int(standing.probed_at))
    return message

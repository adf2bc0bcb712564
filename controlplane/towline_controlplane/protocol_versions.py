"""Which versions of the agent protocol this control plane speaks, and what the older of them does not know. Pure.

The version rises with each minor release that lets a node ask something new of its agent. The release before is
served too, so that agents can be replaced one by one; what its agents would silently ignore they are not offered.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from towline_controlplane.errors import AgentUnsupported

CURRENT: Final = 2
OLDEST: Final = 1
UNTOLD: Final = 1
"""That of agents from before the version was told."""

KNOWN_SINCE: Final[Mapping[str, int]] = MappingProxyType(
    {"network": 2, "weight": 2, "limits": 2, "secrets": 2, "fetchArtifacts": 2}
)
"""Fields of a node, or permissions of its plugin, that an agent must know to honour them."""


def supported(version: int) -> int:
    """Returns the version that an agent speaks; raises AgentUnsupported if it is not spoken here."""
    spoken = version or UNTOLD
    if spoken < OLDEST:
        raise AgentUnsupported(_differs(spoken, "upgrade the agent"))
    if spoken > CURRENT:
        raise AgentUnsupported(_differs(spoken, "upgrade the control planes before the agents"))
    return spoken


def _differs(spoken: int, advice: str) -> str:
    return f"the agent speaks version {spoken} of the protocol, this control plane {OLDEST} to {CURRENT}: {advice}"

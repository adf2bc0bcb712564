"""What a node asks of its agent's version, and which versions are spoken at all."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from towline_agent.agent import PROTOCOL_VERSION
from towline_controlplane import protocol_versions
from towline_controlplane.engine.nodes import with_plugin
from towline_controlplane.errors import AgentUnsupported
from towline_controlplane.model import PluginRef
from towline_dag.choices import Limits, Network, SideEffects
from towline_dag.fields import Fields, Violations
from towline_dag.nodes import read_node

PLUGIN = PluginRef("p", "1.0.0", "digest", "run", SideEffects.NONE)


def version_of(plugin: PluginRef | None = None, **fields: Any) -> int:
    node = read_node(Fields({"id": "a", "type": "p", **fields}, "nodes[0]", Violations()), 0)
    return with_plugin(node, plugin).requirements.protocol_version


@pytest.mark.parametrize(
    "asked",
    [
        {"network": "NONE"},
        {"weight": 2},
        {"limits": {"processes": 10}},
        {"secrets": ["token"]},
        {"fetchArtifacts": True},
    ],
)
def test_what_an_old_agent_would_ignore_needs_a_new_one(asked: dict[str, Any]) -> None:
    assert version_of(**asked) == 2


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"network": "FULL"},
        {"network": "NETWORK_UNSPECIFIED"},
        {"weight": 1},
        {"weight": 0},
        {"limits": {}},
        {"secrets": []},
        {"fetchArtifacts": False},
        {"timeoutMs": 1000, "memoryLimitMb": 64, "labels": {"a": "b"}, "minSandbox": "L2"},
    ],
)
def test_what_every_agent_does_anyway_needs_none(asked: dict[str, Any]) -> None:
    assert version_of(**asked) == 1


@pytest.mark.parametrize(
    ("permissions", "version"),
    [({}, 1), ({"network": Network.NONE}, 2), ({"secrets": ("token",)}, 2), ({"limits": Limits(processes=9)}, 2)],
)
def test_what_a_plugin_asks_for_counts_too(permissions: dict[str, Any], version: int) -> None:
    assert version_of(replace(PLUGIN, **permissions)) == version


def test_this_release_speaks_with_itself_and_with_the_one_before() -> None:
    assert PROTOCOL_VERSION == protocol_versions.CURRENT == protocol_versions.OLDEST + 1
    assert protocol_versions.supported(0) == protocol_versions.UNTOLD
    assert protocol_versions.supported(PROTOCOL_VERSION) == PROTOCOL_VERSION


def test_a_version_that_is_not_spoken_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AgentUnsupported, match=r"version 3 .* 1 to 2: upgrade the control planes before the agents"):
        protocol_versions.supported(protocol_versions.CURRENT + 1)
    monkeypatch.setattr(protocol_versions, "OLDEST", 2)
    with pytest.raises(AgentUnsupported, match="upgrade the agent"):
        protocol_versions.supported(0)


def test_all_that_is_known_since_a_version_is_documented() -> None:
    documented = (Path(__file__).resolve().parents[2] / "docs" / "install.md").read_text()
    for name in protocol_versions.KNOWN_SINCE:
        assert re.search(rf"`{name}`", documented), name

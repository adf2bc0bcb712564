"""Queues and the agents that may claim from them (I20)."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline_controlplane import protocol_versions
from towline_controlplane.engine.allowance import Platform, ServerLimits
from towline_controlplane.engine.placement import Rule, free_slots, queue_id, satisfies, unmet
from towline_controlplane.model import AgentRecord
from towline_controlplane.requirements import Requirements, Size
from towline_dag.choices import Network, SandboxLevel

names = st.text(max_size=5)
labels = st.dictionaries(names, names, max_size=4)
levels = st.sampled_from(SandboxLevel)
versions = st.integers(protocol_versions.OLDEST, protocol_versions.CURRENT)
networks = st.sampled_from(Network)
requirements = st.builds(Requirements, labels, levels, st.none() | names, versions, network=networks)


def an_agent(**fields: Any) -> AgentRecord:
    return AgentRecord("id-of-a", "a", "", create_time=0, **fields)


agents = st.builds(an_agent, labels=labels, sandbox_level=levels, plugins=st.lists(names, max_size=3).map(tuple))


@given(requirements)
def test_equal_requirements_are_one_queue_in_any_order(required: Requirements) -> None:
    backwards = replace(required, labels=dict(reversed(list(required.labels.items()))))
    assert queue_id(required) == queue_id(backwards)


@given(requirements, requirements)
def test_different_requirements_are_different_queues(left: Requirements, right: Requirements) -> None:
    assert (queue_id(left) == queue_id(right)) == (left == right)


@pytest.mark.parametrize(
    ("required", "expected"),
    [
        (Requirements(), "80fe33d67f23acbe"),
        (Requirements({"zone": "eu", "gpu": "yes"}), "3ae3127050ce968c"),
        (Requirements(plugin="SHELL"), "59171b609ccbd6a4"),
        (Requirements({"zone": "eu"}, SandboxLevel.L2, "SHELL"), "a98bc40bea520400"),
        (Requirements({"zone": "eu"}, SandboxLevel.L2, "SHELL", 1), "a98bc40bea520400"),
        (Requirements(plugin="SHELL", protocol_version=2), "29cdaedf6528f0b9"),
    ],
)
def test_the_id_of_a_queue_is_the_same_in_every_process_and_release(required: Requirements, expected: str) -> None:
    assert queue_id(required) == expected


@pytest.mark.parametrize(
    ("agent", "required", "may_claim"),
    [
        ({}, {}, True),
        ({"gpu": "yes"}, {}, True),
        ({"gpu": "yes", "zone": "eu"}, {"gpu": "yes"}, True),
        ({"gpu": "yes"}, {"gpu": "yes", "zone": "eu"}, False),
        ({"gpu": "no"}, {"gpu": "yes"}, False),
        ({}, {"gpu": ""}, False),
        ({"gpu": ""}, {"gpu": ""}, True),
    ],
)
def test_an_agent_claims_where_it_carries_every_label(
    agent: dict[str, str], required: dict[str, str], may_claim: bool
) -> None:
    assert satisfies(Requirements(required), an_agent(labels=agent)) is may_claim


@pytest.mark.parametrize(
    ("required", "agent", "reason"),
    [
        (
            Requirements({"gpu": "yes", "zone": "eu"}),
            {"labels": {"gpu": "no"}},
            (Rule.LABEL, "lacks the label gpu=yes, zone=eu (it has gpu=no)"),
        ),
        (Requirements({"gpu": "yes"}), {}, (Rule.LABEL, "lacks the label gpu=yes")),
        (
            Requirements(sandbox_level=3),
            {"sandbox_level": 1},
            (Rule.SANDBOX, "its sandbox is L1, and L3 is asked for"),
        ),
        (
            Requirements(plugin="PYTHON"),
            {"plugins": ("SHELL", "DELAY")},
            (Rule.PLUGIN, "runs only DELAY, SHELL, not PYTHON"),
        ),
        (
            Requirements(),
            {"plugins": ("SHELL",)},
            (Rule.PLUGIN, "runs only SHELL, not what a step from before plugins were asked for calls"),
        ),
        (
            Requirements(plugin="JSON_TRANSFORM"),
            {"lacking": ("JSON_TRANSFORM",)},
            (Rule.PLUGIN, "has not installed what JSON_TRANSFORM needs"),
        ),
        (
            Requirements(protocol_version=2),
            {"version": "0.1.0"},
            (
                Rule.PROTOCOL,
                "its version 0.1.0 does not know what nodes may ask for since"
                " (fetchArtifacts, limits, network, secrets, weight)",
            ),
        ),
    ],
)
def test_what_an_agent_does_not_meet_is_named(
    required: Requirements, agent: dict[str, object], reason: tuple[Rule, str]
) -> None:
    assert [(each.rule, each.message) for each in unmet(required, an_agent(**agent))] == [reason]


def test_everything_unmet_is_named_in_a_fixed_order() -> None:
    required = Requirements({"gpu": "yes"}, SandboxLevel.L4, "PYTHON", 2)
    assert [each.rule for each in unmet(required, an_agent(plugins=("SHELL",)))] == [
        Rule.LABEL,
        Rule.SANDBOX,
        Rule.PLUGIN,
        Rule.PROTOCOL,
    ]


@given(requirements, agents)
def test_more_labels_a_stronger_sandbox_and_all_plugins_never_cost_an_agent_work(
    required: Requirements, agent: AgentRecord
) -> None:
    labels = {**agent.labels, **required.labels}
    strong: dict[str, Any] = {"sandbox_level": SandboxLevel.L4, "network_isolation": "netns"}
    able = an_agent(labels=labels, protocol_version=protocol_versions.CURRENT, **strong)
    assert satisfies(required, able)


@pytest.mark.parametrize(
    ("slots", "held", "drained", "now", "free"),
    [(4, 0, False, 9, 4), (4, 4, False, 9, 0), (2, 5, False, 9, 0), (4, 1, True, 9, 0), (4, 0, False, 10, 0)],
)
def test_an_agent_has_the_slots_that_it_does_not_hold_and_none_when_drained_or_gone(
    slots: int, held: int, drained: bool, now: int, free: int
) -> None:
    assert free_slots(an_agent(slots=slots, drained=drained, lease_expire_time=10), held, now) == free


@pytest.mark.parametrize(
    ("agent", "required", "reason"),
    [
        ({"sandbox_level": 3}, Requirements(sandbox_level=3), ""),
        ({"sandbox_level": 3, "sandbox_cap": 4}, Requirements(sandbox_level=3), ""),
        (
            {"sandbox_level": 3, "sandbox_cap": 1},
            Requirements(sandbox_level=2),
            "its sandbox is L1 (it says L3), and L2 is asked for",
        ),
        (
            {"sandbox_level": 1},
            Platform(SandboxLevel.L2).enforced(Requirements()),
            "its sandbox is L1, and L2 is asked for",
        ),
        ({"sandbox_level": 2, "network_isolation": "seccomp"}, Requirements(network=Network.NONE), ""),
        ({"sandbox_level": 2}, Requirements(network=Network.NONE), "cannot keep a plugin off the network"),
        (
            {"sandbox_level": 3, "network_isolation": "netns", "sandbox_cap": 1},
            Requirements(network=Network.NONE),
            "cannot keep a plugin off the network",
        ),
    ],
)
def test_what_is_believed_of_a_sandbox_decides(agent: dict[str, Any], required: Requirements, reason: str) -> None:
    assert "; ".join(each.message for each in unmet(required, an_agent(**agent))) == reason


def test_a_floor_only_raises() -> None:
    assert Platform(SandboxLevel.L2).enforced(Requirements(sandbox_level=3)).sandbox_level == SandboxLevel.L3


@pytest.mark.parametrize(
    ("asked", "most", "enforced"), [(0, 0, 512), (0, 100, 100), (2048, 0, 2048), (2048, 1024, 1024), (300, 1024, 300)]
)
def test_an_agent_has_to_have_the_memory_that_a_step_gets_not_what_it_asks_for(
    asked: int, most: int, enforced: int
) -> None:
    platform = Platform(limits=ServerLimits(most_memory_mb=most))
    required = platform.enforced(Requirements(size=Size(2, asked)))
    assert required.size == Size(2, enforced)
    assert not unmet(required, an_agent(slots=2, memory_bytes=enforced << 20))
    assert [each.rule for each in unmet(required, an_agent(slots=2, memory_bytes=(enforced << 20) - 1))] == [
        Rule.MEMORY
    ]

import asyncio
from dataclasses import replace

import pytest
from store_samples import Store, a_step, add_agent, add_lease, add_run, an_agent

from towline_controlplane.errors import AlreadyExists
from towline_controlplane.model import AttemptState, StepState
from towline_controlplane.store import agents, enrollment_tokens, runs
from towline_controlplane.store.agents import LeaseClock, SessionInfo

INFO = SessionInfo(
    4, {"zone": "a"}, "1.0", "host", "linux/x86_64", sandbox_level=2, plugins=["DELAY", "SHELL"], lacking=["PYTHON"]
)


def test_an_agent_is_stored_with_every_field(store: Store) -> None:
    full = an_agent(
        session_id="session-1",
        slots=2,
        labels={"gpu": "yes"},
        version="1",
        hostname="host",
        platform="linux",
        renewals=7,
        lease_expire_time=8,
        last_seen_time=9,
        drained=True,
        sandbox_level=4,
        plugins=("SHELL",),
    )
    store.write(agents.insert_agent, full)
    assert store.read(agents.get_agent, "agent-1") == full
    assert store.read(agents.find_by_credential, full.credential_hash) == full


def test_an_unknown_agent_or_credential_is_none(store: Store) -> None:
    store.write(add_agent)
    assert store.read(agents.get_agent, "none") is None
    assert store.read(agents.find_by_credential, "none") is None


def test_the_name_of_an_agent_is_taken_once(store: Store) -> None:
    store.write(add_agent)
    with pytest.raises(AlreadyExists, match="name of agent-1"):
        store.write(add_agent, "agent-2", name="name of agent-1")
    assert store.read(agents.get_agent, "agent-2") is None


def test_a_session_replaces_the_one_before(store: Store) -> None:
    agent = store.write(add_agent)
    assert store.write(agents.open_session, "agent-1", "session-1", INFO, 5_000)
    store.clock.now += 1
    assert store.write(agents.open_session, "agent-1", "session-2", INFO, 6_000)
    assert store.read(agents.get_agent, "agent-1") == replace(
        agent,
        session_id="session-2",
        slots=4,
        labels={"zone": "a"},
        version="1.0",
        hostname="host",
        platform="linux/x86_64",
        sandbox_level=2,
        plugins=("DELAY", "SHELL"),
        protocol_version=2,
        lacking=("PYTHON",),
        renewals=2,
        lease_expire_time=6_000,
        last_seen_time=1_000_001,
    )


def test_sessions_named_at_random_replace_one_another_in_any_order(store: Store) -> None:
    greater, smaller = "ffffffff-0000-4000-8000-000000000000", "00000000-0000-4000-8000-000000000000"
    ordered = "01a21f54-22b6-78cb-b884-98fb84141071"
    store.write(add_agent)
    for session_id in (ordered, greater, smaller, greater, ordered, smaller, ordered):
        assert store.write(agents.open_session, "agent-1", session_id, INFO, store.clock.now + 5_000), session_id
    assert not store.write(agents.open_session, "agent-1", ordered.replace("01", "00", 1), INFO, 9_000_000)


def test_an_earlier_session_comes_back_only_when_the_lease_of_the_later_one_is_over(store: Store) -> None:
    store.write(add_agent)
    now = store.clock.now
    assert store.write(agents.open_session, "agent-1", "session-1", INFO, now + 10)
    assert store.write(agents.open_session, "agent-1", "session-2", INFO, now + 10)
    assert not store.write(agents.open_session, "agent-1", "session-1", INFO, now + 20)
    assert store.write(agents.open_session, "agent-1", "session-2", INFO, now + 10)
    store.clock.now += 10
    assert store.write(agents.open_session, "agent-1", "session-1", INFO, now + 20)


def test_an_unknown_agent_opens_no_session(store: Store) -> None:
    assert not store.write(agents.open_session, "none", "session-1", INFO, 5_000)


def test_only_the_session_of_the_agent_renews(store: Store) -> None:
    store.write(add_agent)
    assert not store.write(agents.renew_if_session, "agent-1", "session-1", 5_000)
    store.write(agents.open_session, "agent-1", "session-1", INFO, 5_000)
    before = store.read(agents.get_agent, "agent-1")
    assert before is not None
    assert not store.write(agents.renew_if_session, "agent-1", "session-2", 9_000)
    assert not store.write(agents.renew_if_session, "none", "session-1", 9_000)
    assert store.read(agents.get_agent, "agent-1") == before
    store.clock.now += 10
    assert store.write(agents.renew_if_session, "agent-1", "session-1", 7_000)
    renewed = replace(before, renewals=2, lease_expire_time=7_000, last_seen_time=1_000_010)
    assert store.read(agents.get_agent, "agent-1") == renewed


def test_agents_are_listed_by_name_with_what_they_hold(store: Store) -> None:
    for agent_id, name in [("agent-1", "b"), ("agent-2", "a"), ("agent-3", "c")]:
        store.write(add_agent, agent_id, name=name)
    store.write(add_run, steps=tuple(a_step(node_id=node) for node in "abcd"))
    store.write(add_lease, "run-1", "a")
    store.write(add_lease, "run-1", "b", state=AttemptState.RUNNING)
    store.write(add_lease, "run-1", "c", state=AttemptState.SUCCEEDED)
    store.write(add_lease, "run-1", "d")
    store.write(runs.save_changes, steps=[a_step(node_id="d", state=StepState.READY, attempt=1, epoch=1)])
    listed = store.read(agents.list_agents, "", 10)
    assert [(item.agent.name, item.running) for item in listed] == [("a", 0), ("b", 2), ("c", 0)]
    assert [item.agent.name for item in store.read(agents.list_agents, "a", 1)] == ["b"]
    assert store.read(agents.list_agents, "c", 10) == []


def test_locked_agents_come_with_what_they_hold(store: Store) -> None:
    for agent_id in ("agent-1", "agent-2", "agent-3"):
        store.write(add_agent, agent_id, slots=5)
    store.write(add_run, steps=tuple(a_step(node_id=node) for node in "abcd"))
    for node, number in (("a", 1), ("b", 1), ("c", 2)):
        store.write(add_lease, "run-1", node, agent_id=f"agent-{number}")
    store.write(add_lease, "run-1", "d", agent_id="agent-2")
    store.write(runs.save_changes, steps=[a_step(node_id="d", state=StepState.READY, attempt=1, epoch=1)])
    locked = store.write(agents.lock_agents, {"agent-2", "agent-1", "none"})
    assert {agent_id: (each.agent.slots, each.running) for agent_id, each in locked.items()} == {
        "agent-1": (5, 2),
        "agent-2": (5, 1),
    }


def test_an_agent_is_found_by_its_id_before_another_by_its_name(store: Store) -> None:
    store.write(add_agent, "agent-1", name="b")
    store.write(add_agent, "agent-2", name="agent-1")
    found = [store.read(agents.find_agent, key) for key in ("agent-1", "b", "agent-2", "none")]
    assert [listed and listed.agent.id for listed in found] == ["agent-1", "agent-1", "agent-2", None]


def test_an_agent_is_drained_until_that_is_taken_back(store: Store) -> None:
    store.write(add_agent, "agent-1")
    store.write(add_agent, "agent-2")
    for drained in (True, True, False):
        store.write(agents.set_drained, "agent-1", drained=drained)
        store.write(agents.open_session, "agent-1", "session-1", INFO, 5_000)
        states = [store.read(agents.get_agent, agent_id) for agent_id in ("agent-1", "agent-2")]
        assert [state and state.drained for state in states] == [drained, False]


def test_lease_clocks_are_those_of_agents_that_hold_attempts(store: Store) -> None:
    for agent_id in ("agent-1", "agent-2", "agent-3", "agent-4"):
        store.write(add_agent, agent_id)
    store.write(agents.open_session, "agent-2", "session-2", INFO, 5_000)
    store.write(add_run, steps=tuple(a_step(node_id=node) for node in "abcd"))
    store.write(add_lease, "run-1", "a", agent_id="agent-2")
    store.write(add_lease, "run-1", "b", agent_id="agent-2")
    store.write(add_lease, "run-1", "c", agent_id="agent-1")
    store.write(add_lease, "run-1", "d", agent_id="agent-3", state=AttemptState.LOST)
    assert store.read(agents.lease_clocks) == [
        LeaseClock("agent-1", None, 0, 0),
        LeaseClock("agent-2", "session-2", 1, 5_000),
    ]


def test_an_enrollment_token_is_good_for_its_uses(store: Store) -> None:
    store.write(enrollment_tokens.insert, "hash", 2, store.clock.now + 10)
    assert store.write(enrollment_tokens.use, "hash")
    assert store.write(enrollment_tokens.use, "hash")
    assert not store.write(enrollment_tokens.use, "hash")
    assert not store.write(enrollment_tokens.use, "other")


def test_an_enrollment_token_is_good_until_it_expires(store: Store) -> None:
    store.write(enrollment_tokens.insert, "hash", 9, store.clock.now + 10)
    store.clock.now += 9
    assert store.write(enrollment_tokens.use, "hash")
    store.clock.now += 1
    assert not store.write(enrollment_tokens.use, "hash")


def test_a_stored_enrollment_token_is_not_refilled(store: Store) -> None:
    store.write(enrollment_tokens.insert, "hash", 1, store.clock.now + 10)
    assert store.write(enrollment_tokens.use, "hash")
    store.write(enrollment_tokens.insert, "hash", 5, store.clock.now + 99)
    assert not store.write(enrollment_tokens.use, "hash")


def test_racing_agents_do_not_overuse_a_token(store: Store) -> None:
    async def scenario() -> list[bool]:
        return await asyncio.gather(
            *(store.database.write(lambda tx: enrollment_tokens.use(tx, "hash")) for _ in range(12))
        )

    store.write(enrollment_tokens.insert, "hash", 5, store.clock.now + 10)
    assert store.runner.run(scenario()).count(True) == 5

import asyncio
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select
from store_samples import Store, a_plugin, a_plugin_version, a_user, a_version, a_workflow

from towline_controlplane.errors import AlreadyExists, NotFound, PluginVersionExists
from towline_controlplane.model import Workflow
from towline_controlplane.requirements import Requirements
from towline_controlplane.store import plugins, queues, tables, users, workflows
from towline_controlplane.store.database import Database, Transaction
from towline_controlplane.store.keysets import Order, Place
from towline_controlplane.store.plugins import precedence
from towline_controlplane.store.workflows import WorkflowFilter


def add_workflow(store: Store, workflow_id: str = "workflow-1", **fields: object) -> None:
    store.write(workflows.insert_workflow, a_workflow(workflow_id, **fields), a_version(workflow_id))


def test_a_user_is_stored_with_every_field(store: Store) -> None:
    user = a_user()
    store.write(users.insert_user, user)
    assert store.read(users.get_user, "user-1") == user
    assert store.read(users.find_by_email, "user-1@example.org") == user
    assert store.read(users.get_user, "none") is None
    assert store.read(users.find_by_email, "USER-1@example.org") is None


def test_an_email_is_taken_once_and_not_told(store: Store) -> None:
    store.write(users.insert_user, a_user())
    with pytest.raises(AlreadyExists) as caught:
        store.write(users.insert_user, a_user("user-2", email="user-1@example.org"))
    assert "user-1" not in caught.value.message
    assert store.read(users.get_user, "user-2") is None


def test_of_racing_registrations_with_one_email_one_succeeds(store: Store) -> None:
    async def scenario() -> list[object]:
        people = [a_user(f"user-{n}", email="same@example.org") for n in range(8)]
        attempts = (store.database.write(lambda tx, user=user: users.insert_user(tx, user)) for user in people)
        return await asyncio.gather(*attempts, return_exceptions=True)

    results = store.runner.run(scenario())
    assert results.count(None) == 1
    assert sum(isinstance(result, AlreadyExists) for result in results) == 7


def test_queues_are_made_once_and_keep_their_requirements(store: Store) -> None:
    first, second = Requirements({"zone": "a"}), Requirements({"gpu": "yes"}, 3, "SHELL", 2)
    store.write(queues.ensure_queues, {"q1": first, "q2": Requirements()})
    store.write(queues.ensure_queues, {"q1": Requirements({"zone": "other"}), "q3": second})
    assert store.read(queues.all_queues) == {"q1": first, "q2": Requirements(), "q3": second}


def test_a_workflow_is_stored_with_every_field_and_its_first_version(store: Store) -> None:
    add_workflow(store, pinned_version_id="v", update_time=2_000)
    assert store.read(workflows.get_workflow, "workflow-1", None) == a_workflow(
        pinned_version_id="v", update_time=2_000
    )
    assert store.read(workflows.get_version, "workflow-1-version-1") == a_version()
    assert store.read(workflows.get_version, "none") is None


def test_a_version_says_of_its_plugins_only_what_is_not_the_default(store: Store) -> None:
    """A release that knows less goes on reading the versions of plugins that ask for nothing."""
    add_workflow(store)
    query = select(tables.workflow_versions.c.plugins)
    text = store.read(lambda tx: tx.connection.execute(query).scalar_one())
    plain, demanding = json.loads(text)["a"], json.loads(text)["b"]
    assert sorted(plain) == ["digest", "entry_point", "name", "side_effects", "version"]
    assert demanding["limits"] == {"processes": 5, "log_kb": 7}


def test_a_workflow_is_seen_by_its_owner_and_by_admins(store: Store) -> None:
    add_workflow(store)
    assert store.read(workflows.get_workflow, "workflow-1", "owner-1") == a_workflow()
    assert store.read(workflows.get_workflow, "workflow-1", "owner-2") is None
    assert store.read(workflows.list_workflows, WorkflowFilter("owner-2"), None, 10) == []


def test_workflows_are_listed_newest_first_page_by_page(store: Store) -> None:
    for name, create_time in {"a": 5, "b": 7, "c": 5, "d": 6}.items():
        add_workflow(store, name, create_time=create_time)
    add_workflow(store, "other", owner_id="owner-2", create_time=9)
    first = store.read(workflows.list_workflows, WorkflowFilter("owner-1"), None, 3)
    assert [workflow.id for workflow in first] == ["b", "d", "c"]
    rest = store.read(workflows.list_workflows, WorkflowFilter("owner-1"), (5, "c"), 3)
    assert [workflow.id for workflow in rest] == ["a"]
    assert len(store.read(workflows.list_workflows, WorkflowFilter(), None, 10)) == 5


NAMES = ("b", "B", "", "ba", "ab", "b\U0010ffff", "c", "bé", "\U0010ffff\U0010ffff", "b")


@pytest.mark.parametrize("column", ["name", "create_time", "update_time"])
@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("prefix", ["", "b", "b\U0010ffff", "\U0010ffff", "\ud7ff", "z"])
def test_workflows_are_listed_in_any_order_by_a_prefix(
    store: Store, column: str, descending: bool, prefix: str
) -> None:
    for number, name in enumerate(NAMES):
        add_workflow(store, f"w{number}", name=name, create_time=number % 3, update_time=number % 4)
    order, after, seen = Order(column, descending), None, list[Place]()
    while page := store.read(workflows.list_workflows, WorkflowFilter(name_prefix=prefix), after, 2, order):
        seen += [order.place(row) for row in page]
        after = seen[-1]
    everything = store.read(workflows.list_workflows, WorkflowFilter(), None, 100)
    expected = [order.place(row) for row in everything if row.name.startswith(prefix)]
    assert seen == sorted(expected, key=lambda place: (str(place[0]).encode(), place[1]), reverse=descending)


def test_an_update_renames_and_dates_a_workflow(store: Store) -> None:
    add_workflow(store)
    assert store.write(workflows.update_workflow, "workflow-1", "new", "better")
    assert store.read(workflows.get_workflow, "workflow-1", None) == a_workflow(
        name="new", description="better", update_time=store.clock.now
    )
    assert not store.write(workflows.update_workflow, "none", "new", "better")


def test_a_locked_workflow_is_changed_by_one_replica_at_a_time(postgres_url: str) -> None:
    def count(tx: Transaction) -> None:
        row = workflows.lock_workflow(tx, "workflow-1", "owner-1")
        assert row is not None
        workflows.update_workflow(tx, row.id, str(int(row.name) + 1), "")

    async def race() -> Workflow | None:
        replicas = [Database.open(postgres_url) for _ in range(2)]
        await replicas[0].write(lambda tx: workflows.insert_workflow(tx, a_workflow(name="0"), a_version()))
        await asyncio.gather(*(replica.write(count) for _ in range(20) for replica in replicas))
        found = await replicas[0].read(lambda tx: workflows.get_workflow(tx, "workflow-1", None))
        await asyncio.gather(*(replica.close() for replica in replicas))
        return found

    row = asyncio.run(race())
    assert row is not None
    assert row.name == "40"


def test_a_locked_workflow_is_its_owners(store: Store) -> None:
    add_workflow(store)
    assert store.write(workflows.lock_workflow, "workflow-1", "owner-1") == a_workflow()
    assert store.write(workflows.lock_workflow, "workflow-1", "owner-2") is None


def test_a_deleted_workflow_is_never_seen_again_but_its_versions_stay(store: Store) -> None:
    add_workflow(store)
    assert store.write(workflows.delete_workflow, "workflow-1")
    assert not store.write(workflows.delete_workflow, "workflow-1")
    assert store.read(workflows.get_workflow, "workflow-1", None) is None
    assert store.read(workflows.list_workflows, WorkflowFilter(), None, 10) == []
    assert not store.write(workflows.update_workflow, "workflow-1", "new", "")
    assert not store.write(workflows.pin_version, "workflow-1", "workflow-1-version-1")
    with pytest.raises(NotFound):
        store.write(workflows.insert_version, a_version(number=2))
    assert store.read(workflows.get_version, "workflow-1-version-1") == a_version()


def test_a_version_gets_the_next_number_and_becomes_the_newest(store: Store) -> None:
    add_workflow(store)
    assert store.write(workflows.insert_version, a_version(number=2, id="second")) == 2
    assert store.write(workflows.insert_version, a_version(number=99, id="third")) == 3
    assert store.read(workflows.get_version, "third") == a_version(number=3, id="third")
    assert store.read(workflows.get_workflow, "workflow-1", None) == a_workflow(
        current_version=3, current_version_id="third", update_time=store.clock.now
    )


def test_racing_versions_get_numbers_without_gaps(store: Store) -> None:
    async def scenario() -> list[int]:
        versions = [a_version(id=f"v{n}") for n in range(10)]
        return await asyncio.gather(
            *(store.database.write(lambda tx, v=version: workflows.insert_version(tx, v)) for version in versions)
        )

    add_workflow(store)
    assert sorted(store.runner.run(scenario())) == list(range(2, 12))


def test_versions_are_listed_newest_first_page_by_page(store: Store) -> None:
    add_workflow(store)
    add_workflow(store, "workflow-2")
    for number in (2, 3, 4):
        store.write(workflows.insert_version, a_version(number=number))
    assert [v.number for v in store.read(workflows.list_versions, "workflow-1", None, 3)] == [4, 3, 2]
    assert [v.number for v in store.read(workflows.list_versions, "workflow-1", 2, 3)] == [1]


def test_only_a_version_of_its_own_is_pinned(store: Store) -> None:
    add_workflow(store)
    add_workflow(store, "workflow-2")
    assert not store.write(workflows.pin_version, "workflow-1", "workflow-2-version-1")
    assert not store.write(workflows.pin_version, "none", "workflow-1-version-1")
    assert store.read(workflows.get_workflow, "workflow-1", None) == a_workflow()
    assert store.write(workflows.pin_version, "workflow-1", "workflow-1-version-1")
    assert store.read(workflows.get_workflow, "workflow-1", None) == a_workflow(
        pinned_version_id="workflow-1-version-1", update_time=store.clock.now
    )


def test_a_plugin_is_found_by_id_and_by_name(store: Store) -> None:
    store.write(plugins.insert_plugin, a_plugin())
    assert store.read(plugins.find_plugin, "plugin-1") == a_plugin()
    assert store.read(plugins.find_plugin, "name-of-plugin-1") == a_plugin()
    assert store.read(plugins.find_plugin, "none") is None


def test_an_id_goes_before_a_name(store: Store) -> None:
    store.write(plugins.insert_plugin, a_plugin("plugin-1", name="plugin-2"))
    store.write(plugins.insert_plugin, a_plugin("plugin-2", name="plugin-1"))
    for plugin_id in ("plugin-1", "plugin-2"):
        found = store.read(plugins.find_plugin, plugin_id)
        assert found is not None
        assert found.id == plugin_id


def test_the_name_of_a_plugin_is_taken_once(store: Store) -> None:
    store.write(plugins.insert_plugin, a_plugin())
    with pytest.raises(AlreadyExists, match="name-of-plugin-1"):
        store.write(plugins.insert_plugin, a_plugin("plugin-2", name="name-of-plugin-1"))


def test_plugins_are_listed_by_name(store: Store) -> None:
    for plugin_id, name in [("1", "b"), ("2", "c"), ("3", "a")]:
        store.write(plugins.insert_plugin, a_plugin(plugin_id, name=name))
    assert [plugin.name for plugin in store.read(plugins.list_plugins, "", 2)] == ["a", "b"]
    assert [plugin.name for plugin in store.read(plugins.list_plugins, "b", 2)] == ["c"]


def test_a_plugin_version_is_stored_with_every_field_once(store: Store) -> None:
    version = a_plugin_version(enabled=False)
    store.write(plugins.insert_plugin, a_plugin())
    store.write(plugins.insert_version, version)
    assert store.read(plugins.find_version, "plugin-1", "1.0.0") == version
    assert store.read(plugins.find_version, "plugin-1", "2.0.0") is None
    with pytest.raises(PluginVersionExists, match=r"1\.0\.0"):
        store.write(plugins.insert_version, replace(version, id="other", digest="other"))
    assert store.read(plugins.list_versions, "plugin-1") == [version]


def test_the_newest_version_is_the_highest_enabled_one(store: Store) -> None:
    store.write(plugins.insert_plugin, a_plugin())
    assert store.read(plugins.find_version, "plugin-1", None) is None
    for number, version in enumerate(["1.10.0", "1.9.0", "2.0.0-rc.1", "1.2.0"]):
        store.write(plugins.insert_version, a_plugin_version(version, create_time=number))
    store.write(plugins.insert_version, a_plugin_version("3.0.0", enabled=False))
    found = store.read(plugins.find_version, "plugin-1", None)
    assert found is not None
    assert found.version == "1.10.0"
    listed = [version.version for version in store.read(plugins.list_versions, "plugin-1")]
    assert listed == ["3.0.0", "1.10.0", "1.9.0", "1.2.0", "2.0.0-rc.1"]


def test_a_pre_release_is_the_newest_only_without_releases(store: Store) -> None:
    store.write(plugins.insert_plugin, a_plugin())
    store.write(plugins.insert_version, a_plugin_version("1.0.0-alpha"))
    found = store.read(plugins.find_version, "plugin-1", None)
    assert found is not None
    assert found.version == "1.0.0-alpha"


def test_versions_are_found_by_their_bytes(store: Store) -> None:
    store.write(plugins.insert_plugin, a_plugin())
    store.write(plugins.insert_version, a_plugin_version("1.0.0", digest="same"))
    store.write(plugins.insert_version, a_plugin_version("1.0.1", digest="same"))
    found = store.read(plugins.find_by_digest, "same")
    assert found is not None
    assert found.digest == "same"
    assert store.read(plugins.find_by_digest, "none") is None


def test_pre_releases_have_the_order_of_semantic_versioning() -> None:
    words = ["alpha", "alpha.1", "alpha.beta", "beta", "beta.2", "beta.11", "rc.1"]
    ordered = [*(f"1.0.0-{word}" for word in words), "1.0.0"]
    assert sorted(set(ordered), key=precedence) == ordered
    assert precedence("1.0.0+build.5") == precedence("1.0.0")


@given(*[st.tuples(*[st.integers(0, 10**6)] * 3)] * 2)
def test_releases_are_ordered_by_their_numbers(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    texts = [".".join(map(str, version)) for version in (one, other)]
    assert (precedence(texts[0]) < precedence(texts[1])) == (one < other)

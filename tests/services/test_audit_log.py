"""The audit log: who did what, by what, from where, and how it ended, for every method that changes something."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from service_rig import (
    DAG,
    METHODS,
    NOT_FOUND,
    PASSWORD,
    PERMISSION_DENIED,
    SECRETS_KEY,
    SERVICES,
    Caller,
    Refused,
    Rig,
    refusal,
    serve,
)

from towline.v1 import access_pb2
from towline_controlplane.blobs import FolderBlobs
from towline_controlplane.errors import Unavailable
from towline_controlplane.loops.retention import Retention
from towline_controlplane.services.access import mutations
from towline_controlplane.store import audit_events, tables

MUTATIONS = {path.removeprefix("/towline.v1."): path for path in mutations(SERVICES)}


def test_what_a_method_does_not_only_read_is_audited() -> None:
    reads = set(METHODS) - set(MUTATIONS) - {name for name in METHODS if name.startswith("AgentService/")}
    assert all(
        name.split("/")[1].startswith(("Get", "List", "Watch", "Tail", "Explain", "Download", "Preview"))
        for name in reads
    )
    assert "AgentService/Enroll" in MUTATIONS


def test_every_mutating_method_leaves_an_event_for_whoever_calls_it(tmp_path: Path) -> None:
    """Whatever it answers: the caller is known, and that it tried."""

    async def scenario(rig: Rig) -> None:
        admin, user = await rig.admin(), await rig.user("ada")
        last = "AuthService/Logout"
        for caller in (user, admin):
            for name in sorted(MUTATIONS, key=last.__eq__):
                method = METHODS[name]
                try:
                    await caller.call(name)
                    code = "OK"
                except Refused as refused:
                    code = refused.code.name
                found = await rig.database.read(
                    lambda tx, method=name: audit_events.list_events(
                        tx, audit_events.AuditFilter(method=method), None, 9
                    )
                )
                event = found[0][0]
                is_public = method.GetOptions().Extensions[access_pb2.access] == access_pb2.PUBLIC  # type: ignore[index]
                assert event.code == code, name
                assert (event.user_id, event.credential) == (("", "NONE") if is_public else (caller.id, "TOKEN")), name
                assert event.address in ("127.0.0.1", "::1")

    serve(tmp_path, scenario)


def test_reading_leaves_none(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        admin = await rig.admin()
        for name in set(METHODS) - set(MUTATIONS):
            if not name.startswith("AgentService/"):
                try:
                    await admin.call(name)
                except Refused:
                    continue
        assert not (await admin.call("AuditService/ListAuditEvents")).events

    serve(tmp_path, scenario)


def test_an_event_says_what_it_was_about(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        admin, user = await rig.admin(), await rig.user("ada")
        workflow = (await user.call("WorkflowService/CreateWorkflow", name="w", dag=DAG)).workflow
        run = (await user.call("RunService/StartRun", workflowId=workflow.id, input={"a": 1})).run
        await user.call("RunService/CancelRun", runId=run.id)
        key = await user.call("AuthService/CreateApiKey", name="k", scopes=["*"])
        machine = Caller(rig.channel, key.key)
        await refusal(machine.call("RunService/DeleteRun", runId="none"))
        await admin.call("UserService/SetUserRole", userId="ada@example.com", role="ADMIN")
        events = [MessageToDict(each) for each in (await admin.call("AuditService/ListAuditEvents")).events][::-1]
        about = [(event["method"], event.get("target", {}), event["code"]) for event in events]
        assert about == [
            ("WorkflowService/CreateWorkflow", {"workflowId": workflow.id}, "OK"),
            ("RunService/StartRun", {"workflowId": workflow.id, "runId": run.id}, "OK"),
            ("RunService/CancelRun", {"runId": run.id}, "OK"),
            ("AuthService/CreateApiKey", {"apiKeyId": key.api_key.id}, "OK"),
            ("RunService/DeleteRun", {"runId": "none"}, "NOT_FOUND"),
            ("UserService/SetUserRole", {"userId": "ada@example.com", "role": "ADMIN"}, "OK"),
        ]
        assert [event["userEmail"] for event in events] == ["ada@example.com"] * 5 + ["admin@example.com"]
        assert [event["credential"] for event in events] == ["TOKEN"] * 4 + ["API_KEY", "TOKEN"]
        assert events[4]["credentialId"] == key.api_key.id
        assert all(event["requestId"] and event["time"] for event in events)

    serve(tmp_path, scenario)


def test_signing_in_is_audited_with_the_account_that_is_tried(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        admin, user = await rig.admin(), await rig.user("ada")
        login = {"email": "ada@example.com", "password": PASSWORD}
        await rig.nobody.call("AuthService/Login", **login)
        await refusal(rig.nobody.call("AuthService/Login", **(login | {"password": "wrong password"})))
        await refusal(rig.nobody.call("AuthService/Login", **(login | {"email": "nobody@example.com"})))
        listed = (await admin.call("AuditService/ListAuditEvents", method="AuthService/Login")).events
        assert [(each.user_id, each.code) for each in listed] == [
            ("", "UNAUTHENTICATED"),
            (user.id, "UNAUTHENTICATED"),
            (user.id, "OK"),
        ]

    serve(tmp_path, scenario)


def test_who_is_not_known_leaves_no_event(tmp_path: Path) -> None:
    """Else anybody could fill the database."""

    async def scenario(rig: Rig) -> None:
        admin = await rig.admin()
        await refusal(rig.nobody.call("RunService/DeleteRun", runId="r"))
        await refusal(Caller(rig.channel, "nonsense").call("RunService/DeleteRun", runId="r"))
        assert not (await admin.call("AuditService/ListAuditEvents")).events

    serve(tmp_path, scenario)


def test_no_secret_comes_into_the_log(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        await user.plant("NAME", "a secret value")
        await user.call("AuthService/ChangePassword", currentPassword=PASSWORD, newPassword="another horse")
        rows = await rig.database.read(lambda tx: tx.connection.execute(tables.audit_events.select()).all())
        assert len(rows) == 2
        for secret in ("a secret value", PASSWORD, "another horse", user.credential, SECRETS_KEY):
            assert secret not in str(rows)

    serve(tmp_path, scenario)


def test_only_admins_read_it(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        assert (await refusal(user.call("AuditService/ListAuditEvents"))).code == PERMISSION_DENIED

    serve(tmp_path, scenario)


def test_it_is_listed_page_by_page_by_user_method_and_time(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        admin, ada, eve = await rig.admin(), await rig.user("ada"), await rig.user("eve")
        for caller in (ada, eve, ada, eve, ada):
            await refusal(caller.call("RunService/PauseRun", runId="r"))
            await refusal(caller.call("RunService/CancelRun", runId="r"))

        async def listed(**wanted: Any) -> list[Any]:
            events, token = [], ""
            while True:
                page = await admin.call("AuditService/ListAuditEvents", pageSize=3, pageToken=token, **wanted)
                events += page.events
                token = page.next_page_token
                if not token:
                    return events

        everything = await listed()
        assert len(everything) == len({event.id for event in everything}) == 10
        assert [event.time.ToMicroseconds() for event in everything] == sorted(
            (event.time.ToMicroseconds() for event in everything), reverse=True
        )
        assert len(await listed(userId="ada@example.com")) == len(await listed(userId=ada.id)) == 6
        assert len(await listed(userId=ada.id, method="RunService/PauseRun")) == 3
        assert not await listed(userId="nobody@example.com")
        middle = everything[5].time.ToJsonString()
        later, earlier = await listed(startTime=middle), await listed(endTime=middle)
        assert later + earlier == everything
        assert earlier
        first = await admin.call("AuditService/ListAuditEvents", pageSize=3)
        other = admin.call("AuditService/ListAuditEvents", pageSize=3, pageToken=first.next_page_token, userId="x")
        assert list((await refusal(other)).violations) == ["pageToken"]

    serve(tmp_path, scenario)


def test_an_event_is_stored_before_its_call_is_answered(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")

        async def pause() -> bool:
            refused = await refusal(user.call("RunService/PauseRun", runId="r"))
            assert refused.code == NOT_FOUND
            found = await rig.database.read(
                lambda tx: [
                    event.request_id for event, _ in audit_events.list_events(tx, audit_events.AuditFilter(), None, 99)
                ]
            )
            return refused.info.metadata["requestId"] in found

        assert all(await asyncio.gather(*[pause() for _ in range(30)]))

    serve(tmp_path, scenario)


def test_a_call_is_answered_as_it_ended_although_its_event_cannot_be_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise Unavailable("no room")

    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        monkeypatch.setattr(audit_events, "insert_many", fail)
        await user.call("WorkflowService/CreateWorkflow", name="w", dag=DAG)
        assert len((await user.call("WorkflowService/ListWorkflows")).workflows) == 1

    serve(tmp_path, scenario)


def test_events_go_when_they_are_old(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        admin = await rig.admin()
        for _ in range(3):
            await refusal(admin.call("RunService/PauseRun", runId="r"))
        oldest = (await admin.call("AuditService/ListAuditEvents")).events[-1]
        age = tables.audit_events.update().where(tables.audit_events.c.id == oldest.id).values(time=1)
        await rig.database.write(lambda tx: tx.connection.execute(age))
        for days, deleted in ((0.0, 0), (365.0, 1), (365.0, 0)):
            retention = Retention(rig.database, FolderBlobs(rig.folder / "blobs"), 30, 24, audit_days=days)
            assert (await retention.tick())["audit_events"] == deleted
        assert len((await admin.call("AuditService/ListAuditEvents")).events) == 2

    serve(tmp_path, scenario)

"""Secrets over the public API: who sees what of them, and that nobody sees a value."""

from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToDict
from service_rig import INVALID_ARGUMENT, METHODS, NOT_FOUND, PERMISSION_DENIED, Caller, Rig, refusal, serve
from sqlalchemy import select, update
from test_plugins import FILES, MANIFEST, bundle, push

from towline.v1.secret_service_pb2 import RotateSecretsRequest
from towline_controlplane.handouts import StepOffer
from towline_controlplane.keyring import Keyring, new_key
from towline_controlplane.services.secret_handout import SecretHandout, SecretUnavailable
from towline_controlplane.services.secrets import SecretService
from towline_controlplane.store import tables
from towline_controlplane.vault import MAX_SECRETS

NO_CONTEXT: Any = None
VALUE = "planted-value-of-ours"
PLUGIN = {**FILES, "plugin.toml": MANIFEST.replace("[limits]", "[permissions]\nsecrets = ['TOKEN']\n[limits]")}
SHELL = {"id": "a", "type": "SHELL", "config": {"command": "true"}, "secrets": ["TOKEN"]}


async def planted(user: Caller, *plugins: str) -> Any:
    return await user.plant("TOKEN", VALUE, *plugins)


async def workflow(user: Caller, *nodes: dict[str, Any]) -> Any:
    return (await user.call("WorkflowService/CreateWorkflow", name="w", dag={"nodes": nodes})).workflow


async def offered(rig: Rig, user: Caller, *nodes: dict[str, Any]) -> StepOffer:
    made = await workflow(user, *nodes)
    await user.call("RunService/StartRun", workflowId=made.id)
    [offer] = await (await rig.agent()).pull()
    return offer


def test_a_secret_is_described_and_never_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        made = await planted(user)
        assert (made.name, made.owner_id, made.version, list(made.plugins)) == ("TOKEN", user.id, 1, [])
        changed = (await user.call("SecretService/PutSecret", name="TOKEN", value="another value")).secret
        assert (changed.id, changed.version) == (made.id, 2)
        assert changed.create_time == made.create_time
        listed = await user.call("SecretService/ListSecrets")
        assert list(listed.secrets) == [changed]
        for name in ("TOKEN", made.id):
            assert (await user.call("SecretService/GetSecret", secretId=name)).secret == changed
        await user.call("SecretService/DeleteSecret", secretId="TOKEN")
        assert (await refusal(user.call("SecretService/GetSecret", secretId="TOKEN"))).code == NOT_FOUND
        assert VALUE not in str(MessageToDict(listed))

    serve(tmp_path, scenario)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and VALUE.encode() in path.read_bytes()]
    printed = capfd.readouterr()
    assert "PutSecret" in printed.out + printed.err
    assert VALUE not in printed.out + printed.err


def test_no_answer_has_a_field_for_a_value() -> None:
    answers = [METHODS[name].output_type for name in METHODS if name.startswith("SecretService/")]
    secret = METHODS["SecretService/GetSecret"].output_type.fields_by_name["secret"].message_type
    assert len(answers) == 8
    assert secret is not None
    assert not any("value" in message.fields_by_name for message in (*answers, secret))


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [
        ("", VALUE, "name"),
        ("lower", VALUE, "name"),
        ("1A", VALUE, "name"),
        ("A" * 129, VALUE, "name"),
        ("A*", VALUE, "name"),
        ("TOKEN", "planted", "value"),
        ("TOKEN", "short  \n\n", "value"),
        ("TOKEN", "planted\0planted", "value"),
        ("TOKEN", "é" * (32 * 1024 + 1), "value"),
    ],
)
def test_bad_names_and_values_are_refused_without_a_word_of_the_value(
    tmp_path: Path, name: str, value: str, field: str
) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        for method in ("CreateSecret", "PutSecret"):
            refused = await refusal(user.call(f"SecretService/{method}", name=name, value=value))
            assert (refused.code, list(refused.violations)) == (INVALID_ARGUMENT, [field])
            assert "planted" not in refused.message

    serve(tmp_path, scenario)


def test_the_largest_value_and_a_taken_name(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        await user.call("SecretService/CreateSecret", name="A" * 128, value="x" * 64 * 1024)
        refused = await refusal(user.call("SecretService/CreateSecret", name="A" * 128, value=VALUE))
        assert refused.code == grpc.StatusCode.ALREADY_EXISTS

    serve(tmp_path, scenario)


def test_the_number_of_secrets_is_bounded(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user, other = await rig.user("ada"), await rig.user("eve")
        for number in range(MAX_SECRETS):
            await user.call("SecretService/PutSecret", name=f"S{number:03}", value=VALUE)
        refused = await refusal(user.call("SecretService/PutSecret", name="MORE", value=VALUE))
        assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED")
        await user.call("SecretService/PutSecret", name="S000", value="a new value")
        await other.call("SecretService/PutSecret", name="MORE", value=VALUE)
        first = await user.call("SecretService/ListSecrets", pageSize=499)
        rest = await user.call("SecretService/ListSecrets", pageToken=first.next_page_token)
        assert [secret.name for secret in (*first.secrets, *rest.secrets)] == [f"S{n:03}" for n in range(MAX_SECRETS)]

    serve(tmp_path, scenario)


def test_anothers_secret_is_not_there_and_an_admin_sees_what_is_known_of_it(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        owner, other, admin = await rig.user("ada"), await rig.user("eve"), await rig.admin()
        secret = await planted(owner)
        calls: list[tuple[str, dict[str, str]]] = [
            ("GetSecret", {}),
            ("GrantSecret", {"plugin": "SHELL"}),
            ("RevokeSecret", {"plugin": "SHELL"}),
            ("DeleteSecret", {}),
        ]
        for method, more in calls:
            for known in (secret.id, "TOKEN"):
                foreign = await refusal(other.call(f"SecretService/{method}", secretId=known, **more))
                missing = await refusal(other.call(f"SecretService/{method}", secretId="x" * 9, **more))
                assert foreign.code == NOT_FOUND
                assert foreign.message.replace(known, "?") == missing.message.replace("x" * 9, "?")
        for caller, count in ((owner, 1), (other, 0), (admin, 1)):
            assert len((await caller.call("SecretService/ListSecrets")).secrets) == count
        assert (await admin.call("SecretService/GetSecret", secretId=secret.id)).secret.owner_id == owner.id
        refused = await refusal(admin.call("SecretService/GrantSecret", secretId=secret.id, plugin="SHELL"))
        assert refused.code == PERMISSION_DENIED
        await admin.call("SecretService/DeleteSecret", secretId=secret.id)

    serve(tmp_path, scenario)


def test_grants_are_to_plugins_that_exist_and_take_secrets(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        await planted(user)
        for plugin in ("*", "", "later", "TEXT_TRANSFORM", "DELAY"):
            refused = await refusal(user.call("SecretService/GrantSecret", secretId="TOKEN", plugin=plugin))
            assert (refused.code, list(refused.violations)) == (INVALID_ARGUMENT, ["plugin"]), plugin
        pushed = await push(user, bundle(PLUGIN))
        refused = await refusal(user.call("SecretService/GrantSecret", secretId="TOKEN", plugin=pushed.id))
        assert list(refused.violations) == ["plugin"]
        for plugin in ("hello", "SHELL", "PYTHON", "HTTP_REQUEST", "hello"):
            granted = (await user.call("SecretService/GrantSecret", secretId="TOKEN", plugin=plugin)).secret
        assert list(granted.plugins) == ["HTTP_REQUEST", "PYTHON", "SHELL", "hello"]
        await user.call("SecretService/RevokeSecret", secretId="TOKEN", plugin="PYTHON")
        refused = await refusal(user.call("SecretService/RevokeSecret", secretId="TOKEN", plugin="PYTHON"))
        assert refused.code == NOT_FOUND
        listed = (await user.call("SecretService/ListSecrets")).secrets[0]
        assert list(listed.plugins) == ["HTTP_REQUEST", "SHELL", "hello"]

    serve(tmp_path, scenario)


def test_without_a_key_every_call_says_what_to_set(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        admin = await rig.admin()
        for name in (name for name in METHODS if name.startswith("SecretService/")):
            refused = await refusal(admin.call(name))
            assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "SECRETS_DISABLED"), name
            assert "TOWLINE_SECRETS_KEY" in refused.message

    serve(tmp_path, scenario, secrets_key="")


@pytest.mark.parametrize(
    ("node", "place", "reason"),
    [
        (SHELL | {"secrets": ["OTHER"]}, "dag.nodes[0].secrets[0]", "there is none of this name"),
        (SHELL, "dag.nodes[0].secrets[0]", "not granted to SHELL: `towline secret grant TOKEN SHELL`"),
        (SHELL | {"secrets": ["lower"]}, "dag.nodes[0].secrets[0]", "capital letters"),
        (SHELL | {"secrets": [f"S{n}" for n in range(33)]}, "dag.nodes[0].secrets", "the limit is 32"),
        ({"id": "a", "type": "DELAY", "config": {"seconds": 0}, "secrets": ["TOKEN"]}, "dag.nodes[0].secrets", "none"),
        ({"id": "a", "type": "hello", "config": {"who": "x"}}, "dag.nodes[0].type", "not granted to hello"),
        ({"id": "a", "type": "hello", "config": {"who": "x"}, "secrets": ["TOKEN"]}, "dag.nodes[0].secrets", "toml"),
        (
            {"id": "a", "type": "HTTP_REQUEST", "config": {"url": "http://x/{{secret:TOKEN}}"}},
            "dag.nodes[0].config",
            "the secret TOKEN, which is not among the node's `secrets`",
        ),
    ],
)
def test_a_workflow_that_cannot_have_its_secrets_is_refused(
    tmp_path: Path, node: dict[str, Any], place: str, reason: str
) -> None:
    async def scenario(rig: Rig) -> None:
        user, other = await rig.user("ada"), await rig.user("eve")
        await push(user, bundle(PLUGIN))
        await planted(user)
        await planted(other, "SHELL", "hello")
        refused = await refusal(workflow(user, node))
        assert (refused.code, refused.reason) == (INVALID_ARGUMENT, "INVALID_DAG")
        assert reason in refused.violations[place]

    serve(tmp_path, scenario)


def test_a_version_made_by_an_admin_uses_the_secrets_of_the_owner(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user, admin = await rig.user("ada"), await rig.admin()
        await planted(admin, "SHELL")
        made = await workflow(user, {k: v for k, v in SHELL.items() if k != "secrets"})
        refused = await refusal(
            admin.call("WorkflowService/CreateWorkflowVersion", workflowId=made.id, dag={"nodes": [SHELL]})
        )
        assert "there is none of this name" in refused.violations["dag.nodes[0].secrets[0]"]

    serve(tmp_path, scenario)


@pytest.mark.parametrize("node", [SHELL, {"id": "a", "type": "hello", "config": {"who": "x"}}])
def test_a_step_is_handed_out_with_what_its_plugin_was_granted(tmp_path: Path, node: dict[str, Any]) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        await push(user, bundle(PLUGIN))
        await planted(user, "SHELL", "hello")
        offer = await offered(rig, user, node)
        handout = SecretHandout(rig.database, rig.keys)
        assert await handout.values(offer) == {"TOKEN": VALUE}
        assert (await user.call("WorkflowService/GetWorkflow", workflowId=offer.run.workflow_id)).workflow.dag.nodes[
            0
        ].secrets == node.get("secrets", [])
        await user.call("SecretService/RevokeSecret", secretId="TOKEN", plugin=node["type"])
        with pytest.raises(SecretUnavailable, match="the secret TOKEN does not exist any more, or is not granted"):
            await handout.values(offer)
        await user.call("SecretService/GrantSecret", secretId="TOKEN", plugin=node["type"])
        with pytest.raises(SecretUnavailable, match="the secret TOKEN cannot be decrypted: it was encrypted with"):
            await SecretHandout(rig.database, Keyring.parse(new_key())).values(offer)
        with pytest.raises(SecretUnavailable, match="TOWLINE_SECRETS_KEY is not set"):
            await SecretHandout(rig.database, None).values(offer)

    serve(tmp_path, scenario)


def test_rows_cannot_be_swapped(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        await planted(user, "SHELL")
        other = (await user.call("SecretService/CreateSecret", name="OTHER", value="another value")).secret
        offer = await offered(rig, user, SHELL)

        def swap(tx: Any) -> None:
            columns = tables.secrets.c
            row = tx.connection.execute(select(columns.nonce, columns.ciphertext).where(columns.id == other.id)).one()
            values = {"nonce": row.nonce, "ciphertext": row.ciphertext}
            tx.connection.execute(update(tables.secrets).where(columns.name == "TOKEN").values(values))

        await rig.database.write(swap)
        with pytest.raises(SecretUnavailable, match="TOKEN cannot be decrypted: what is stored was changed"):
            await SecretHandout(rig.database, rig.keys).values(offer)

    serve(tmp_path, scenario)


def test_an_output_cannot_ask_for_a_secret(tmp_path: Path) -> None:
    node = {
        "id": "a",
        "type": "HTTP_REQUEST",
        "config": {"url": "http://x/", "headers": {"k": "{{secret:TOKEN}}"}, "body": "${{ input.text }}"},
        "secrets": ["TOKEN"],
    }

    async def scenario(rig: Rig) -> None:
        user, agent = await rig.user("ada"), await rig.agent()
        await planted(user, "HTTP_REQUEST")
        made = await workflow(user, node)
        handout = SecretHandout(rig.database, rig.keys)
        for text, refused in (("harmless", False), ("{{secret:TOKEN}}", True)):
            await user.call("RunService/StartRun", workflowId=made.id, input={"text": text})
            [offer] = await agent.pull()
            assert "{{secret:TOKEN}}" in offer.config
            if refused:
                with pytest.raises(SecretUnavailable, match="may stand outside"):
                    await handout.values(offer)
            else:
                assert await handout.values(offer) == {"TOKEN": VALUE}

    serve(tmp_path, scenario)


def test_rotation_encrypts_anew_what_it_can_read_and_names_the_rest(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user, new = await rig.user("ada"), new_key()
        await planted(user, "SHELL")
        keys = Keyring.parse(f"{new},{rig.secrets_key}")
        assert keys is not None
        for number in range(150):
            await user.call("SecretService/PutSecret", name=f"S{number}", value=VALUE)
        offer = await offered(rig, user, SHELL)
        await _lose_key(rig, "S7")
        service = SecretService(rig.database, keys)
        answer = await service.RotateSecrets(RotateSecretsRequest(), NO_CONTEXT)
        assert (answer.rotated, [secret.name for secret in answer.unreadable]) == (150, ["S7"])
        assert await SecretHandout(rig.database, Keyring.parse(new)).values(offer) == {"TOKEN": VALUE}
        again = await service.RotateSecrets(RotateSecretsRequest(), NO_CONTEXT)
        assert again.rotated == 0

    serve(tmp_path, scenario)


async def _lose_key(rig: Rig, name: str) -> None:
    await rig.database.write(
        lambda tx: tx.connection.execute(
            update(tables.secrets).where(tables.secrets.c.name == name).values(key_id="lost")
        )
    )

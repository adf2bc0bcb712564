"""Who may call what over REST, walked from the routes: plain calls, uploads, downloads and event streams alike."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from credentials import spoiled_credentials
from gateway_fakes import served
from httpx import AsyncClient, Response
from schedule_calls import create
from service_rig import DAG, Caller, Rig, serve

from towline_controlplane.call_limits import CallLimits, CallRates
from towline_controlplane.rates import LocalMeter
from towline_gateway import contract, routes
from towline_gateway.routes import Binding, Kind

BINDINGS: Final = {
    f"{binding.method.containing_service.name}/{binding.method.name} {binding.verb}": binding
    for binding in routes.derive(contract.services()).bindings
}
CLOSED: Final = {name: each for name, each in BINDINGS.items() if contract.access(each.method) != "PUBLIC"}
OF_ADMINS: Final = {name: each for name, each in CLOSED.items() if contract.access(each.method) == "ADMIN"}
OWNED: Final = ("workflow_id", "run_id", "secret_id", "schedule_id", "api_key_id")
WITH_OWNER: Final = {
    name: each
    for name, each in CLOSED.items()
    if name not in OF_ADMINS and any(f"{{{field}" in each.template.text for field in OWNED)
}


def _path(binding: Binding, ids: Mapping[str, str]) -> str:
    path = binding.template.text
    for name, value in ids.items():
        path = path.replace(f"{{{name}}}", value)
    return path


async def _send(http: AsyncClient, binding: Binding, credential: str, ids: Mapping[str, str]) -> Response:
    headers = {"authorization": f"Bearer {credential}"} if credential else {}
    path = _path(binding, {**dict.fromkeys(binding.template.variables, "none"), **ids})
    if binding.kind is Kind.UPLOAD:
        return await http.request(
            binding.verb, path, content=b"PK", headers=headers | {"content-type": "application/octet-stream"}
        )
    body = {"dag": DAG} if "dag" in binding.method.input_type.fields_by_name else {}
    return await http.request(binding.verb, path, json=body if binding.body else None, headers=headers)


def test_the_routes_are_walked_whole() -> None:
    kinds = {binding.kind for binding in CLOSED.values()}
    assert kinds == set(Kind)
    assert len(CLOSED) >= 55
    assert len(WITH_OWNER) >= 25
    assert {contract.access(each.method) for each in BINDINGS.values()} == {"PUBLIC", "USER", "ADMIN"}


def test_no_route_with_a_caller_is_open(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        spoiled = {"no credential": "", **(await spoiled_credentials(rig))}
        async with served(rig.address) as (_, http):
            for name, binding in CLOSED.items():
                for what, text in spoiled.items():
                    answer = await _send(http, binding, text, {})
                    assert answer.status_code == 401, (name, what, answer.text)
                    assert answer.headers["www-authenticate"] == "Bearer"
                    assert answer.json()["error"]["reason"] == "UNAUTHENTICATED"

    serve(tmp_path, scenario)


def test_routes_of_admins_are_closed_to_users(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        async with served(rig.address) as (_, http):
            for name, binding in OF_ADMINS.items():
                answer = await _send(http, binding, user.credential, {})
                assert (answer.status_code, answer.json()["error"]["reason"]) == (403, "PERMISSION_DENIED"), name

    serve(tmp_path, scenario)


def test_what_is_anothers_is_answered_like_what_is_not(tmp_path: Path) -> None:
    """The bodies differ in nothing but the id and the request."""

    async def scenario(rig: Rig) -> None:
        owner, other = await rig.user("ada"), await rig.user("eve")
        ids = await _things_of(rig, owner)
        unknown = {name: "x" * len(value) for name, value in ids.items()}
        async with served(rig.address) as (_, http):
            for name, binding in WITH_OWNER.items():
                foreign = await _send(http, binding, other.credential, ids)
                missing = await _send(http, binding, other.credential, unknown)
                assert foreign.status_code == missing.status_code == 404, (name, foreign.text, missing.text)
                assert _without_ids(foreign, ids) == _without_ids(missing, unknown), name
            for name, binding in WITH_OWNER.items():
                if binding.verb == "GET" and binding.kind is Kind.UNARY and "node_id" not in binding.template.text:
                    mine = await _send(http, binding, owner.credential, ids)
                    assert mine.status_code == 200, (name, mine.text)

    serve(tmp_path, scenario)


async def _things_of(rig: Rig, owner: Caller) -> dict[str, str]:
    workflow = (await owner.call("WorkflowService/CreateWorkflow", name="w", dag=DAG)).workflow
    run = (await owner.call("RunService/StartRun", workflowId=workflow.id)).run
    secret = await owner.plant("NAME", "a secret value")
    key = (await owner.call("AuthService/CreateApiKey", name="k", scopes=["*"])).api_key
    schedule = await create(owner, workflow.id)
    return {
        "workflow_id": workflow.id,
        "version_id": run.version_id,
        "run_id": run.id,
        "node_id": "a",
        "secret_id": secret.id,
        "schedule_id": schedule.id,
        "api_key_id": key.id,
    }


def _without_ids(answer: Response, ids: Mapping[str, str]) -> Any:
    error = answer.json()["error"]
    message = error["message"]
    for value in ids.values():
        message = message.replace(value, "?") if len(value) > 1 else message
    return {**error, "message": message, "requestId": ""}


def test_a_limit_over_rest_says_when_to_come_back(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        async with served(rig.address) as (_, http):
            binding = BINDINGS["RunService/ListRuns GET"]
            answers = [await _send(http, binding, user.credential, {}) for _ in range(11)]
            assert [answer.status_code for answer in answers] == [200] * 10 + [429]
            assert answers[-1].headers["retry-after"] == "1"
            assert answers[-1].json()["error"]["reason"] == "RATE_LIMITED"

    serve(tmp_path, scenario, limits=CallLimits(CallRates(reads=60), LocalMeter(lambda: 0.0)))

"""Limits of calls, by user, by address and by kind; and wrong passwords, which slow down only who sends them."""

import asyncio
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from service_rig import METHODS, PASSWORD, SERVICES, Caller, Refused, Rig, refusal, serve

from towline_controlplane.call_limits import CallLimits, CallRates, RouteClass, block_of
from towline_controlplane.rates import LocalMeter
from towline_controlplane.services.access import route_classes
from towline_controlplane.store import audit_events

LOOPBACK = {"gateways": [ip_network("127.0.0.0/8"), ip_network("::1")]}


def _limits(**rates: int) -> CallLimits:
    """Limits of which nothing comes back during a test."""
    return CallLimits(CallRates(**rates), LocalMeter(lambda: 0.0))


def _from(caller: Caller, address: str) -> list[tuple[str, str]]:
    bearer = [("authorization", f"Bearer {caller.credential}")] if caller.credential else []
    return [*bearer, ("x-client-address", address)]


async def _code(caller: Caller, name: str, address: str, **fields: Any) -> grpc.StatusCode:
    try:
        await caller.call(name, metadata=_from(caller, address), **fields)
    except Refused as refused:
        return refused.code
    return grpc.StatusCode.OK


def test_every_method_but_those_of_agents_counts_as_something() -> None:
    classes = {path.removeprefix("/towline.v1."): kind for path, kind in route_classes(SERVICES).items()}
    assert set(METHODS) - set(classes) == {
        name for name in METHODS if name.startswith("AgentService/") and name != "AgentService/Enroll"
    }
    sign_ins = {name for name, kind in classes.items() if kind is RouteClass.SIGN_IN}
    assert sign_ins == {"AuthService/Register", "AuthService/Login", "AuthService/RefreshToken"}
    assert classes["RunService/StartRun"] is RouteClass.WRITE
    assert classes["RunService/WatchRun"] is RouteClass.READ


def test_a_user_who_calls_too_often_is_told_when_to_come_back(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        ada, eve = await rig.user("ada"), await rig.user("eve")
        for _ in range(10):
            await ada.call("RunService/ListRuns")
        refused = await refusal(ada.call("RunService/ListRuns"))
        assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
        retry = error_details_pb2.RetryInfo()
        assert any(detail.Unpack(retry) for detail in refused.status.details)
        assert retry.retry_delay.ToMicroseconds() == 1_000_000
        await eve.call("RunService/ListRuns")
        assert (await refusal(ada.call("RunService/PauseRun", runId="r"))).reason == "NOT_FOUND"
        stream = ada.call("RunService/WatchRun", runId="r")
        assert (await refusal(stream)).reason == "RATE_LIMITED"

    serve(tmp_path, scenario, limits=_limits(reads=60))


def test_all_credentials_of_a_user_share_its_rate(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        key = Caller(rig.channel, (await user.call("AuthService/CreateApiKey", name="k", scopes=["*"])).key)
        for _ in range(5):
            await user.call("RunService/ListRuns")
            await key.call("RunService/ListRuns")
        assert (await refusal(key.call("RunService/ListRuns"))).reason == "RATE_LIMITED"

    serve(tmp_path, scenario, limits=_limits(reads=60))


def test_an_address_has_the_rate_of_several_users_and_garbage_counts(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        nobody = Caller(rig.channel, "nonsense")
        codes = [await _code(nobody, "RunService/ListRuns", "192.0.2.1") for _ in range(41)]
        assert codes == [grpc.StatusCode.UNAUTHENTICATED] * 40 + [grpc.StatusCode.RESOURCE_EXHAUSTED]
        assert await _code(nobody, "RunService/ListRuns", "192.0.2.2") == grpc.StatusCode.UNAUTHENTICATED

    serve(tmp_path, scenario, limits=_limits(reads=60), **LOOPBACK)


def test_agents_are_not_limited(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        agent = (await rig.agent()).caller
        for _ in range(30):
            assert (await refusal(agent.call("AgentService/Pull"))).code == grpc.StatusCode.INTERNAL

    serve(tmp_path, scenario, limits=_limits(reads=1, writes=1, sign_ins=1))


def test_signing_in_has_a_stricter_rate_by_address(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.user("ada")
        emails = [f"u{number}@example.com" for number in range(13)]
        login = {"password": "wrong password"}
        codes = [await _code(rig.nobody, "AuthService/Login", "192.0.2.1", email=email, **login) for email in emails]
        assert codes == [grpc.StatusCode.UNAUTHENTICATED] * 12 + [grpc.StatusCode.RESOURCE_EXHAUSTED]
        right = {"email": "ada@example.com", "password": PASSWORD}
        assert await _code(rig.nobody, "AuthService/Login", "192.0.2.2", **right) == grpc.StatusCode.OK

    serve(tmp_path, scenario, limits=_limits(sign_ins=12), **LOOPBACK)


@pytest.mark.parametrize("email", ["ada@example.com", "nobody@example.com"])
def test_who_guesses_is_slowed_down_whether_the_account_exists_or_not(tmp_path: Path, email: str) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.user("ada")
        guess = {"email": email, "password": "wrong password"}
        codes = [await _code(rig.nobody, "AuthService/Login", "192.0.2.1", **guess) for _ in range(12)]
        assert codes == [grpc.StatusCode.UNAUTHENTICATED] * 10 + [grpc.StatusCode.RESOURCE_EXHAUSTED] * 2
        events = await rig.database.read(lambda tx: audit_events.list_events(tx, audit_events.AuditFilter(), None, 99))
        assert len(events) == 10

    serve(tmp_path, scenario, limits=_limits(), **LOOPBACK)


def test_the_victim_is_not_locked_out(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.user("ada")
        login = {"email": "Ada@example.com", "password": "wrong password"}
        for number in range(20):
            for _ in range(12):
                await _code(rig.nobody, "AuthService/Login", f"198.51.100.{number}", **login)
        right = login | {"password": PASSWORD}
        assert await _code(rig.nobody, "AuthService/Login", "192.0.2.1", **right) == grpc.StatusCode.OK
        blocked = await _code(rig.nobody, "AuthService/Login", "198.51.100.1", **right)
        assert blocked == grpc.StatusCode.RESOURCE_EXHAUSTED
        other = right | {"email": "eve@example.com"}
        await rig.user("eve")
        assert await _code(rig.nobody, "AuthService/Login", "198.51.100.1", **other) == grpc.StatusCode.OK

    serve(tmp_path, scenario, limits=_limits(), **LOOPBACK)


def test_the_right_password_makes_earlier_mistakes_forgotten(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.user("ada")
        login = {"email": "ada@example.com"}
        for _ in range(3):
            for password, code in [("wrong password", grpc.StatusCode.UNAUTHENTICATED)] * 9 + [
                (PASSWORD, grpc.StatusCode.OK)
            ]:
                assert await _code(rig.nobody, "AuthService/Login", "192.0.2.1", password=password, **login) == code

    serve(tmp_path, scenario, limits=_limits(), **LOOPBACK)


def test_many_guesses_at_once_gain_nothing(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.user("ada")
        guess = {"email": "ada@example.com", "password": "wrong password"}
        codes = await asyncio.gather(*[_code(rig.nobody, "AuthService/Login", "192.0.2.1", **guess) for _ in range(30)])
        assert codes.count(grpc.StatusCode.UNAUTHENTICATED) == 10

    serve(tmp_path, scenario, limits=_limits(), **LOOPBACK)


def test_a_stolen_token_does_not_guess_the_password_either(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        guess = {"currentPassword": "wrong password", "newPassword": "another horse"}
        codes = [await _code(user, "AuthService/ChangePassword", "192.0.2.1", **guess) for _ in range(11)]
        assert codes == [grpc.StatusCode.UNAUTHENTICATED] * 10 + [grpc.StatusCode.RESOURCE_EXHAUSTED]

    serve(tmp_path, scenario, limits=_limits(), **LOOPBACK)


@pytest.mark.parametrize(
    ("address", "block"),
    [("192.0.2.7", "192.0.2.7"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"), ("::1", "::")],
)
def test_a_network_of_ipv6_counts_as_one_address(address: str, block: str) -> None:
    assert block_of(address) == block

"""Pages of other origins: shut out unless they are named, and then let in exactly."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import httpx
import pytest
from gateway_fakes import Client, FakeControlPlane, connect, control_plane, in_loop

from towline_gateway.app import build_app
from towline_gateway.cors import parse_origins

CONSOLE = "https://console.example.com"
PREFLIGHT = {"Origin": CONSOLE, "Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "if-match"}


@asynccontextmanager
async def gateway(origins: str) -> AsyncGenerator[tuple[FakeControlPlane, Client]]:
    async with control_plane() as fake, connect(fake.address) as channel:
        app = build_app(channel, asyncio.Event(), parse_origins(origins))
        async with Client(transport=httpx.ASGITransport(app=app), base_url="http://gateway") as client:
            yield fake, client


def cors_of(answer: httpx.Response) -> list[str]:
    return [name for name in answer.headers if name.startswith("access-control-")]


@in_loop
async def test_nothing_is_allowed_by_default() -> None:
    async with gateway("") as (_, client):
        refused = await client.options("/api/workflows/w1", headers=PREFLIGHT)
        answer = await client.get("/api/runs", headers={"Origin": CONSOLE})
        assert (refused.status_code, answer.status_code) == (405, 200)
        assert cors_of(refused) == cors_of(answer) == []
        assert "origin" not in answer.headers.get("vary", "").lower()


@in_loop
async def test_a_named_origin_may_ask_and_read() -> None:
    async with gateway(f"http://localhost:5173, {CONSOLE}") as (fake, client):
        allowed = await client.options("/api/workflows/w1", headers=PREFLIGHT)
        assert (allowed.status_code, allowed.content) == (204, b"")
        assert allowed.headers["access-control-allow-origin"] == CONSOLE
        assert "PUT" in allowed.headers["access-control-allow-methods"].split(", ")
        assert {"Authorization", "If-Match", "Last-Event-ID"} <= set(
            allowed.headers["access-control-allow-headers"].split(", ")
        )
        assert "access-control-allow-credentials" not in allowed.headers
        assert fake.calls == []
        for path, code in (("/api/runs", 200), ("/api/nothing", 404)):
            answer = await client.get(path, headers={"Origin": CONSOLE})
            assert answer.status_code == code
            assert answer.headers["access-control-allow-origin"] == CONSOLE
            assert "ETag" in answer.headers["access-control-expose-headers"]
            assert "Origin" in answer.headers["vary"]


@pytest.mark.parametrize(
    "origin", ["https://other.example.com", "http://console.example.com", f"{CONSOLE}:8443", f"{CONSOLE}.evil", "null"]
)
@in_loop
async def test_another_origin_is_told_nothing(origin: str) -> None:
    async with gateway(CONSOLE) as (_, client):
        refused = await client.options("/api/runs", headers={**PREFLIGHT, "Origin": origin})
        answer = await client.get("/api/runs", headers={"Origin": origin})
        assert refused.status_code == 405
        assert cors_of(refused) == cors_of(answer) == []
        assert "Origin" in answer.headers["vary"]


@pytest.mark.parametrize(
    "text", ["*", "console.example.com", f"{CONSOLE}/", f"{CONSOLE}/x", "null", "https://A.example", "ftp://a.example"]
)
def test_what_is_no_origin_is_refused_at_start(text: str) -> None:
    with pytest.raises(ValueError, match="is no origin"):
        parse_origins(text)


def test_origins_are_separated_by_commas() -> None:
    assert parse_origins("") == frozenset()
    assert parse_origins(f" {CONSOLE},http://[::1]:80 ,") == {CONSOLE, "http://[::1]:80"}

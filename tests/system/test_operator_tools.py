"""What an operator types works against the real server: buf curl by reflection, and the standard health service."""

import asyncio
import json
import shutil
import subprocess
import sys
from pathlib import Path

from processes import Rest, installed

BUF = shutil.which("buf", path=str(Path(sys.executable).parent)) or "buf"


def buf_curl(*arguments: str) -> str:
    return subprocess.run(
        [BUF, "curl", "--protocol", "grpc", "--http2-prior-knowledge", *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout


def test_reflection_and_health(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with installed(tmp_path) as installation:
            server = f"http://{installation.grpc}"
            methods = await asyncio.to_thread(buf_curl, "--list-methods", server)
            assert "towline.v1.RunService/StartRun" in methods
            assert "towline.v1.AgentService/Pull" in methods
            described = await asyncio.to_thread(buf_curl, "--list-services", server)
            assert "grpc.health.v1.Health" in described
            health = await asyncio.to_thread(buf_curl, "-d", "{}", f"{server}/grpc.health.v1.Health/Check")
            assert json.loads(health) == {"status": "SERVING"}
            rest = Rest(installation.http)
            rest.sign_in()
            bearer = f"authorization: Bearer {rest.token}"
            me = await asyncio.to_thread(buf_curl, "-H", bearer, "-d", "{}", f"{server}/towline.v1.AuthService/GetMe")
            assert json.loads(me)["user"]["email"] == "ada@example.com"

    asyncio.run(scenario())

"""The example clients in other languages: built and run as their README says, all with the same transcript."""

import asyncio
import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import toolchains
from processes import PASSWORD, Rest, installed

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "clients" / "README.md").read_text()
TOOLS = {"go": ["go", "buf"], "java": ["mvn", "java"], "typescript": ["npm", "node", "buf"]}
BUILT = {"dist", "gen", "node_modules", "scenario", "target"}
# Longer than any call takes, shorter than the scenario: clients that cannot follow a GOAWAY fail.
AGES: dict[str, Any] = {"TOWLINE_CONNECTION_AGE_SECONDS": "1", "TOWLINE_CONNECTION_GRACE_SECONDS": "1"}


def commands(language: str) -> list[str]:
    """The commands of the README: to get there, to build, and the last to run."""
    found = re.search(rf"```sh\n(cd clients/{language}\n.*?)```", README, re.DOTALL)
    assert found, f"clients/README.md does not say how to run {language}"
    return found[1].splitlines()


def sources(language: str) -> list[Path]:
    """All that a build depends on, relative to the root."""
    contract = [
        ROOT / "buf.yaml",
        *(path for top in ("protos", "third_party") for path in (ROOT / top).rglob("*.proto")),
    ]
    client = ROOT / "clients" / language
    own = [path for path in client.rglob("*") if path.is_file() and not BUILT & {*path.relative_to(client).parts}]
    return sorted(path.relative_to(ROOT) for path in (*contract, *own))


def build(language: str) -> Path:
    """Returns a copy of the contract and the client in which the client is built."""
    files = sources(language)
    script = "\n".join(commands(language)[:-1])
    content = hashlib.sha256(script.encode())
    for file in files:
        content.update(f"\0{file}\0".encode() + (ROOT / file).read_bytes())

    def make(folder: Path) -> None:
        for file in files:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, folder / file)
        # Java asks the system for the home of its user, who need not have one there.
        home = {"MAVEN_OPTS": f"-Duser.home={Path.home()}"}
        environment = {**os.environ, **home, "PATH": toolchains.search_path()}
        subprocess.run(["bash", "-euc", script], cwd=folder, env=environment, check=True)

    try:
        return toolchains.made_once(f"client-{language}", content.hexdigest()[:16], TOOLS[language], make)
    except toolchains.NoTool as reason:
        if os.environ.get("CI"):
            pytest.fail(str(reason))
        pytest.skip(f"NO TOOL, so nothing is known of this client: {reason}")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("language", TOOLS)
def test_a_client_plays_the_scenario_on_connections_that_age(language: str, tmp_path: Path) -> None:
    built = build(language)
    there, run = commands(language)[0], commands(language)[-1]

    async def scenario() -> None:
        async with installed(tmp_path, **AGES) as installation:
            await asyncio.to_thread(Rest(installation.http).sign_in)
            who = {"TOWLINE_SERVER": installation.grpc, "EMAIL": "ada@example.com", "PASSWORD": PASSWORD}
            played = await asyncio.to_thread(
                subprocess.run,
                ["bash", "-euc", f"{there}\n{run}"],
                cwd=built,
                env={**os.environ, **who},
                capture_output=True,
                text=True,
                timeout=90,
                check=False,
            )
            assert (played.returncode, played.stderr) == (0, "")
            assert played.stdout == (ROOT / "clients" / "transcript.txt").read_text()

    asyncio.run(scenario())


def test_every_client_is_tested() -> None:
    assert {path.name for path in (ROOT / "clients").iterdir() if path.is_dir()} == set(TOOLS)

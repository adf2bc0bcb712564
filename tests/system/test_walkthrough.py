"""The plugin of the README works as pasted; its shell blocks are tested with those of all pages."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path

from processes import Rest, installed

README = Path(__file__).resolve().parents[2] / "README.md"


def block(marker: str, language: str) -> str:
    found = re.search(rf"<!-- {re.escape(marker)} -->\n```{language}\n(.*?)```", README.read_text(), re.DOTALL)
    assert found, f"README has no {language} block after <!-- {marker} -->"
    return found[1]


def test_the_plugin_of_the_readme(tmp_path: Path) -> None:
    plugin = tmp_path / "greet"
    plugin.mkdir()
    (plugin / "plugin.toml").write_text(block("plugin: greet/plugin.toml", "toml"))
    (plugin / "greet.py").write_text(block("plugin: greet/greet.py", "python"))

    async def scenario() -> None:
        async with installed(tmp_path) as installation:
            rest = Rest(installation.http)
            rest.sign_in()
            environment = {
                "TOWLINE_SERVER": installation.grpc,
                "TOWLINE_TOKEN": rest.token,
                "TOWLINE_CONFIG_DIR": str(tmp_path / "config"),
                "PATH": "/usr/bin:/bin",
            }
            pushed = await asyncio.to_thread(
                subprocess.run,
                [sys.executable, "-m", "towline_cli", "plugin", "push", str(plugin)],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert pushed.returncode == 0, pushed.stderr
            dag = {"nodes": [{"id": "hi", "type": "greet", "config": {"name": "Ada"}}]}
            workflow = rest.post("/workflows", {"name": "greet", "dag": dag})
            run = rest.post(f"/workflows/{workflow['id']}/execute", {})
            await asyncio.to_thread(lambda: list(rest.events(run["id"])))
            assert rest.get(f"/runs/{run['id']}")["output"] == {"hi": {"text": "Hello, Ada!"}}
            lines = [data["text"] for name, data in rest.stream(f"/runs/{run['id']}/logs") if name != "end"]
            assert lines == ["greeting Ada"]

    asyncio.run(scenario())

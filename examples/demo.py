"""Runs every example on an installation of its own: `python -m examples.demo [--output json]`.

Starts control plane, gateway and agent on free ports and a temporary folder, does what a new user would do over REST,
shows each run live, compares the results with `expected.json` and stops what it started. Exit 0 if all is as expected.
"""

import argparse
import asyncio
import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from examples import catalog
from examples.file_server import serve
from examples.rest import Api, ApiError
from examples.run_follower import follow
from examples.view import DemoView
from towline_cli.child_settings import Places
from towline_cli.installation import Installation
from towline_sdk.bundle import pack
from towline_sdk.errors import TowlineError

PLAIN_WIDTH = 110
# What the processes may inherit: no setting of another installation.
INHERITED = ("HOME", "LANG", "LC_ALL", "PATH", "TMPDIR", "TZ", "VIRTUAL_ENV")


def main() -> int:
    """Runs the demo and returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", choices=("table", "json"), default="table")
    as_json = parser.parse_args().output == "json"
    view = DemoView(console_for(sys.stderr if as_json else sys.stdout))
    data_dir = Path(tempfile.mkdtemp(prefix="towline-demo-"))
    try:
        results = asyncio.run(demo(data_dir, view))
    except (ApiError, OSError, TowlineError) as error:
        print(f"the demo failed: {error}\nlogs: {data_dir / 'logs'}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        shutil.rmtree(data_dir)
        return 130
    if as_json:
        print(json.dumps(results, indent=2))
    wrong = [f"{result['example']}: {text}" for result in results for text in result["deviations"]]
    if wrong:
        print("\n".join(["not as expected:", *wrong, f"logs: {data_dir / 'logs'}"]), file=sys.stderr)
        return 1
    shutil.rmtree(data_dir)
    return 0


def console_for(stream: TextIO) -> Console:
    """Returns a console as wide as the terminal; what is not a terminal is wide enough for the tables."""
    return Console(file=stream, highlight=False, width=None if stream.isatty() else PLAIN_WIDTH)


async def demo(data_dir: Path, view: DemoView) -> list[dict[str, Any]]:
    """Returns the result of each example; everything that was started has stopped by then."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with serve(catalog.ROOT / "log-analysis") as file_server:
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        inherited["TOWLINE_HTTP_ALLOW"] = file_server
        began = time.monotonic()
        installation = Installation(Places(data_dir, 0, 0), inherited=inherited, report=view.say)
        async with installation as running:
            ready = time.monotonic()
            view.say(f"Towline is up after {ready - began:.1f} s: REST on {running.http}, gRPC on {running.grpc}")
            results = await asyncio.to_thread(run_all, Api(running.http), file_server, view)
            view.say(f"{len(results)} runs, from sign-up to the last result, in {time.monotonic() - ready:.1f} s")
    return results


def run_all(visitor: Api, file_server: str, view: DemoView) -> list[dict[str, Any]]:
    """Signs up, signs in and runs the examples one after the other."""
    account = {"email": "demo@example.com", "password": secrets.token_urlsafe(12)}
    visitor.post("/api/auth/register", account | {"name": "Demo"})
    api = Api(visitor.address, visitor.post("/api/auth/login", account)["accessToken"])
    examples = [catalog.load(name) for name in catalog.NAMES]
    return [run_one(api, _aimed_at(example, file_server), view) for example in examples]


def run_one(api: Api, example: catalog.Example, view: DemoView) -> dict[str, Any]:
    """Creates an example's plugins and workflow, runs it, shows it, and returns what came out."""
    view.begin(example.name)
    for folder in example.plugins:
        plugin = api.upload("/api/plugins", pack(folder).data)
        view.say(f"pushed plugin {plugin['name']} {plugin['latestVersion']}")
    workflow = api.post("/api/workflows", example.workflow)
    run = api.post(f"/api/workflows/{workflow['id']}/execute", {"input": example.run_input})
    for happening in follow(api, run["id"]):
        view.happening(happening)
    run = api.get(f"/api/runs/{run['id']}")
    steps = api.get(f"/api/runs/{run['id']}/steps")["steps"]
    view.result(run, steps)
    wrong = catalog.deviations(example.expected, run, steps)
    return {"example": example.name, "run": run, "steps": steps, "deviations": wrong}


def _aimed_at(example: catalog.Example, file_server: str) -> catalog.Example:
    if "url" not in example.run_input:
        return example
    return replace(example, run_input={"url": f"http://{file_server}/access.log"})


if __name__ == "__main__":
    sys.exit(main())

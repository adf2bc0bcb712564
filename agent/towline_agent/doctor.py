"""`towline doctor`: proves how this machine can confine plugins, exactly as its agent would at its start.

Changes nothing and talks to no control plane. Run it as the user, and with the settings, that the agent runs with.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any

from towline_agent import command_line, prctl, settings_file
from towline_agent.cgroups import Hierarchy
from towline_agent.command_line import FOLDER, BadSettings
from towline_agent.files import reachable_folder, remove_tree
from towline_agent.sandbox.levels import Level
from towline_agent.sandbox.probe import Operator, probe
from towline_agent.sandbox.standing import Standing
from towline_agent.sandbox_settings import claim_groups, operator_of, policy_of
from towline_agent.settings import Settings
from towline_agent.supervisor_client import ProcessSupervisor


class ExitCode(IntEnum):
    """How the command ended; as those of the other commands of `towline`."""

    OK = 0
    BELOW = 1
    """The sandbox is weaker than `--require` asks for."""
    INVALID_INPUT = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Probes and prints; returns the exit code."""
    parser = argparse.ArgumentParser("towline doctor", description="Prove how this machine can confine plugins.")
    parser.add_argument(*FOLDER.flags, dest=FOLDER.variable, metavar=FOLDER.metavar, help=FOLDER.help)
    parser.add_argument("--require", choices=[level.name for level in Level], default="L0", help="exit 1 below this")
    parser.add_argument("--output", choices=["table", "json"], default="table")
    given = parser.parse_args(arguments)
    try:
        settings = command_line.settings(command_line.chosen(given, [FOLDER]))
    except (BadSettings, settings_file.BadSettingsFile) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - the command's own words
        return ExitCode.INVALID_INPUT
    standing = _probe(settings)
    document = describe(standing)
    print(json.dumps(document, indent=2) if given.output == "json" else _table(document))  # noqa: T201
    return ExitCode.OK if standing.level >= Level[given.require] else ExitCode.BELOW


def describe(standing: Standing) -> dict[str, Any]:
    """Returns a standing as JSON, by the names of the API."""
    return {
        "level": standing.level.name,
        "features": [str(feature) for feature in standing.features],
        "missing": [{"feature": str(name), "reason": why} for name, why in standing.missing.items()],
        "unproven": [{"feature": str(name), "reason": why} for name, why in standing.unproven.items()],
        "memoryEnforcement": standing.memory_enforcement,
        "networkIsolation": standing.network_isolation,
        "kernel": standing.kernel,
    }


def _probe(settings: Settings) -> Standing:
    groups = claim_groups(settings)
    try:
        return _probe_with(settings, groups)
    finally:
        groups.dissolve()


def _probe_with(settings: Settings, groups: Hierarchy) -> Standing:
    supervisor = ProcessSupervisor.start(policy=policy_of(settings), groups=groups if groups.folders else None)
    prctl.refuse_inspection()
    # Beside the state folder, so that what is in the way of plugins' users is in the way here too.
    state_dir = settings.state_dir.absolute()
    parent = next(path for path in (state_dir, *state_dir.parents) if path.is_dir())
    folder = reachable_folder(Path(tempfile.mkdtemp(prefix="towline-doctor-", dir=parent)))
    try:
        return asyncio.run(_probe_and_close(supervisor, folder, operator_of(settings), groups))
    finally:
        remove_tree(folder)


async def _probe_and_close(
    supervisor: ProcessSupervisor, folder: Path, operator: Operator, groups: Hierarchy
) -> Standing:
    try:
        return await probe(supervisor, folder, operator, groups)
    finally:
        await supervisor.close()


def _table(document: dict[str, Any]) -> str:
    lines = [f"sandbox   {document['level']}   (kernel {document['kernel']})"]
    lines += [f"memory    {document['memoryEnforcement']}", f"network   {document['networkIsolation']}", ""]
    lines += [f"  holds    {name}" for name in document["features"]]
    lines += [f"  missing  {each['feature']}: {each['reason']}" for each in document["missing"]]
    if document["unproven"]:
        lines += ["", "Refused to unconfined processes of this user too, so that it proves nothing:"]
        lines += [f"  {each['feature']}: {each['reason']}" for each in document["unproven"]]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

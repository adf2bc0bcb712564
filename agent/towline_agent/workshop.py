"""Prepares what processes need to run an attempt, and cleans up after them: private folders, environment, input.

Nothing of the agent's own environment is inherited but the search path. JSON goes from the offer to the plugin byte by
byte: it is never parsed or written anew here. Each cleaning makes the folders of a later attempt, so that a step does
not wait for the disk.
"""

import asyncio
import hashlib
import itertools
import json
import os
from dataclasses import dataclass
from pathlib import Path

import structlog

from towline.v1.agent_service_pb2 import Lease, Offer
from towline_agent.artifact_inputs import ArtifactInputs
from towline_agent.demands import demand_of
from towline_agent.execution import DEFAULT_OPEN_FILES, DEFAULT_PROCESSES, Launch
from towline_agent.files import private_folder, reachable_folder, remove_tree
from towline_agent.plugin_files import PluginFiles, PluginShelf
from towline_agent.sandbox.standing import UNPROVED, Standing, choose
from towline_agent.sandbox.users import Users

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


_BUILT_IN = PluginFiles(None)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all attempts are given."""

    http_allow: str = ""
    search_path: str = os.defpath
    standing: Standing = UNPROVED
    """What this host proved to be able to do."""
    uids: range = range(0)
    """The users of attempts, if this agent is root."""


@dataclass(frozen=True, slots=True)
class _Place:
    """The folders of one attempt, and the user that they belong to; None: the agent's own."""

    root: Path
    uid: int | None


class Workshop:
    """The folder of work folders, which belongs to this process alone: what is in it at the start is removed."""

    def __init__(
        self, folder: Path, plugins: PluginShelf, inputs: ArtifactInputs | None, surroundings: Surroundings
    ) -> None:
        self._users = Users(surroundings.uids)
        self._folder = reachable_folder(folder) if surroundings.uids else private_folder(folder)
        self._plugins = plugins
        self._inputs = inputs
        self._surroundings = surroundings
        self._numbers = itertools.count()
        self._ready: list[_Place] = []
        self._taken: dict[str, _Place] = {}
        for leftover in self._folder.iterdir():
            remove_tree(leftover)

    async def prepare(self, offer: Offer, key: str) -> Launch:
        """Makes the folders and provides the plugin's files and the inputs.

        Raises SandboxUnavailable, PluginUnavailable, InputUnavailable or OSError.
        """
        demand = demand_of(offer)
        choose(self._surroundings.standing, demand, None)
        digest = offer.plugin.digest
        files = await self._plugins.take(key, digest) if digest else _BUILT_IN
        place = self._taken[key] = self._ready.pop() if self._ready else self._make()
        root = place.root
        inputs_dir = root / "inputs" if offer.input_artifacts.fetch else None
        if inputs_dir is not None and self._inputs is not None:
            await self._inputs.provide(offer, inputs_dir)
        return Launch(
            key=key,
            entry_point=offer.plugin.entry_point,
            work_dir=root / "work",
            artifacts_dir=root / "artifacts",
            plugin_dir=files.bundle,
            environment=self.variables(offer, root, files),
            stdin=input_document(offer, inputs_dir),
            timeout_seconds=offer.limits.timeout.ToTimedelta().total_seconds(),
            memory_bytes=offer.limits.memory_bytes,
            output_bytes=offer.limits.output_bytes,
            cpu_seconds=offer.limits.cpu_time.ToTimedelta().total_seconds(),
            processes=offer.limits.processes or DEFAULT_PROCESSES,
            open_files=offer.limits.open_files or DEFAULT_OPEN_FILES,
            file_bytes=offer.limits.file_bytes,
            secrets=secrets_document(offer),
            packages_dir=files.packages,
            confinement=choose(self._surroundings.standing, demand, place.uid),
            inputs_dir=inputs_dir,
        )

    async def clean(self, key: str) -> None:
        """Removes the folders of an attempt; what cannot be removed is said, and removed at the next start."""
        self._plugins.give_back(key)
        used = self._taken.pop(key, None)
        if used is None:
            return
        try:
            self._ready.append(await asyncio.to_thread(self._renew, used))
        except OSError as error:
            log.warning("work_folder_left", folder=used.root.name, reason=str(error))

    def _renew(self, used: _Place) -> _Place:
        remove_tree(used.root)
        self._users.give_back(used.uid)
        return self._make()

    def _make(self) -> _Place:
        place = _Place(self._folder / str(next(self._numbers)), self._users.take())
        place.root.mkdir(mode=0o700 if place.uid is None else 0o711)
        for folder in (place.root / "work", place.root / "tmp", place.root / "artifacts"):
            folder.mkdir(mode=0o700)
            if place.uid is not None:
                os.chown(folder, place.uid, place.uid)
        return place

    def variables(self, offer: Offer, root: Path, files: PluginFiles) -> dict[str, str]:
        """Returns the whole environment of an attempt whose folders lie in `root`."""
        environment = {
            "PATH": self._surroundings.search_path,
            "HOME": str(root / "work"),
            "TMPDIR": str(root / "tmp"),
            "TOWLINE_ARTIFACTS": str(root / "artifacts"),
            "LANG": "C.UTF-8",
            "TOWLINE_RUN_ID": offer.lease.run_id,
            "TOWLINE_NODE_ID": offer.lease.node_id,
            "TOWLINE_ATTEMPT": str(offer.lease.attempt),
            "TOWLINE_EXECUTION_KEY": offer.execution_key,
            "TOWLINE_IDEMPOTENCY_KEY": idempotency_key(offer.lease),
        }
        if self._surroundings.http_allow:
            environment["TOWLINE_HTTP_ALLOW"] = self._surroundings.http_allow
        if offer.input_artifacts.fetch:
            environment["TOWLINE_INPUTS"] = str(root / "inputs")
        if files.bundle is not None:
            environment["TOWLINE_PLUGIN_DIR"] = str(files.bundle)
        if files.packages is not None:
            environment["VIRTUAL_ENV"] = str(files.packages)
            environment["PATH"] = f"{files.packages / 'bin'}:{environment['PATH']}"
        return environment


def idempotency_key(lease: Lease) -> str:
    """The same for all attempts of a step: what a plugin shows to the outside to be served once."""
    return hashlib.sha256(f"{lease.run_id}:{lease.node_id}".encode()).hexdigest()


def secrets_document(offer: Offer) -> bytes:
    """Returns what a plugin reads from the descriptor of its secrets; nothing if it has none."""
    return json.dumps(dict(offer.secrets), ensure_ascii=False).encode() if offer.secrets else b""


def input_document(offer: Offer, inputs_dir: Path | None = None) -> bytes:
    """Returns what a plugin reads from its standard input."""
    context = {
        "runId": offer.lease.run_id,
        "nodeId": offer.lease.node_id,
        "attempt": offer.lease.attempt,
        "executionKey": offer.execution_key,
        "idempotencyKey": idempotency_key(offer.lease),
    }
    return b'{"config":%s,"inputs":%s,"input":%s,"context":%s,"artifacts":%s}' % (
        offer.config_json or b"{}",
        offer.inputs_json or b"{}",
        offer.run_input_json or b"null",
        json.dumps(context).encode(),
        json.dumps(_artifacts(offer, inputs_dir)).encode(),
    )


def _artifacts(offer: Offer, inputs_dir: Path | None) -> dict[str, list[dict[str, object]]]:
    """What the predecessors made, by node; with its path if it is here."""
    listed: dict[str, list[dict[str, object]]] = {}
    for each in offer.input_artifacts.artifacts:
        entry: dict[str, object] = {"name": each.name, "sizeBytes": each.size_bytes, "digest": each.digest}
        if inputs_dir is not None:
            entry["path"] = str(inputs_dir / each.node_id / each.name)
        listed.setdefault(each.node_id, []).append(entry)
    return listed

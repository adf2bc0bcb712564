"""`towline plugin run`: one attempt of a plugin folder on this machine, as an agent would run it. No server is asked.

The folder is packed, unpacked, given its environment and run by the very supervisor of an agent. The log comes as it is
written; the result is the last thing on standard output. Environments are kept in the user's cache folder.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import structlog
from google.protobuf.json_format import MessageToDict

from towline.v1.agent_service_pb2 import AttemptResult, Lease, Offer, PluginRef
from towline.v1.run_pb2 import Evidence, Failure
from towline.v1.sandbox_pb2 import Confinement
from towline.v1.workflow_pb2 import Limits
from towline_agent import command_line, doctor, prctl
from towline_agent.attempt_redaction import AttemptRedaction
from towline_agent.bundles import PluginUnavailable
from towline_agent.certificate import bounded_lines
from towline_agent.clock import SystemClock
from towline_agent.command_line import BadSettings
from towline_agent.demands import demand_of
from towline_agent.execution import OutputStream, Supervisor
from towline_agent.files import lock_folder, private_folder, reachable_folder
from towline_agent.outcomes import Circumstances, decide, not_prepared, sandbox_unavailable, unavailable
from towline_agent.plugin_files import PluginShelf
from towline_agent.sandbox.levels import Level
from towline_agent.sandbox.probe import probe
from towline_agent.sandbox.standing import SandboxUnavailable, Standing
from towline_agent.sandbox_settings import UsersKeptOut, check_reach
from towline_agent.trial_sandbox import TrialSandbox, describe, lacking, prepared
from towline_agent.workshop import Surroundings, Workshop
from towline_sdk.bundle import Bundle, pack
from towline_sdk.errors import InvalidBundleError
from towline_sdk.manifest import Manifest

EXIT_FAILED: Final = 1
EXIT_INVALID: Final = 2
EXIT_TRANSIENT: Final = 75
_CACHE_BYTES: Final = 4 << 30
_DEFAULT_TIMEOUT_MS: Final = 30_000
_DEFAULT_MEMORY_MB: Final = 512
_DEFAULT_OUTPUT_KB: Final = 4 * 1024
_TAIL_BYTES: Final = 16 * 1024
_KEY: Final = "trial"


class InvalidOption(Exception):
    """An option does not say what it must."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What a plugin is tried with; JSON as text."""

    config: str = "{}"
    inputs: str = "{}"
    run_input: str = "null"
    secrets: tuple[tuple[str, str], ...] = ()
    timeout_ms: int = 0
    """0: the plugin's own."""
    sandbox: Level = Level.L0
    """At least, beside what the plugin asks for."""


@dataclass(frozen=True, slots=True)
class _Tried:
    """How it went, and how many processes had to be killed after it."""

    result: AttemptResult
    standing: Standing
    killed: int = 0


class _Shown:
    """The log of a trial: shown as it comes, the end of each stream kept."""

    def __init__(self) -> None:
        self._tails = {OutputStream.STDOUT: bytearray(), OutputStream.STDERR: bytearray()}

    def write(self, stream: OutputStream, data: bytes) -> None:
        """Shows what was written."""
        self._tails[stream][:] = (self._tails[stream] + data)[-_TAIL_BYTES:]
        sys.stderr.buffer.write(data)
        sys.stderr.buffer.flush()

    def note(self, text: str) -> None:
        """Shows a line of the agent's own."""
        sys.stderr.write(f"towline: {text}\n")

    def last_lines(self, stream: OutputStream) -> list[str]:
        """Returns what a result says of a stream."""
        return bounded_lines(self._tails[stream].decode(errors="replace"))


@dataclass(frozen=True, slots=True)
class _Packed:
    """The one bundle that is needed, as the control plane would stream it."""

    bundle: Bundle

    async def fetch_plugin(self, digest: str, offset: int) -> AsyncIterator[bytes]:
        """Streams it."""
        assert digest == self.bundle.digest
        yield self.bundle.data[offset:]


def main(arguments: list[str] | None = None) -> int:
    """Tries a plugin; returns the exit code."""
    chosen = _parser().parse_args(arguments)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("ERROR"))
    try:
        bundle = pack(chosen.folder)
        trial = _trial(chosen, bundle.manifest)
        settings = command_line.settings({})
    except (InvalidBundleError, InvalidOption, BadSettings) as error:
        sys.stderr.write(f"{error}\n")
        for each in getattr(error, "violations", ()):
            sys.stderr.write(f"  {each.field} {each.message}\n")
        return EXIT_INVALID
    # The supervisor forks, gRPC must never see a fork: nothing here imports gRPC.
    from towline_agent.supervisor_client import ProcessSupervisor

    with ExitStack() as stack:
        state_dir = _state_dir(stack)
        sandbox = stack.enter_context(prepared(settings, state_dir))
        supervisor = ProcessSupervisor.start(policy=sandbox.policy, groups=sandbox.groups_in_use)
        prctl.refuse_inspection()
        try:
            tried = asyncio.run(_run(bundle, trial, state_dir, supervisor, sandbox))
        except UsersKeptOut as error:
            sys.stderr.write(f"{error}\n")
            return EXIT_INVALID
    return _tell(tried, as_json=chosen.output == "json")


async def _run(bundle: Bundle, trial: Trial, state_dir: Path, supervisor: Supervisor, sandbox: TrialSandbox) -> _Tried:
    shelf = PluginShelf(state_dir, _Packed(bundle), SystemClock(), _CACHE_BYTES)
    try:
        operator = sandbox.operator
        standing = await probe(supervisor, reachable_folder(state_dir / "canaries"), operator, sandbox.groups)
        check_reach(operator, standing, state_dir)
        sys.stderr.write(describe(standing))
        http_allow, path = os.environ.get("TOWLINE_HTTP_ALLOW", ""), os.environ.get("PATH", os.defpath)
        surroundings = Surroundings(http_allow, path, standing, operator.users)
        workshop = Workshop(state_dir / "work", shelf, None, surroundings)
        tried = await _attempt(_offer(bundle, trial), workshop, supervisor, standing)
        await workshop.clean(_KEY)
        return tried
    finally:
        await shelf.close()
        await supervisor.close()


async def _attempt(offer: Offer, workshop: Workshop, supervisor: Supervisor, standing: Standing) -> _Tried:
    shown = _Shown()
    redaction = AttemptRedaction(dict(offer.secrets), shown)
    try:
        launch = await workshop.prepare(offer, _KEY)
        end = await supervisor.run(launch, redaction.write)
    except PluginUnavailable as error:
        return _Tried(unavailable(error.failure), standing)
    except SandboxUnavailable as error:
        why = lacking(standing, demand_of(offer).level)
        return _Tried(sandbox_unavailable(f"{error}: {why}" if why else str(error)), standing)
    except OSError as error:
        return _Tried(not_prepared(error), standing)
    redaction.finish()
    if end.killed:
        shown.note(f"{len(end.killed)} processes outlived the plugin and were killed")
    around = Circumstances(
        timeout_seconds=launch.timeout_seconds,
        memory_bytes=launch.memory_bytes,
        output_bytes=launch.output_bytes,
        last_output=shown.last_lines(OutputStream.STDOUT),
        last_errors=shown.last_lines(OutputStream.STDERR),
        cpu_seconds=launch.cpu_seconds,
        processes=launch.processes,
    )
    result = decide(offer.lease, end, around)
    redaction.clean(result)
    return _Tried(result, standing, len(end.killed))


def _offer(bundle: Bundle, trial: Trial) -> Offer:
    manifest = bundle.manifest
    return Offer(
        lease=Lease(run_id="local", node_id=manifest.name, attempt=1, epoch=1, token="local"),  # noqa: S106 - of nobody
        execution_key="local",
        plugin=PluginRef(
            name=manifest.name, version=manifest.version, digest=bundle.digest, entry_point=manifest.entry_point
        ),
        config_json=trial.config.encode(),
        inputs_json=trial.inputs.encode(),
        run_input_json=trial.run_input.encode(),
        limits=_limits(manifest, trial.timeout_ms),
        confinement=Confinement(
            min_sandbox=max(Level[manifest.min_sandbox], trial.sandbox).name,
            network=manifest.permissions.network.upper(),
        ),
        secrets=dict(trial.secrets),
    )


def _limits(manifest: Manifest, timeout_ms: int) -> Limits:
    limits = Limits(
        memory_bytes=(manifest.memory_limit_mb or _DEFAULT_MEMORY_MB) << 20,
        output_bytes=min(manifest.output_kb or _DEFAULT_OUTPUT_KB, _DEFAULT_OUTPUT_KB) << 10,
        log_bytes=(manifest.log_kb or 0) << 10,
        processes=manifest.processes or 0,
        open_files=manifest.open_files or 0,
        file_bytes=(manifest.file_mb or 0) << 20,
        artifact_bytes=(manifest.artifact_mb or 0) << 20,
    )
    limits.timeout.FromTimedelta(timedelta(milliseconds=timeout_ms or manifest.timeout_ms or _DEFAULT_TIMEOUT_MS))
    if manifest.cpu_seconds:
        limits.cpu_time.FromTimedelta(timedelta(seconds=manifest.cpu_seconds))
    return limits


def _state_dir(stack: ExitStack) -> Path:
    """The user's cache, or a folder for now if another trial is using it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "towline" / "plugin-run"
    try:
        stack.callback(os.close, lock_folder(private_folder(cache)))
    except OSError:
        return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="towline-plugin-run-")))
    return cache


def _tell(tried: _Tried, *, as_json: bool) -> int:
    result = tried.result
    output: Any = json.loads(result.output_json or b"null")
    succeeded = result.outcome == AttemptResult.SUCCEEDED
    failure = MessageToDict(result.failure)
    if as_json:
        told = {
            "outcome": AttemptResult.Outcome.Name(result.outcome),
            "output": output,
            "failure": None if succeeded else failure,
            "retryAfterMs": result.retry_after.ToMilliseconds(),
            "elapsedMs": result.elapsed.ToMilliseconds(),
            "peakMemoryBytes": result.usage.peak_memory_bytes,
            "killedProcesses": tried.killed,
            "sandbox": doctor.describe(tried.standing),
        }
        sys.stdout.write(f"{json.dumps(told, ensure_ascii=False)}\n")
    elif succeeded:
        sys.stdout.write(f"{json.dumps(output, ensure_ascii=False, indent=2)}\n")
    else:
        name = AttemptResult.Outcome.Name(result.outcome)
        sys.stderr.write(f"{name} {failure['class']} {failure['code']}: {failure['message']}\n")
        if result.failure.cause:
            sys.stderr.write(f"  {result.failure.cause}\n")
    if succeeded:
        return os.EX_OK
    if result.evidence.cause == Evidence.SANDBOX_UNAVAILABLE:  # it may run elsewhere, and not here
        return EXIT_FAILED
    return EXIT_TRANSIENT if getattr(result.failure, "class") == Failure.TRANSIENT else EXIT_FAILED


def _trial(chosen: argparse.Namespace, manifest: Manifest) -> Trial:
    return Trial(
        config=_json("config", chosen.config, dict),
        inputs=_json("inputs", chosen.inputs, dict),
        run_input=_json("input", chosen.input, object),
        secrets=tuple(_secret(name, manifest) for name in chosen.secret),
        timeout_ms=chosen.timeout_ms,
        sandbox=Level[chosen.sandbox],
    )


def _json(option: str, text: str, kind: type) -> str:
    """Returns the JSON text of an option, `@` before the name of a file that holds it."""
    try:
        text = Path(text[1:]).read_text() if text.startswith("@") else text
        value = json.loads(text)
    except (OSError, ValueError) as error:
        raise InvalidOption(f"--{option}: {error}") from None
    if not isinstance(value, kind):
        raise InvalidOption(f"--{option} must be a JSON object")
    return text


def _secret(name: str, manifest: Manifest) -> tuple[str, str]:
    if name not in manifest.permissions.secrets:
        raise InvalidOption(f"--secret {name}: plugin.toml does not list it in permissions.secrets")
    value = os.environ.get(name)
    if value is None:
        raise InvalidOption(f"--secret {name}: there is no such environment variable")
    return name, value


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        "towline plugin run",
        description="Run a plugin once on this machine as an agent would. Its log goes to standard error, its output "
        f"to standard output. Exit codes: 0 it succeeded, {EXIT_FAILED} it failed, {EXIT_TRANSIENT} another try "
        f"may help, {EXIT_INVALID} the folder is no plugin or an option is wrong.",
        allow_abbrev=False,
    )
    made.add_argument("folder", type=Path, help="folder with plugin.toml")
    made.add_argument("--config", default="{}", metavar="JSON|@FILE", help="config of the node")
    made.add_argument("--inputs", default="{}", metavar="JSON|@FILE", help="outputs of the predecessors, by node id")
    made.add_argument("--input", default="null", metavar="JSON|@FILE", help="input of the run")
    made.add_argument(
        "--secret", action="append", default=[], metavar="NAME", help="an environment variable to give it as a secret"
    )
    made.add_argument("--timeout-ms", type=int, default=0, metavar="N", help="default: the plugin's, else 30000")
    made.add_argument(
        "--sandbox", choices=[level.name for level in Level], default="L0", help="at least, beside the plugin's own"
    )
    made.add_argument("--output", choices=("text", "json"), default="text", help="what standard output gets")
    return made


if __name__ == "__main__":
    sys.exit(main())

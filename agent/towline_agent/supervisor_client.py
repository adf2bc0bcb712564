"""Runs attempts as real processes, by way of a supervisor process that does all the forking.

If the supervisor dies, its trees die with it, what ran is reported lost, and the next attempt starts another one.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Self

from towline_agent.attempt_pipes import AttemptPipes
from towline_agent.cgroups import Hierarchy
from towline_agent.control_channel import ControlChannel, Message, MessageTooLargeError, decode_exit, encode_launch
from towline_agent.execution import EndReason, Exit, Launch, OnOutput
from towline_agent.sandbox.levels import SYSTEM_ONLY, Policy
from towline_agent.supervisor_process import SupervisorProcess

BUILTIN_PACKAGES = ("towline_plugins",)

_CLOSE_SECONDS = 10.0


class ProcessSupervisor:
    """The `Supervisor` of a real agent. Started anywhere, it belongs to the event loop of its first `run`."""

    def __init__(
        self, process: SupervisorProcess, packages: Sequence[str], policy: Policy, groups: Hierarchy | None
    ) -> None:
        self._process: SupervisorProcess | None = process
        self._packages = packages
        self._policy = policy
        self._groups = groups
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running: dict[str, asyncio.Future[Exit]] = {}
        self._gone = asyncio.Event()
        self._closed = False

    @classmethod
    def start(
        cls,
        packages: Sequence[str] = BUILTIN_PACKAGES,
        policy: Policy = SYSTEM_ONLY,
        groups: Hierarchy | None = None,
    ) -> Self:
        """Starts the supervisor process, which imports `packages` once for all attempts; blocks until it is ready.

        With `groups` the kernel enforces limits; without, the supervisor does, by looking.

        Raises:
            SupervisorStartError: It ended instead.
        """
        process = SupervisorProcess.spawn(packages, policy)
        process.wait_until_ready()
        return cls(process, packages, policy, groups)

    async def run(self, launch: Launch, on_output: OnOutput) -> Exit:
        """Runs an attempt to its end; if cancelled, kills the tree first."""
        if launch.key in self._running:
            raise ValueError(f"attempt {launch.key} is already running")
        if self._closed:
            return Exit(EndReason.SUPERVISOR_LOST, message="the supervisor is closed")
        try:
            channel = self._listening_channel()
            pipes = AttemptPipes(launch, on_output)
        except OSError as error:
            return Exit(EndReason.SPAWN_FAILED, message=str(error))
        try:
            ended = await self._run_between(channel, launch, pipes)
            await pipes.drain()
            return replace(ended, result=pipes.result.content(), result_truncated=pipes.result.truncated)
        finally:
            pipes.close()

    def stop(self, key: str) -> None:
        """Asks the tree of `key` to end (SIGTERM, grace, SIGKILL); `run` then answers STOPPED.

        Unknown keys are ignored.
        """
        self._push("stop", key)

    def freeze(self, key: str) -> None:
        """Stops the tree of `key` where it is, with the clock of its timeout, until `thaw` or its end."""
        self._push("freeze", key)

    def thaw(self, key: str) -> None:
        """Lets the tree of `key` go on."""
        self._push("thaw", key)

    async def close(self) -> None:
        """Kills what still runs, which `run` answers with STOPPED, and ends the supervisor."""
        self._closed = True
        if self._process is None:
            return
        self._listening_channel().finish()
        try:
            await asyncio.wait_for(self._gone.wait(), _CLOSE_SECONDS)
        except TimeoutError:
            self._process.popen.kill()
            await self._gone.wait()

    async def _run_between(self, channel: ControlChannel, launch: Launch, pipes: AttemptPipes) -> Exit:
        ended = asyncio.get_running_loop().create_future()
        self._running[launch.key] = ended
        try:
            self._send(channel, encode_launch(launch), pipes.plugin_ends)
            await asyncio.wait([ended])
            return ended.result()
        except MessageTooLargeError as error:
            pipes.close_plugin_ends()
            return Exit(EndReason.SPAWN_FAILED, message=f"the environment is too large: {error}")
        except asyncio.CancelledError:
            self._push("kill", launch.key)
            await asyncio.wait([ended])
            raise
        finally:
            del self._running[launch.key]

    def _push(self, verb: str, key: str) -> None:
        if self._process is not None and key in self._running:
            self._send(self._process.channel, {"do": verb, "key": key})

    def _send(self, channel: ControlChannel, message: Message, descriptors: Sequence[int] = ()) -> None:
        channel.send(message, descriptors)
        if channel.blocked:
            asyncio.get_running_loop().add_writer(channel.fileno(), self._flush, channel)

    def _flush(self, channel: ControlChannel) -> None:
        channel.flush()
        if not channel.blocked:
            asyncio.get_running_loop().remove_writer(channel.fileno())

    def _listening_channel(self) -> ControlChannel:
        if self._process is None:
            self._process = SupervisorProcess.spawn(self._packages, self._policy)
            self._loop = None
            self._gone.clear()
        channel = self._process.channel
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(channel.fileno(), self._hear, channel)
            if self._groups is not None:
                self._send(channel, {"do": "limit", "groups": self._groups.encode()})
        return channel

    def _hear(self, channel: ControlChannel) -> None:
        try:
            for message, _ in channel.receive():
                ended = self._running.get(message.get("key", ""))
                if ended is not None and not ended.done():
                    ended.set_result(decode_exit(message))
        except EOFError:
            self._lose()

    def _lose(self) -> None:
        """The supervisor has ended, and so have its shims: they hold its end of the socket as long as they live."""
        process, self._process = self._process, None
        if process is None:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(process.channel.fileno())
        loop.remove_writer(process.channel.fileno())
        process.reap()
        for ended in self._running.values():
            if not ended.done():
                ended.set_result(Exit(EndReason.SUPERVISOR_LOST, message="the supervisor of the processes ended"))
        self._gone.set()

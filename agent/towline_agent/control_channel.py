"""The language of the agent and its supervisor: JSON messages with file descriptors over a SOCK_SEQPACKET socket.

Neither side ever waits for the other: what the socket does not take is queued, and the owner of the event loop calls
`flush` when the socket takes more. Descriptors that were handed over are closed here once they are sent.
"""

import errno
import json
import os
import socket
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from towline_agent.execution import EndReason, Exit, Launch, Sample, Watch
from towline_agent.sandbox.levels import Confinement, Level, Network

LARGEST_MESSAGE_BYTES = 128 * 1024

_MOST_DESCRIPTORS = 8

_BUSY = {errno.EAGAIN, errno.ENOBUFS, errno.ETOOMANYREFS}

Message = dict[str, Any]


class MessageTooLargeError(ValueError):
    """A message does not fit in one packet."""


class ControlChannel:
    """One end of the conversation."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(0)
        self._connection = connection
        self._unsent: deque[tuple[bytes, Sequence[int]]] = deque()

    def fileno(self) -> int:
        """Returns the socket's descriptor, to be polled."""
        return self._connection.fileno()

    @property
    def blocked(self) -> bool:
        """Whether messages wait for the socket to become writable."""
        return bool(self._unsent)

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Sends a message now or queues it, in order. The descriptors belong to the channel unless it raises."""
        packet = json.dumps(message, separators=(",", ":")).encode()
        if len(packet) > LARGEST_MESSAGE_BYTES:
            raise MessageTooLargeError(f"a message of {len(packet)} bytes is larger than {LARGEST_MESSAGE_BYTES}")
        self._unsent.append((packet, descriptors))
        self.flush()

    def flush(self) -> None:
        """Sends what the socket takes; what can no longer be heard is dropped, for `receive` tells of the end."""
        while self._unsent:
            packet, descriptors = self._unsent[0]
            try:
                socket.send_fds(self._connection, [packet], descriptors)
            except (BrokenPipeError, ConnectionResetError):
                pass
            except OSError as error:
                if error.errno in _BUSY:
                    return
                raise
            self._unsent.popleft()
            _close_all(descriptors)

    def receive(self) -> Iterator[tuple[Message, list[int]]]:
        """Yields what has arrived, each message with its descriptors, which the caller owns.

        Raises:
            EOFError: The other side is gone.
        """
        while True:
            try:
                packet, descriptors, _, _ = socket.recv_fds(self._connection, LARGEST_MESSAGE_BYTES, _MOST_DESCRIPTORS)
            except BlockingIOError:
                return
            except ConnectionResetError as error:
                raise EOFError from error
            if not packet:
                raise EOFError
            yield json.loads(packet), descriptors

    def finish(self) -> None:
        """Tells the other side that nothing more will come; it may still be heard."""
        self._connection.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Closes the socket and the descriptors that were never sent."""
        for _, descriptors in self._unsent:
            _close_all(descriptors)
        self._unsent.clear()
        self._connection.close()


def encode_launch(launch: Launch) -> Message:
    """Puts a launch into a message; its stdin, output and secrets travel as descriptors."""
    return {
        "do": "launch",
        "key": launch.key,
        "entryPoint": launch.entry_point,
        "workDir": str(launch.work_dir),
        "artifactsDir": str(launch.artifacts_dir),
        "pluginDir": None if launch.plugin_dir is None else str(launch.plugin_dir),
        "packagesDir": None if launch.packages_dir is None else str(launch.packages_dir),
        "environment": launch.environment,
        "timeoutSeconds": launch.timeout_seconds,
        "memoryBytes": launch.memory_bytes,
        "killGraceSeconds": launch.kill_grace_seconds,
        "cpuSeconds": launch.cpu_seconds,
        "processes": launch.processes,
        "openFiles": launch.open_files,
        "fileBytes": launch.file_bytes,
        "hasSecrets": bool(launch.secrets),
        "confinement": asdict(launch.confinement),
        "inputsDir": None if launch.inputs_dir is None else str(launch.inputs_dir),
    }


def decode_launch(message: Message) -> Launch:
    """Reads what `encode_launch` wrote; of the secrets only whether there are any."""
    return Launch(
        key=message["key"],
        entry_point=message["entryPoint"],
        work_dir=Path(message["workDir"]),
        artifacts_dir=Path(message["artifactsDir"]),
        plugin_dir=None if message["pluginDir"] is None else Path(message["pluginDir"]),
        packages_dir=None if message["packagesDir"] is None else Path(message["packagesDir"]),
        environment=message["environment"],
        stdin=b"",
        timeout_seconds=message["timeoutSeconds"],
        memory_bytes=message["memoryBytes"],
        output_bytes=0,
        kill_grace_seconds=message["killGraceSeconds"],
        cpu_seconds=message["cpuSeconds"],
        processes=message["processes"],
        open_files=message["openFiles"],
        file_bytes=message["fileBytes"],
        secrets=b"{}" if message["hasSecrets"] else b"",
        confinement=_decode_confinement(message["confinement"]),
        inputs_dir=None if message["inputsDir"] is None else Path(message["inputsDir"]),
    )


def _decode_confinement(message: Message) -> Confinement:
    return Confinement(Level(message["level"]), Network(message["network"]), message["uid"])


def encode_exit(key: str, ended: Exit) -> Message:
    """Puts an exit into a message; the result document travels by itself."""
    return {
        "key": key,
        "reason": ended.reason,
        "exitCode": ended.exit_code,
        "signal": ended.signal,
        "peakMemoryBytes": ended.peak_memory_bytes,
        "cpuSeconds": ended.cpu_seconds,
        "elapsedSeconds": ended.elapsed_seconds,
        "message": ended.message,
        "killed": ended.killed,
        "watch": asdict(ended.watch),
    }


def decode_exit(message: Message) -> Exit:
    """Reads what `encode_exit` wrote."""
    return Exit(
        reason=EndReason(message["reason"]),
        exit_code=message["exitCode"],
        signal=message["signal"],
        peak_memory_bytes=message["peakMemoryBytes"],
        cpu_seconds=message["cpuSeconds"],
        elapsed_seconds=message["elapsedSeconds"],
        message=message["message"],
        killed=tuple(message["killed"]),
        watch=_decode_watch(message["watch"]),
    )


def _decode_watch(message: Message) -> Watch:
    facts: Message = {**message, "samples": tuple(Sample(**sample) for sample in message["samples"])}
    return Watch(**facts)


def _close_all(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)

"""The agent's ends of an attempt's descriptors: its input, its output as it comes, its result up to a limit.

Reads are bounded and never wait for the end of a pipe alone: somebody outside the tree may hold it open.
"""

import asyncio
import os
from collections.abc import Callable

from towline_agent.execution import Launch, OnOutput, OutputStream

_READ_BYTES = 64 * 1024
_DRAIN_SECONDS = 2.0


class PipeReader:
    """Feeds what comes out of a pipe to a sink, in the event loop."""

    def __init__(self, descriptor: int, sink: Callable[[bytes], None]) -> None:
        self._descriptor = descriptor
        self._sink = sink
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        os.set_blocking(descriptor, False)
        self._loop.add_reader(descriptor, self.read)

    def read(self) -> None:
        """Passes on what is there, at most one bounded read."""
        if self.ended.done():
            return
        try:
            data = os.read(self._descriptor, _READ_BYTES)
        except BlockingIOError:
            return
        if data:
            self._sink(data)
        else:
            self.close()

    def close(self) -> None:
        """Stops reading."""
        if not self.ended.done():
            self.ended.set_result(None)
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)


class PipeWriter:
    """Writes a document into a pipe as it is read at the other end, and closes it behind the last byte."""

    def __init__(self, descriptor: int, document: bytes) -> None:
        self._descriptor: int | None = descriptor
        self._unwritten = memoryview(document)
        os.set_blocking(descriptor, False)
        asyncio.get_running_loop().add_writer(descriptor, self.write)
        self.write()

    def write(self) -> None:
        """Writes what the pipe takes."""
        if self._descriptor is None:
            return
        try:
            self._unwritten = self._unwritten[os.write(self._descriptor, self._unwritten) :]
        except BlockingIOError:
            return
        except BrokenPipeError:  # nobody will read it
            self.close()
        if not self._unwritten:
            self.close()

    def close(self) -> None:
        """Stops writing."""
        if self._descriptor is not None:
            asyncio.get_running_loop().remove_writer(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None


class ResultDocument:
    """Keeps the first bytes of what is written to it and remembers whether there were more."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept = bytearray()
        self.truncated = False

    def write(self, data: bytes) -> None:
        """Keeps what fits."""
        room = self._limit - len(self._kept)
        self._kept += data[:room]
        self.truncated = self.truncated or len(data) > room

    def content(self) -> bytes:
        """Returns what was kept."""
        return bytes(self._kept)


class AttemptPipes:
    """All descriptors of one attempt.

    `plugin_ends` (stdin, stdout, stderr, result, and if there are any, secrets) are the caller's to pass on.
    """

    def __init__(self, launch: Launch, on_output: OnOutput) -> None:
        self.result = ResultDocument(launch.output_bytes)
        self.plugin_ends = [_input_file(launch.stdin)]
        self._readers: list[PipeReader] = []
        self._secrets: PipeWriter | None = None
        sinks: tuple[Callable[[bytes], None], ...] = (
            lambda data: on_output(OutputStream.STDOUT, data),
            lambda data: on_output(OutputStream.STDERR, data),
            self.result.write,
        )
        try:
            for sink in sinks:
                self._open(sink)
            if launch.secrets:
                self._offer_once(launch.secrets)
        except OSError:
            self.close()
            self.close_plugin_ends()
            raise

    def close_plugin_ends(self) -> None:
        """Closes the ends that were not passed on."""
        for descriptor in self.plugin_ends:
            os.close(descriptor)

    async def drain(self) -> None:
        """Reads what an ended tree has left; if somebody outside still holds a pipe, for a bounded time."""
        for reader in self._readers:
            reader.read()
            reader.read()
        pending = [reader.ended for reader in self._readers if not reader.ended.done()]
        if pending:
            await asyncio.wait(pending, timeout=_DRAIN_SECONDS)

    def close(self) -> None:
        """Closes the agent's ends."""
        for reader in self._readers:
            reader.close()
        if self._secrets is not None:
            self._secrets.close()

    def _offer_once(self, secrets: bytes) -> None:
        """A pipe, for what was read from it cannot be read again by anybody."""
        read_end, write_end = os.pipe()
        self.plugin_ends.append(read_end)
        self._secrets = PipeWriter(write_end, secrets)

    def _open(self, sink: Callable[[bytes], None]) -> None:
        read_end, write_end = os.pipe()
        self.plugin_ends.append(write_end)
        self._readers.append(PipeReader(read_end, sink))


def _input_file(content: bytes) -> int:
    descriptor = os.memfd_create("stdin")
    with os.fdopen(descriptor, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor

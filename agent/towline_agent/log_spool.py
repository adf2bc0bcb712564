"""The log of an attempt on disk: one file, from its first line until the control plane has all of it.

The first line of the file is the lease, so that a log which a dead process left behind can still be sent; what follows
is the log as it is sent, byte by byte. Past its bound the log says so, once, and drops what comes.
"""

import base64
import binascii
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import structlog
from google.protobuf.message import DecodeError

from towline.v1.agent_service_pb2 import Lease, LogEnd
from towline_agent.clock import Clock
from towline_agent.execution import OutputStream
from towline_agent.files import private_folder
from towline_agent.logs import LineSplitter, record

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

_SUFFIX = ".log"
MARKER_ROOM = 128
MAX_TAIL_BYTES = 4096


class LogFile:
    """Bytes of one log by offset; made when the first are appended."""

    def __init__(self, path: Path, lease: Lease) -> None:
        self.lease = lease
        self.size = 0
        self.grew: Callable[[], None] = lambda: None
        """Called after each append."""
        self._hashed = hashlib.sha256()
        self._path = path
        self._header = base64.b64encode(lease.SerializeToString()) + b"\n"
        self._descriptor: int | None = None

    @property
    def key(self) -> str:
        """The key of the attempt's lease."""
        return self._path.stem

    @property
    def digest(self) -> bytes:
        """SHA-256 of all bytes that were appended."""
        return self._hashed.digest()

    def append(self, records: bytes) -> None:
        """Adds whole records; raises OSError if there is no room."""
        if self._descriptor is None:
            flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
            self._descriptor = os.open(self._path, flags, 0o600)
            os.pwrite(self._descriptor, self._header, 0)
        written = os.pwrite(self._descriptor, records, len(self._header) + self.size)
        if written < len(records):
            raise OSError(f"only {written} of {len(records)} bytes fit")
        self.size += written
        self._hashed.update(records)
        self.grew()

    def read(self, offset: int, limit: int) -> bytes:
        """Returns whole records from `offset` on, at most `limit` bytes."""
        if self._descriptor is None or offset >= self.size:
            return b""
        data = os.pread(self._descriptor, min(limit, self.size - offset), len(self._header) + offset)
        return data[: data.rfind(b"\n") + 1]

    def delete(self) -> None:
        """Removes the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        self._path.unlink(missing_ok=True)

    @classmethod
    def reopen(cls, path: Path) -> "LogFile":
        """Returns the log that a dead process left, without a record cut short; raises ValueError if it is none."""
        with path.open("rb") as file:
            header = file.readline(64 * 1024)
            lease = Lease.FromString(base64.b64decode(header, validate=False))
            found = cls(path, lease)
            if header != found._header:
                raise ValueError("the header is not a lease")
            found.size = file.read().rfind(b"\n") + 1
        found._descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        return found


class AttemptLog:
    """Takes the output of one attempt; never fails for want of disk, but says what was dropped."""

    def __init__(self, file: LogFile, cap: int, clock: Clock) -> None:
        self.file = file
        self.dropped_bytes = 0
        self.dropped_lines = 0
        self._cap = cap
        self._clock = clock
        self._full = False
        self._unspooled = False
        """The disk had no room."""
        self._splitters = {
            stream: LineSplitter(stream, clock.micros) for stream in (OutputStream.STDOUT, OutputStream.STDERR)
        }
        self._tails = dict.fromkeys(self._splitters, b"")

    def write(self, stream: OutputStream, data: bytes) -> None:
        """Adds raw output."""
        if stream in self._tails:
            self._tails[stream] = (self._tails[stream] + data[-MAX_TAIL_BYTES:])[-MAX_TAIL_BYTES:]
        if self._full:
            self._drop(data)
        elif stream is OutputStream.SYSTEM:
            self.note(data.decode(errors="replace"))
        else:
            self._append(self._splitters[stream].feed(data))

    def note(self, text: str) -> None:
        """Adds a line of the agent's own."""
        self._append(record(self._clock.micros(), OutputStream.SYSTEM, text.replace("\n", " ").encode()))

    def finish(self) -> None:
        """Adds the unfinished lines; nothing is written afterwards."""
        for splitter in self._splitters.values():
            self._append(splitter.finish())
        if self._unspooled:
            self._tell_of_loss()

    def end(self) -> LogEnd:
        """Returns what the control plane has to know of a log that is finished."""
        return LogEnd(sha256=self.file.digest, dropped_bytes=self.dropped_bytes, dropped_lines=self.dropped_lines)

    def tail(self, stream: OutputStream) -> str:
        """The last bytes of a stream as text; the first line may be cut."""
        return self._tails[stream].decode(errors="replace")

    def _append(self, records: bytes) -> None:
        if not records:
            return
        if self._full:
            self._drop(records)
            return
        room = self._cap - MARKER_ROOM - self.file.size
        kept = records if len(records) <= room else records[: records.rfind(b"\n", 0, max(room, 0)) + 1]
        try:
            if kept:
                self.file.append(kept)
            if len(kept) < len(records):
                self._cut(records[len(kept) :])
        except OSError as error:
            self._full = self._unspooled = True
            self._drop(records)
            log.warning("log_not_spooled", key=self.file.key, reason=str(error))

    def _drop(self, data: bytes) -> None:
        self.dropped_bytes += len(data)
        self.dropped_lines += data.count(b"\n")

    def _tell_of_loss(self) -> None:
        """By now there may be room for a line; if not, the end of the log says how much is missing."""
        marker = f"The agent had no room for the rest: {self.dropped_lines} lines are missing"
        try:
            self.file.append(record(self._clock.micros(), OutputStream.SYSTEM, marker.encode()))
        except OSError as error:
            log.warning("log_loss_not_spooled", key=self.file.key, reason=str(error))

    def _cut(self, dropped: bytes) -> None:
        self._full = True
        self._drop(dropped)
        marker = f"The log reached its limit of {self._cap} bytes; what follows is dropped"
        self.file.append(record(self._clock.micros(), OutputStream.SYSTEM, marker.encode()))


class LogSpool:
    """The folder of logs."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder = private_folder(folder)
        self._clock = clock

    def open(self, key: str, lease: Lease, cap: int) -> AttemptLog:
        """Returns the empty log of a new attempt."""
        return AttemptLog(LogFile(self._folder / f"{key}{_SUFFIX}", lease), cap, self._clock)

    def left_behind(self) -> list[LogFile]:
        """Returns what a dead process did not send; a file that cannot be understood is removed, and said so."""
        found: list[LogFile] = []
        for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
            try:
                found.append(LogFile.reopen(path))
            except (DecodeError, ValueError, binascii.Error):
                log.warning("spooled_log_damaged", file=path.name)
                path.unlink()
        return found

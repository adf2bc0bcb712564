"""Uploads that are not whole yet: a file for each, which grows only at its end, and is resumed where it ends.

A folder per lease bounds what one attempt may have lying here. Of two streams for the same upload the later one goes
on, and the earlier one is told so. What nobody has gone on with for a day is removed.
"""

import asyncio
import hashlib
import os
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from towline_controlplane.errors import Unavailable
from towline_controlplane.model import Lease

_KEPT_SECONDS: Final = 24 * 3600.0


@dataclass(slots=True)
class _Part:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    holder: "Upload | None" = None


@dataclass(eq=False, slots=True)
class Upload:
    """One stream's hold on an upload; `size` is how far it has come."""

    path: Path
    size: int
    _part: _Part

    async def append(self, data: bytes) -> None:
        """Adds bytes at the end; raises Unavailable if another stream has taken over, or there is no room."""
        async with self._part.lock:
            if self._part.holder is not self:
                raise Unavailable("another stream goes on with this upload")
            try:
                await asyncio.to_thread(_append, self.path, data, self.size)
            except OSError as error:
                raise Unavailable(f"the upload cannot be kept: {error.strerror}") from error
            self.size += len(data)

    async def digest(self) -> str:
        """Returns the SHA-256 of all that is there, in hex."""
        return await asyncio.to_thread(_digest, self.path)


class UploadSpool:
    """The folder of the uploads of this control plane."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._parts: dict[Path, _Part] = {}

    async def resume(self, lease: Lease, digest: str) -> Upload:
        """Takes an upload over, at the end of what is there of it."""
        path = self._folder_of(lease) / digest
        part = self._parts.setdefault(path, _Part())
        async with part.lock:
            upload = part.holder = Upload(path, await asyncio.to_thread(_size, path), part)
        return upload

    async def bytes_of(self, lease: Lease, except_for: str) -> int:
        """Returns how many bytes of a lease's other uploads are here."""
        return await asyncio.to_thread(_bytes, self._folder_of(lease), except_for)

    async def remove(self, upload: Upload) -> None:
        """Forgets an upload that is stored, or never will be."""
        self._parts.pop(upload.path, None)
        await asyncio.to_thread(_remove, upload.path)

    async def sweep(self) -> None:
        """Removes what nobody goes on with."""
        self._parts = {path: part for path, part in self._parts.items() if path.exists()}
        await asyncio.to_thread(_sweep, self._folder, time.time() - _KEPT_SECONDS)

    def _folder_of(self, lease: Lease) -> Path:
        name = f"{lease.run_id}:{lease.node_id}:{lease.attempt}:{lease.epoch}"
        return self._folder / hashlib.sha256(name.encode()).hexdigest()[:32]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _append(path: Path, data: bytes, offset: int) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(handle, "wb", buffering=0) as file:
        file.seek(offset)
        file.truncate()
        written = file.write(data)
    if written != len(data):
        raise OSError(0, f"only {written} of {len(data)} bytes fit")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _bytes(folder: Path, except_for: str) -> int:
    try:
        return sum(_size(path) for path in folder.iterdir() if path.name != except_for)
    except FileNotFoundError:
        return 0


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    with suppress(OSError):  # other uploads of the lease are in it, or it never was there
        path.parent.rmdir()


def _sweep(folder: Path, before: float) -> None:
    if not folder.exists():
        return
    for of_lease in folder.iterdir():
        newest = max((path.stat().st_mtime for path in of_lease.iterdir()), default=of_lease.stat().st_mtime)
        if newest < before:
            shutil.rmtree(of_lease, ignore_errors=True)

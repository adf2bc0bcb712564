"""Plugin bundles as they arrive: spooled, hashed, and read only for their `plugin.toml`.

Nothing is ever unpacked here. A bundle that an agent could not unpack safely is refused: every member is a regular
file or a folder with a plain name below the root, and there are not too many bytes of them.
"""

import asyncio
import gzip
import hashlib
import os
import tarfile
import tempfile
import zlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, cast

from towline_controlplane.errors import InvalidArgument, LimitExceeded

MAX_BUNDLE_BYTES: Final = 64 << 20
MAX_UNPACKED_BYTES: Final = 512 << 20
MAX_MEMBERS: Final = 10_000
MAX_MANIFEST_BYTES: Final = 256 * 1024
MANIFEST: Final = "plugin.toml"
_MAX_READ: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class SpooledBundle:
    """A bundle in a temporary file."""

    path: Path
    digest: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class BundleContents:
    """What a bundle holds: the text of its manifest and the names of its files."""

    manifest: bytes
    files: frozenset[str]


@asynccontextmanager
async def spooled(chunks: AsyncIterator[bytes], folder: Path) -> AsyncGenerator[SpooledBundle]:
    """Yields the streamed bytes as a private file of `folder`, removed afterwards; raises LimitExceeded."""
    handle, name = tempfile.mkstemp(dir=folder, prefix="bundle-")
    try:
        with os.fdopen(handle, "wb") as file:
            digest, size = await _write(chunks, file)
        yield SpooledBundle(Path(name), digest, size)
    finally:
        os.unlink(name)


async def _write(chunks: AsyncIterator[bytes], file: IO[bytes]) -> tuple[str, int]:
    hashed, size = hashlib.sha256(), 0
    async for chunk in chunks:
        size += len(chunk)
        if size > MAX_BUNDLE_BYTES:
            raise LimitExceeded(f"the bundle is larger than {MAX_BUNDLE_BYTES >> 20} MiB")
        hashed.update(chunk)
        await asyncio.to_thread(file.write, chunk)
    return hashed.hexdigest(), size


def read_bundle(path: Path) -> BundleContents:
    """Returns what the bundle holds; raises InvalidArgument for one that agents would refuse."""
    try:
        with gzip.open(path) as unpacked:
            return _read_archive(_Forward(cast("IO[bytes]", unpacked)))
    except (OSError, EOFError, zlib.error):
        raise _refused("is not compressed with gzip, or was cut off") from None
    except (tarfile.TarError, ValueError, OverflowError):
        raise _refused("is no tar archive") from None


def _read_archive(source: "_Forward") -> BundleContents:
    manifest: bytes | None = None
    names: set[str] = set()
    files: set[str] = set()
    with tarfile.open(fileobj=cast("IO[bytes]", source), mode="r:") as archive:
        for member in archive:
            name = _plain_name(member)
            if name in names or len(names) >= MAX_MEMBERS:
                raise _refused(f"holds {name} twice" if name in names else f"holds more than {MAX_MEMBERS} files")
            names.add(name)
            if member.isreg():
                files.add(name)
            if name == MANIFEST and member.isreg():
                manifest = _read_manifest(archive, member)
    if manifest is None:
        raise _refused(f"has no {MANIFEST} at its root")
    return BundleContents(manifest, frozenset(files))


def _read_manifest(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if member.size > MAX_MANIFEST_BYTES:
        raise InvalidArgument.of(MANIFEST, f"is larger than {MAX_MANIFEST_BYTES} bytes")
    file = archive.extractfile(member)
    return b"" if file is None else file.read()


def _plain_name(member: tarfile.TarInfo) -> str:
    name = member.name.removeprefix("./").rstrip("/")
    parts = name.split("/")
    if not (member.isreg() or member.isdir()):
        raise _refused(f"holds {name[:100]!a}, which is neither a file nor a folder")
    if member.isdir() and name in ("", "."):
        return "."
    if not name.isprintable() or "\\" in name or any(part in ("", ".", "..") for part in parts):
        raise _refused(f"holds {name[:100]!a}, which is no plain name below its root")
    return name


def _refused(message: str) -> InvalidArgument:
    return InvalidArgument.of("bundle", message)


class _Forward:
    """A file for `tarfile` that goes forward only, in bounded reads, up to a bounded size.

    Headers with negative sizes, sizes beyond memory, and bombs thus end as errors.
    """

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self._position = 0

    def tell(self) -> int:
        """Returns the number of bytes behind it."""
        return self._position

    def seek(self, position: int) -> int:
        """Skips to a later position."""
        if position < self._position:
            raise ValueError("a step backwards in the archive")
        while self._position < position:
            if not self.read(min(position - self._position, _MAX_READ)):
                break
        return self._position

    def read(self, size: int) -> bytes:
        """Returns the next bytes."""
        if not 0 <= size <= _MAX_READ:
            raise ValueError("a header of absurd size in the archive")
        data = self._source.read(size)
        self._position += len(data)
        if self._position > MAX_UNPACKED_BYTES:
            raise _refused(f"unpacks to more than {MAX_UNPACKED_BYTES >> 20} MiB")
        return data

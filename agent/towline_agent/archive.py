"""Unpacks plugin bundles, which are written by strangers: regular files and folders only, inside the target only.

Links, devices, absolute or climbing paths, names that collide, and archives that grow beyond their bounds are refused.
What was unpacked of a refused bundle is never run, and the caller removes it. Files and folders are read-only, and
readable to whichever user a plugin runs as; who may come near them is for the folders above to say.
"""

import gzip
import io
import os
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, cast

MAX_ENTRIES = 10_000
MAX_BYTES = 256 * 1024 * 1024
MAX_RATIO = 100
FREE_BYTES = 8 * 1024 * 1024
"""Below this size the ratio does not matter: small texts compress well."""
MAX_DEPTH = 32
MAX_NAME = 255
_BLOCK = 256 * 1024


class BadBundle(Exception):
    """The bundle is not one that can be unpacked safely; the message names the entry."""


def unpack(bundle: Path, target: Path) -> None:
    """Unpacks a gzip-compressed tar into the new folder `target`, or raises BadBundle."""
    target.mkdir(mode=0o755)
    bound = min(MAX_BYTES, max(FREE_BYTES, bundle.stat().st_size * MAX_RATIO))
    try:
        with gzip.GzipFile(bundle) as unzipped, _open_tar(unzipped, bound) as archive:
            for count, entry in enumerate(archive):
                if count >= MAX_ENTRIES:
                    raise BadBundle(f"more than {MAX_ENTRIES} entries")
                _unpack_entry(archive, entry, target)
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise BadBundle(f"not a gzip-compressed tar: {error}") from error
    for folder, _, _ in os.walk(target):
        Path(folder).chmod(0o555)


def _open_tar(unzipped: gzip.GzipFile, bound: int) -> tarfile.TarFile:
    return tarfile.open(fileobj=cast("IO[bytes]", _Bounded(unzipped, bound)), mode="r|")


class _Bounded(io.RawIOBase):
    """A reader that refuses to yield more than `bound` bytes: the size of everything, headers included."""

    def __init__(self, source: gzip.GzipFile, bound: int) -> None:
        super().__init__()
        self._source = source
        self._left = bound

    def read(self, size: int = -1, /) -> bytes:
        data = self._source.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise BadBundle("unpacks to more than its bounds allow")
        return data


def _unpack_entry(archive: tarfile.TarFile, entry: tarfile.TarInfo, target: Path) -> None:
    path = _inside(target, entry.name)
    try:
        if entry.isdir():
            path.mkdir(mode=0o755, parents=True, exist_ok=True)
        elif entry.isreg() and not entry.issparse():
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            _write(archive, entry, path)
        else:
            raise BadBundle(f"{entry.name!r} is neither a file nor a folder")
    except (FileExistsError, NotADirectoryError) as error:
        raise BadBundle(f"{entry.name!r} is there twice") from error


def _inside(target: Path, name: str) -> Path:
    parts = PurePosixPath(name).parts
    if not name or name.startswith("/") or "\0" in name or "\\" in name or ".." in parts:
        raise BadBundle(f"{name!r} is not a path inside the bundle")
    if len(parts) > MAX_DEPTH or any(len(os.fsencode(part)) > MAX_NAME for part in parts):
        raise BadBundle(f"{name[:80]!r} is too long or too deep")
    return target.joinpath(*parts)


def _write(archive: tarfile.TarFile, entry: tarfile.TarInfo, path: Path) -> None:
    source = archive.extractfile(entry)
    if source is None:
        raise BadBundle(f"{entry.name!r} has no content")
    mode = 0o555 if entry.mode & 0o100 else 0o444
    # O_EXCL: no entry can write through or over what an earlier one made.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with source, os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)  # whatever the umask
        while block := source.read(_BLOCK):
            file.write(block)
        if file.tell() != entry.size:
            raise BadBundle(f"{entry.name!r} is cut short")

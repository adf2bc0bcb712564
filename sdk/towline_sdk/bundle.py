"""Packs a plugin folder into a bundle: the same files give the same bytes, whenever and wherever they are packed.

Refuses what could not run or could not be reproduced: a wrong `plugin.toml`, a missing entry point, links and devices,
more than 64 MiB. Hidden files and Python's caches stay out. `manifest` knows what `plugin.toml` must say.
"""

import gzip
import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from towline_sdk.errors import InvalidBundleError, Violation
from towline_sdk.lock import parse_lock
from towline_sdk.manifest import MANIFEST_NAME, Environment, Manifest, parse_manifest

LARGEST_BUNDLE_BYTES: Final = 64 << 20
CACHE_FOLDER: Final = "__pycache__"
PYTHON_SCHEME: Final = "python:"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A packed plugin; `digest` is the SHA-256 of `data` in hex."""

    manifest: Manifest
    data: bytes
    digest: str


def pack(folder: Path) -> Bundle:
    """Returns the bundle of a plugin folder, or raises `InvalidBundleError` that names each wrong place."""
    try:
        manifest = parse_manifest((folder / MANIFEST_NAME).read_bytes())
        files = sorted(_files(folder), key=lambda file: file.relative_to(folder).as_posix())
        _check_entry_point(folder, manifest.entry_point, files)
        _check_environment(folder, manifest.environment, files)
        data = _compress(_archive(folder, files))
    except OSError as error:
        raise InvalidBundleError(f"cannot read {error.filename or folder}: {error.strerror}") from error
    if len(data) > LARGEST_BUNDLE_BYTES:
        raise InvalidBundleError(f"the bundle has {len(data)} bytes; at most {LARGEST_BUNDLE_BYTES} are accepted")
    return Bundle(manifest, data, hashlib.sha256(data).hexdigest())


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.name.startswith(".") or path.name == CACHE_FOLDER or path.suffix == ".pyc":
            continue
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            yield from _files(path)
        elif stat.S_ISREG(mode):
            yield path
        else:
            raise InvalidBundleError(f"{path} is neither a file nor a folder: a bundle cannot hold it")


def _check_entry_point(folder: Path, entry_point: str, files: Collection[Path]) -> None:
    if entry_point.startswith(PYTHON_SCHEME):
        module = folder.joinpath(*entry_point.split(":")[1].split("."))
        if module.with_suffix(".py") not in files and module / "__init__.py" not in files:
            raise _wrong_entry_point(f"names the module {module.name}, which is not in the bundle")
        return
    program = folder / entry_point
    if program not in files:
        raise _wrong_entry_point(f"names {entry_point}, which is not in the bundle")
    if not os.access(program, os.X_OK):
        raise _wrong_entry_point(f"names {entry_point}, which is not executable: chmod +x {program}")


def _check_environment(folder: Path, environment: Environment | None, files: Collection[Path]) -> None:
    if environment is None:
        return
    if folder / environment.lock not in files:
        raise _wrong("environment.lock", f"names {environment.lock}, which is not in the bundle")
    parse_lock((folder / environment.lock).read_bytes())
    wheels = environment.wheels
    if wheels and not any(file.suffix == ".whl" and folder / wheels in file.parents for file in files):
        raise _wrong("environment.wheels", f"names {wheels}, which holds no wheels")


def _wrong(field: str, message: str) -> InvalidBundleError:
    return InvalidBundleError(f"{MANIFEST_NAME} is not valid", violations=(Violation(field, message),))


def _wrong_entry_point(message: str) -> InvalidBundleError:
    return _wrong("entry_point", message)


def _archive(folder: Path, files: list[Path]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for file in files:
            data = file.read_bytes()
            entry = tarfile.TarInfo(file.relative_to(folder).as_posix())
            entry.size = len(data)
            entry.mode = 0o755 if file.stat().st_mode & stat.S_IXUSR else 0o644
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def _compress(data: bytes) -> bytes:
    buffer = io.BytesIO()
    # Unlike gzip.compress, whose header differs between Python versions.
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=buffer, mtime=0) as file:
        file.write(data)
    return buffer.getvalue()

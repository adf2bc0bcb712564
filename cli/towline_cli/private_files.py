"""Files that only their owner can read, replaced in one step; and the lock that makes a folder one process's own."""

import fcntl
import os
from pathlib import Path
from typing import IO

from towline_sdk.errors import TowlineError


def write_private(file: Path, text: str) -> None:
    """Replaces the file by one with mode 0600; a reader sees the old text or the new one."""
    scratch = file.with_name(f".{file.name}.{os.getpid()}")
    with open(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "w") as stream:
        os.fchmod(stream.fileno(), 0o600)
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    scratch.replace(file)


def lock_folder(folder: Path) -> IO[str]:
    """Returns the lock of the folder, held until it is closed or the process ends; refuses if another holds it."""
    lock = open(folder / "up.lock", "a+")  # noqa: SIM115 - held beyond this function
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        holder = lock.read().strip()
        lock.close()
        raise TowlineError(f"{folder} is in use by process {holder}: stop it, or choose another --data-dir") from None
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock

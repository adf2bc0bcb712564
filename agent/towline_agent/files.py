"""Files of the state folder: durable writes, the lock of its one owner, and the removal of folders that plugins wrote.

Everything written here is for the agent's user alone. Nothing follows a symbolic link.
"""

import fcntl
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Owner:
    """Who a file belongs to."""

    user_id: int
    group_id: int


def write_private(path: Path, data: bytes) -> None:
    """Puts `data` under `path` whole or not at all, readable by the owner only."""
    draft = path.with_name(f".{path.name}.draft")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        # The folder itself is not synced: a name lost with the machine costs a rerun, a torn file would cost more.
        os.fdatasync(descriptor)
    draft.replace(path)


def private_folder(path: Path) -> Path:
    """Returns `path` after making it, and making it the owner's alone."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)
    return path


def hand_over(path: Path, owner: Owner) -> None:
    """Makes a folder with all that is in it `owner`'s alone; a missing one is made. Nothing is followed."""
    private_folder(path)
    # By descriptor: the owner of the folder cannot lead a root that comes by to another one.
    for _, _, files, folder in os.fwalk(path):
        os.chown(folder, owner.user_id, owner.group_id)
        for name in files:
            os.chown(name, owner.user_id, owner.group_id, dir_fd=folder, follow_symlinks=False)


def reachable_folder(path: Path) -> Path:
    """Returns `path` after making it, such that other users may pass through it to what they may use."""
    path.mkdir(mode=0o711, parents=True, exist_ok=True)
    path.chmod(0o711)
    return path


def lock_folder(path: Path) -> int:
    """Makes this process the owner of a folder until it ends; raises BlockingIOError if another one owns it."""
    descriptor = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def remove_tree(path: Path) -> None:
    """Removes a folder whatever modes a plugin left in it; a missing one is fine, other errors are raised."""
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return
    except OSError:
        _open_folders(path)
        shutil.rmtree(path)


def _open_folders(path: Path) -> None:
    waiting = [path]
    while waiting:
        folder = waiting.pop()
        folder.chmod(stat.S_IRWXU)
        with os.scandir(folder) as entries:
            waiting += [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]

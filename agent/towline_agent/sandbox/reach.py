"""Whether the users of attempts can get to what they run.

From L3 on they are shown it wherever it lies; below, they see the folders of the host as those are.
"""

import os
import stat
from collections.abc import Iterable
from pathlib import Path


def barrier(paths: Iterable[str]) -> str | None:
    """Returns the first folder on the way to any of these, or behind its links, that not everybody may pass."""
    for way in (Path(end) for path in paths for end in (os.path.abspath(path), os.path.realpath(path))):
        for folder in (*reversed(way.parents), way):
            if folder.is_dir() and not folder.stat().st_mode & stat.S_IXOTH:
                return str(folder)
    return None


def advice(folder: str) -> str:
    """Says what is wrong with a barrier, and what to do."""
    return (
        f"the users that plugins run as cannot pass {folder}: below L3 they need the interpreter and the "
        "state folder; put both where everybody can pass, as below /opt and /var/lib, or allow L3"
    )

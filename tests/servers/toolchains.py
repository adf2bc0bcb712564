"""What tools of other languages make: built once for each content in the user's cache, and found there from then on."""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

GRPCURL = "1.9.3"
_KEPT = 6
"""Builds of one kind: as many worktrees may test at a time."""


class NoTool(Exception):
    """A tool is not on this machine."""


def made_once(kind: str, version: str, tools: Sequence[str], make: Callable[[Path], None]) -> Path:
    """Returns the folder that `make` has filled, now or earlier; raises NoTool if it needs a tool that is not there."""
    missing = [tool for tool in tools if shutil.which(tool, path=search_path()) is None]
    if missing:
        raise NoTool(f"{kind} needs {', '.join(missing)}")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "towline" / "built"
    cache.mkdir(parents=True, exist_ok=True)
    folder, part = cache / f"{kind}-{version}", cache / f"{kind}-{version}.part"
    with (cache / f"{kind}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            make(part)
            part.rename(folder)
        for old in sorted(cache.glob(f"{kind}-*"), key=lambda path: path.stat().st_mtime)[:-_KEPT]:
            shutil.rmtree(old, ignore_errors=True)
    os.utime(folder)
    return folder


def search_path() -> str:
    """Returns a `PATH` on which the tools of the project's own environment come first."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])


def grpcurl() -> str:
    """Returns the path of grpcurl: the machine's, else one that Go builds from its module."""
    found = shutil.which("grpcurl")
    if found is not None:
        return found

    def install(folder: Path) -> None:
        command = ["go", "install", f"github.com/fullstorydev/grpcurl/cmd/grpcurl@v{GRPCURL}"]
        subprocess.run(command, env={**os.environ, "GOBIN": str(folder)}, check=True)

    return str(made_once("grpcurl", GRPCURL, ["go"], install) / "grpcurl")

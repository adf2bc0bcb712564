"""The release before this one, from the history of the repository, in an environment of its own.

A release renews the baseline of the contract: the last commit that did is the last release. What it needs beside its
own code it borrows from the development environment.
"""

import os
import subprocess
import sys
import venv
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BASELINE = "protos/baseline.binpb"
FOLDERS = ("agent", "controlplane", "gateway", "migrations", "plugins", "protos", "sdk")


@dataclass(frozen=True, slots=True)
class Release:
    """Its code, unpacked, and the interpreter that imports it."""

    commit: str
    python: str


def unpack(folder: Path) -> Release:
    """Makes the last release runnable; skips the test where the history is not at hand."""
    commit = _git("log", "-1", "--format=%H", "--", BASELINE).decode().strip()
    if not commit:
        pytest.skip("the history of the repository does not reach back to the last release")
    archive = _git("archive", commit, *FOLDERS)
    code, home = folder / "code", folder / "environment"
    code.mkdir(parents=True)
    subprocess.run(["tar", "-x", "-C", code], input=archive, check=True)
    subprocess.run([sys.executable, code / "protos" / "generate.py"], check=True)
    venv.create(home, with_pip=False, symlinks=True)
    (site,) = home.glob("lib/python*/site-packages")
    borrowed = str(metadata.distribution("grpcio").locate_file(""))
    paths = [str(code / name) for name in FOLDERS]
    # Ours is not among them: its own path file counts in its own environment only.
    (site / "last_release.pth").write_text("\n".join([*paths, borrowed]) + "\n")
    release = Release(commit, str(home / "bin" / "python"))
    _check(release, code)
    return release


def _check(release: Release, code: Path) -> None:
    where = "import towline_agent, towline.v1 as v1; print(towline_agent.__file__, v1.__path__[0])"
    done = subprocess.run([release.python, "-P", "-c", where], capture_output=True, text=True, check=True, env={})
    assert all(path.startswith(str(code)) for path in done.stdout.split()), done.stdout


def _git(*arguments: str) -> bytes:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    done = subprocess.run(["git", *arguments], cwd=ROOT, env=environment, capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"the history of the repository is not here: {done.stderr.decode()[:200]}")
    return done.stdout

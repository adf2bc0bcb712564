"""An installation of one extra in an environment of its own, made offline from what the development environment has.

The wheel is the one that the project's build makes; what it requires is copied, distribution by distribution, as pip
would have installed it.
"""

import re
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_NAME = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment with a wheel of Towline and nothing else but what it requires."""

    folder: Path
    required: frozenset[str]
    """Names of the distributions that were copied."""

    def program(self, name: str) -> str:
        """Returns the path of a program in it."""
        return str(self.folder / "bin" / name)

    @property
    def megabytes(self) -> float:
        """The size of all that is installed."""
        return sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file()) / 1e6


def make(folder: Path, extra: str) -> Environment:
    """Builds the wheel and installs it with one extra."""
    built = folder / "dist"
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(built)]
    subprocess.run(build, cwd=ROOT, capture_output=True, check=True)
    (wheel,) = built.glob("*.whl")
    home = folder / "environment"
    venv.create(home, with_pip=False, symlinks=True)
    required = frozenset(closure("towline", extra))
    (site,) = home.glob("lib/python*/site-packages")
    for name in required:
        copy(name, site)
    pip = [sys.executable, "-m", "pip", "--python", str(home / "bin/python"), "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--no-index", "--no-compile", str(wheel)], check=True)
    return Environment(home, required)


def closure(distribution: str, extra: str) -> set[str]:
    """Returns the names of all that a distribution requires with the extra, itself left out."""
    found: set[str] = set()
    waiting = [(distribution, extra)]
    while waiting:
        name, wanted = waiting.pop()
        for requirement in metadata.requires(name) or ():
            text, _, marker = requirement.partition(";")
            match = _NAME.match(text)
            if match is None or not applies(marker, wanted):
                continue
            required = match[0].lower().replace("_", "-")
            inner = re.search(r"\[(.+?)\]", text)
            if required == distribution:
                waiting += [(distribution, each) for each in (inner[1].split(",") if inner else ())]
            elif required not in found:
                found.add(required)
                waiting.append((required, inner[1] if inner else ""))
    return found


def applies(marker: str, extra: str) -> bool:
    """Tells whether a requirement with this marker is one of this interpreter with the extra."""
    from packaging.markers import Marker

    return not marker.strip() or Marker(marker).evaluate({"extra": extra})


def copy(name: str, site: Path) -> None:
    """Copies an installed distribution, without the bytecode that running it has left."""
    distribution = metadata.distribution(name)
    for file in distribution.files or ():
        if file.suffix == ".pyc" or ".." in file.parts:
            continue
        target = site / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(str(distribution.locate_file(file)), target)

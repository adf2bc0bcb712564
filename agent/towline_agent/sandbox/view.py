"""What of the host a plugin may read: the system, the interpreter that it runs in, and what the operator adds.

Found out once per supervisor. Nothing that contains the agent's state is shown, and of `/etc` only what programs need:
secrets lie there too.
"""

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from towline_agent.sandbox.levels import Policy

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix/store", "/gnu/store")
_ETC = (
    *("alternatives", "ca-certificates", "ca-certificates.conf", "crypto-policies", "fonts", "gai.conf", "host.conf"),
    *("hosts", "java", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "locale.alias", "localtime", "magic", "mime.types"),
    *("nsswitch.conf", "os-release", "pki", "protocols", "python3", "python3.11", "resolv.conf", "rpc", "services"),
    *("ssl/certs", "ssl/openssl.cnf", "terminfo", "timezone"),
)
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


@dataclass(frozen=True, slots=True)
class View:
    """Absolute paths; none lies below another. `links` are names of the system's that only point to others."""

    readable: tuple[str, ...]
    links: tuple[tuple[str, str], ...]


def view_of(policy: Policy) -> View:
    """Returns what is there to be shown."""
    etc = [f"/etc/{name}" for name in _ETC]
    links = [(path, os.readlink(path)) for path in _SYSTEM if os.path.islink(path)]
    folders = [path for path in _SYSTEM if not os.path.islink(path)]
    shown = [path for path in (*folders, *etc, *interpreter_folders(), *policy.readable) if os.path.exists(path)]
    return View(tuple(_outermost(path for path in shown if not _contains(path, policy.hidden))), tuple(links))


def interpreter_folders() -> list[str]:
    """The folders that this process may still import from, and the interpreter itself for what it executes."""
    paths = [sys.prefix, sys.base_prefix, *sys.path, str(Path(sys.executable).resolve().parent)]
    return [path for path in paths if os.path.isabs(path)]


def _contains(path: str, hidden: str | None) -> bool:
    return hidden is not None and os.path.commonpath((os.path.realpath(path), hidden)) == os.path.realpath(path)


def _outermost(paths: Iterable[str]) -> list[str]:
    found: list[str] = []
    for path in sorted({os.path.normpath(path) for path in paths}):
        if not found or os.path.commonpath((found[-1], path)) != found[-1]:
            found.append(path)
    return found

"""Which server the CLI talks to and in whose name: from the environment, else from the last `towline login`.

Tokens are kept per server in a file that only its owner can read; a token never goes to another server than the one
that issued it.
"""

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from towline_cli.private_files import write_private
from towline_sdk.errors import TowlineError

DEFAULT_SERVER: Final = "127.0.0.1:50051"
FILE_NAME: Final = "sessions.json"


@dataclass(frozen=True, slots=True)
class Session:
    """A server and the token of the user there; the token is empty before the first login."""

    server: str
    token: str


def current_session(environment: Mapping[str, str] = os.environ) -> Session:
    """Returns the session that commands run in."""
    stored = _read(_file(environment))
    server = environment.get("TOWLINE_SERVER") or stored["server"]
    return Session(server, environment.get("TOWLINE_TOKEN") or stored["tokens"].get(server, ""))


def store_session(session: Session, environment: Mapping[str, str] = os.environ) -> None:
    """Makes this session the current one, for this and later processes; all or nothing."""
    file = _file(environment)
    stored = _read(file)
    document = {"server": session.server, "tokens": stored["tokens"] | {session.server: session.token}}
    file.parent.mkdir(parents=True, exist_ok=True, mode=stat.S_IRWXU)
    write_private(file, json.dumps(document, indent=2) + "\n")


def _file(environment: Mapping[str, str]) -> Path:
    folder = environment.get("TOWLINE_CONFIG_DIR") or Path("~/.config/towline").expanduser()
    return Path(folder) / FILE_NAME


def _read(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(file.read_bytes())
        return {"server": str(document["server"]), "tokens": dict(document["tokens"])}
    except FileNotFoundError:
        return {"server": DEFAULT_SERVER, "tokens": {}}
    except (ValueError, KeyError, TypeError) as error:
        raise TowlineError(f"{file} is damaged ({error!r}): remove it and log in again") from None

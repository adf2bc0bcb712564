"""Contexts: the servers that the CLI knows by name, with the authority and the token of each; one is current.

Kept in a file that only its owner can read. A token never goes to another server than that of its context.
"""

import json
import os
import stat
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from towline_cli.private_files import write_private
from towline_sdk import servers
from towline_sdk.errors import InvalidArgumentError, TowlineError

DEFAULT_NAME: Final = "default"
DEFAULT_SERVER: Final = "127.0.0.1:50051"
FILE_NAME: Final = "contexts.json"
_VARIABLES: Final = ("TOWLINE_CONTEXT", "TOWLINE_SERVER", "TOWLINE_TLS_CA")
_ASKED: ContextVar[Mapping[str, str]] = ContextVar("asked", default=MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Context:
    """A server under a name; without a CA file the roots of the system count, without a token nobody is signed in."""

    name: str
    server: str
    ca_file: str = ""
    token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Contexts:
    """All that are known, and the name of the one that commands use unless told otherwise."""

    current: str = DEFAULT_NAME
    known: Mapping[str, Context] = field(default_factory=dict[str, Context])

    def with_context(self, context: Context) -> "Contexts":
        """Returns the same with a context that is new, or replaces the one of its name."""
        return replace(self, known={**self.known, context.name: context})

    def named(self, name: str) -> Context:
        """Returns a context; raises InvalidArgumentError if there is none of the name."""
        if name not in self.known:
            known = f"known are {', '.join(sorted(self.known))}" if self.known else "there is none"
            raise InvalidArgumentError(f"there is no context {name}: {known}; add it with: towline context add")
        return self.known[name]


def ask_for(context: str, server: str, ca_file: str) -> None:
    """Notes what the options of this command say; each beats what the environment says of the same."""
    given = zip(_VARIABLES, (context, server, ca_file), strict=True)
    _ASKED.set({name: value for name, value in given if value})


def selected(environment: Mapping[str, str] = os.environ) -> Context:
    """Returns the context that commands run in."""
    wanted = _with_options(environment)
    stored = read(environment)
    context = _of(stored, wanted.get("TOWLINE_CONTEXT", ""), wanted.get("TOWLINE_SERVER", ""))
    return replace(
        context,
        ca_file=wanted.get("TOWLINE_TLS_CA") or context.ca_file,
        token=wanted.get("TOWLINE_TOKEN") or context.token,
    )


def sign_in(context: Context, token: str, environment: Mapping[str, str] = os.environ) -> None:
    """Keeps the token of a context, which becomes the current one."""
    stored = read(environment).with_context(replace(context, token=token))
    write(replace(stored, current=context.name), environment)


def sign_out(context: Context, environment: Mapping[str, str] = os.environ) -> None:
    """Forgets the token of a context."""
    stored = read(environment)
    if context.name in stored.known:
        write(stored.with_context(replace(stored.known[context.name], token="")), environment)


def read(environment: Mapping[str, str] = os.environ) -> Contexts:
    """Returns what is stored; raises TowlineError if the file is damaged."""
    file = _file(environment)
    try:
        document: dict[str, Any] = json.loads(file.read_bytes())
        known = {str(name): Context(name=str(name), **fields) for name, fields in document["contexts"].items()}
        return Contexts(str(document["current"]), known)
    except FileNotFoundError:
        return Contexts()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TowlineError(f"{file} is damaged ({error!r}): remove it and log in again") from None


def write(contexts: Contexts, environment: Mapping[str, str] = os.environ) -> None:
    """Stores them for later processes; all or nothing."""
    known = {name: {k: v for k, v in asdict(each).items() if k != "name"} for name, each in contexts.known.items()}
    file = _file(environment)
    file.parent.mkdir(parents=True, exist_ok=True, mode=stat.S_IRWXU)
    write_private(file, json.dumps({"current": contexts.current, "contexts": known}, indent=2) + "\n")


def check_server(server: str) -> None:
    """Raises InvalidArgumentError unless this is how servers are written."""
    try:
        servers.checked(server)
    except ValueError as error:
        raise InvalidArgumentError(f"{server}: {error}") from None


def _with_options(environment: Mapping[str, str]) -> Mapping[str, str]:
    asked = _ASKED.get()
    # A server or context that was asked for is meant as a whole: nothing of another one may go there.
    beaten = set[str](_VARIABLES if asked.keys() & {"TOWLINE_CONTEXT", "TOWLINE_SERVER"} else ())
    if "TOWLINE_CONTEXT" in asked:
        beaten.add("TOWLINE_TOKEN")
    return {**{name: value for name, value in environment.items() if name not in beaten}, **asked}


def _of(stored: Contexts, name: str, server: str) -> Context:
    if name:
        return stored.named(name)
    if server:
        check_server(server)
        known = sorted(stored.known.values(), key=lambda each: each.name != stored.current)
        return next((each for each in known if each.server == server), Context(server, server))
    return stored.known.get(stored.current, Context(DEFAULT_NAME, DEFAULT_SERVER))


def _file(environment: Mapping[str, str]) -> Path:
    folder = environment.get("TOWLINE_CONFIG_DIR")
    if folder:
        return Path(folder) / FILE_NAME
    home = environment.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path("~/.config").expanduser()) / "towline" / FILE_NAME

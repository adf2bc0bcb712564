"""Secrets are known by their form: whatever the suite leaves behind in logs and databases is searched for them.

Every credential that Towline makes has a prefix of its own; passwords and keys are those that the tests use everywhere.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PLANTED: Final = (
    b"correct horse",
    b"another horse",
    b"a-secret-of-the-tests-that-is-long-enough",
    b"a secret of the tests, long enough",
)
"""Passwords and signing keys of the tests."""

_FORMS: Final = re.compile(
    rb"|".join(
        [
            rb"eyJ[\w-]{16,}\.eyJ[\w-]{16,}\.[\w-]{32,}",  # access tokens
            rb"\btw[aekl]_[\w-]{43}\b",  # credentials of agents, enrollment tokens, API keys, lease tokens
            rb"\btwr_[\w-]{22}\.[\w-]{43}\b",  # refresh tokens
            *(re.escape(each) for each in PLANTED),
        ]
    )
)
_HASHES: Final = re.compile(rb"\$2[aby]\$\d\d\$[./A-Za-z0-9]{53}")
_SEARCHED: Final = (".log", ".db", ".db-wal", ".jsonl", ".prom")


def secrets_in(data: bytes, *, log: bool) -> set[str]:
    """Returns the beginnings of the secrets in `data`; in a log, hashes of passwords are secrets too."""
    found = {match.group()[:12].decode() for match in _FORMS.finditer(data)}
    return found | ({match.group()[:7].decode() for match in _HASHES.finditer(data)} if log else set())


def search(folder: Path) -> Iterator[str]:
    """Yields where in logs, databases and metrics below a folder a secret was found, and how it begins."""
    for path in sorted(folder.rglob("*")):
        if path.suffix in _SEARCHED and path.is_file():
            for secret in sorted(secrets_in(path.read_bytes(), log=path.suffix not in (".db", ".db-wal"))):
                yield f"{path.relative_to(folder)}: {secret}…"

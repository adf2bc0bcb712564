"""Locks of a plugin's packages: of pip's requirements format only what names a package, its version and its hashes.

Options, files, folders and addresses are refused: where packages come from is for whoever runs the agent to say.
`pip-compile --generate-hashes` and `uv pip compile --generate-hashes` write such files.
"""

import re
from typing import Final

from towline_sdk.errors import InvalidBundleError, Violation

LARGEST_LOCK_BYTES: Final = 1 << 20
_FIELD: Final = "environment.lock"
_REQUIREMENT: Final = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?(?:\[[A-Za-z0-9._, -]*\])?\s*==\s*[A-Za-z0-9.!+_-]+(?:\s*;\s*[^\\@]+?)?"
    r"(?:\s+--hash=(?:sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}))+"
)
_COMMENT: Final = re.compile(r"(^|\s)#.*")


def parse_lock(data: bytes) -> tuple[str, ...]:
    """Returns the requirements of a lock, one line each; raises `InvalidBundleError` that names the first wrong one."""
    if len(data) > LARGEST_LOCK_BYTES:
        raise _wrong(f"is larger than {LARGEST_LOCK_BYTES} bytes")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise _wrong("is not UTF-8") from None
    lines = (_COMMENT.sub("", line).strip() for line in re.sub(r"\\\r?\n", " ", text).splitlines())
    requirements = tuple(" ".join(line.split()) for line in lines if line)
    for requirement in requirements:
        if not _REQUIREMENT.fullmatch(requirement):
            raise _wrong(f"says {requirement[:100]!r}, which is not `name==version --hash=sha256:…`")
    return requirements


def _wrong(message: str) -> InvalidBundleError:
    return InvalidBundleError("the lock is not valid", violations=(Violation(_FIELD, message),))

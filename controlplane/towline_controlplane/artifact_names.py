"""What an artifact may be called, and as what its bytes are handed out. Pure; the agent refuses the same names."""

import unicodedata
from typing import Final

MAX_NAME_BYTES: Final = 512
MAX_PART_BYTES: Final = 255
MAX_DEPTH: Final = 16
OCTETS: Final = "application/octet-stream"

# Nothing that a browser would run: no HTML, SVG, XML or script.
_TYPES: Final = {
    "csv": "text/csv; charset=utf-8",
    "gif": "image/gif",
    "gz": "application/gzip",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "json": "application/json",
    "log": "text/plain; charset=utf-8",
    "md": "text/plain; charset=utf-8",
    "pdf": "application/pdf",
    "png": "image/png",
    "tsv": "text/tab-separated-values; charset=utf-8",
    "txt": "text/plain; charset=utf-8",
    "webp": "image/webp",
    "zip": "application/zip",
}


def problem_of(name: str) -> str:
    """Tells what is wrong with a name; empty if nothing is."""
    parts = name.split("/")
    if any(part in {"", ".", ".."} for part in parts):
        return "must be a relative path without empty parts, `.` and `..`"
    if any(unicodedata.category(character)[0] == "C" or character == "\\" for character in name):
        return "must not have a backslash, or a character that cannot be seen"
    if len(name.encode()) > MAX_NAME_BYTES or any(len(part.encode()) > MAX_PART_BYTES for part in parts):
        return f"at most {MAX_NAME_BYTES} bytes, and {MAX_PART_BYTES} for each part"
    if len(parts) > MAX_DEPTH:
        return f"at most {MAX_DEPTH} parts"
    return "" if unicodedata.is_normalized("NFC", name) else "must be in Unicode's normal form C"


def content_type_of(name: str) -> str:
    """Returns the type that goes with a name; bytes of no type for all that is not known to be harmless."""
    return _TYPES.get(name.rpartition(".")[2].lower(), OCTETS)

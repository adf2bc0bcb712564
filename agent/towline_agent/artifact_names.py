"""What an artifact may be called: a relative path of plain names, safe to show, to store and to download. Pure."""

import unicodedata
from typing import Final

MAX_NAME_BYTES: Final = 512
MAX_PART_BYTES: Final = 255
MAX_DEPTH: Final = 16


def problem_of(name: str) -> str:
    """Tells what is wrong with a name; empty if nothing is. Names of files come with their bad bytes as surrogates."""
    parts = name.split("/")
    try:
        sizes = [len(part.encode()) for part in parts]
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    if any(part in {"", ".", ".."} for part in parts):
        return "its name has an empty part, `.` or `..`"
    if any(unicodedata.category(character)[0] == "C" or character == "\\" for character in name):
        return "its name has a backslash, or a character that cannot be seen"
    if sum(sizes) + len(parts) - 1 > MAX_NAME_BYTES or max(sizes) > MAX_PART_BYTES:
        return f"its name is longer than {MAX_NAME_BYTES} bytes, or has a part of more than {MAX_PART_BYTES}"
    if len(parts) > MAX_DEPTH:
        return f"its folder is more than {MAX_DEPTH} levels deep"
    if not unicodedata.is_normalized("NFC", name):
        return "its name is not in Unicode's normal form C"
    return ""

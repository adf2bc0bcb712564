"""Lists page by page: sizes, opaque tokens, and pages that end early when their rows are large.

A token carries the key of the last row seen and is bound to the query it came from; with another query it is refused.
It grants nothing: every page is filtered by its caller anew.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar, cast

from google.protobuf.message import Message

from towline_controlplane.errors import InvalidArgument

PAGE_BYTES: Final = 2 << 20
_BATCH: Final = 50
_TAG_BYTES: Final = 9
_MAX_TOKEN_LENGTH: Final = 2_000
_compact: Final = json.JSONEncoder(separators=(",", ":")).encode

Key = tuple[int | str, ...]
Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class PageLimits:
    """Rows of a page when the request does not say, and at most."""

    default: int = 50
    maximum: int = 500


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """Rows, and the key to go on behind; None on the last page."""

    rows: list[Row]
    next_key: Key | None


def page_size(requested: int, limits: PageLimits) -> int:
    """Returns the rows wanted: the default for 0, at most the maximum; raises InvalidArgument if negative."""
    if requested < 0:
        raise InvalidArgument.of("pageSize", "must not be negative")
    return min(requested or limits.default, limits.maximum)


def query_of(request: Message) -> tuple[str, str]:
    """Returns what a token of a list is bound to: all that the request says but for the page."""
    query = type(request)()
    query.CopyFrom(request)
    for field in ("page_size", "page_token"):
        query.ClearField(field)
    octets = query.SerializeToString(deterministic=True)
    return request.DESCRIPTOR.full_name, base64.b64encode(octets).decode()


def gather(
    fetch: Callable[[Key | None, int], Sequence[Row]],
    key_of: Callable[[Row], Key],
    after: Key | None,
    size: int,
    weight_of: Callable[[Row], int] = lambda _: 0,
) -> Page[Row]:
    """Returns up to `size` rows from behind `after`, fewer when they weigh more than 2 MiB, but at least one."""
    rows: list[Row] = []
    weight = 0
    while True:
        wanted = min(_BATCH, size + 1 - len(rows))
        batch = fetch(after, wanted)
        for row in batch:
            weight += weight_of(row)
            if len(rows) == size or (rows and weight > PAGE_BYTES):
                return Page(rows, key_of(rows[-1]))
            rows.append(row)
        if len(batch) < wanted:
            return Page(rows, None)
        after = key_of(rows[-1])


def encode_token(key: Key | None, *query: object) -> str:
    """Returns the token that goes on behind `key` in the same query; empty for None."""
    return "" if key is None else token_maker(*query)(key)


def token_maker(*query: object) -> Callable[[Key], str]:
    """Returns what makes the tokens of a query: for many of them."""
    tag = _tag(query)

    def token(key: Key) -> str:
        return base64.urlsafe_b64encode(tag + _compact(key).encode()).decode().rstrip("=")

    return token


def decode_token(token: str, shape: tuple[type, ...], *query: object, field: str = "pageToken") -> Key | None:
    """Returns the key in a token of the same query, None for an empty one; raises InvalidArgument naming `field`."""
    if not token:
        return None
    try:
        key = _key_of(token, query)
    except (ValueError, binascii.Error, RecursionError):
        key = None
    if key is None or tuple(type(part) for part in key) != shape:
        raise InvalidArgument.of(field, "is not one that was given out for this query")
    return key


def _key_of(token: str, query: tuple[object, ...]) -> Key | None:
    if len(token) > _MAX_TOKEN_LENGTH:
        return None
    raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    if raw[:_TAG_BYTES] != _tag(query):
        return None
    key: object = json.loads(raw[_TAG_BYTES:])
    return cast("Key", tuple(cast("list[object]", key))) if isinstance(key, list) else None


def _tag(query: tuple[object, ...]) -> bytes:
    return hashlib.sha256(_compact(query).encode()).digest()[:_TAG_BYTES]

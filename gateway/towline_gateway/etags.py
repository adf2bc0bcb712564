"""Entity tags over HTTP: `ETag`, `If-Match` and `If-None-Match` of resources and files, as in RFC 9110.

A message has a tag if it has a field `etag`, and a request can be made to depend on one if it has such a field.
"""

import re
from typing import Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor

FIELD: Final = "etag"
ANY: Final = "*"
_GZIP: Final = "-gzip"
_ONE: Final = re.compile(r'(?:W/)?"([\x21\x23-\x7e]*)"')


def has_etag(message: Descriptor | None) -> bool:
    """Tells whether messages of this type name their state."""
    field = message.fields_by_name.get(FIELD) if message else None
    return field is not None and field.type == FieldDescriptor.TYPE_STRING


def quoted(tag: str) -> str:
    """The tag as a header writes it."""
    return f'"{tag}"'


def strong(header: str) -> str | None:
    """The one tag that an `If-Match` header names; a weak one as it stands, which nothing matches. None if not one."""
    found = _ONE.fullmatch(header.strip())
    return found and (found[1].removesuffix(_GZIP) if found[0].startswith('"') else found[0])


def matches(header: str, tag: str) -> bool:
    """Tells whether an `If-None-Match` header names the tag; weak ones count, too."""
    return header.strip() == ANY or tag in [each.removesuffix(_GZIP) for each in _ONE.findall(header)]


def of_gzip(header: str) -> str:
    """The tag of the same, compressed: other octets need another one. Whoever sends it back means the same."""
    return f'{header[:-1]}{_GZIP}"'

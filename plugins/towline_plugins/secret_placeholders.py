"""Puts secrets where a config says `{{secret:NAME}}`, in the process of the plugin and nowhere else. Pure."""

import re
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import quote

from towline_plugins.catalog import SECRET_PLACEHOLDER
from towline_sdk.plugin import PermanentError

_PLACEHOLDER = re.compile(SECRET_PLACEHOLDER)


def filled(value: Any, secrets: Mapping[str, str], *, quoted: bool = False) -> Any:
    """Returns a JSON value whose strings have secrets in the place of placeholders; `quoted` as in a part of a URL."""
    if isinstance(value, str):
        return _PLACEHOLDER.sub(lambda found: _value(found[1], secrets, quoted=quoted), value)
    if isinstance(value, dict):
        members = cast("dict[str, Any]", value)
        return {name: filled(member, secrets, quoted=quoted) for name, member in members.items()}
    if isinstance(value, list):
        return [filled(item, secrets, quoted=quoted) for item in cast("list[Any]", value)]
    return value


def _value(name: str, secrets: Mapping[str, str], *, quoted: bool) -> str:
    if name not in secrets:
        raise PermanentError(f"the secret {name} was not given to this step", code="SECRET_UNAVAILABLE")
    return quote(secrets[name], safe="") if quoted else secrets[name]

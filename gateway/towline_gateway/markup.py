"""HTML as nested calls; every text and attribute is escaped, only `Html` passes as it is."""

import html
import re
from typing import Final

_VOID: Final = frozenset({"input", "link", "meta"})


class Html(str):
    """Text that is markup already."""

    __slots__ = ()

    def __add__(self, other: str) -> "Html":
        return Html(super().__add__(_escaped(other)))


def _escaped(text: str) -> str:
    return text if isinstance(text, Html) else html.escape(text)


def el(name: str, /, *children: str, **attributes: str) -> Html:
    """An element; `class_` is the attribute class, an underscore within a name is a hyphen."""
    pairs = (f' {key.rstrip("_").replace("_", "-")}="{html.escape(value)}"' for key, value in attributes.items())
    start = f"<{name}{''.join(pairs)}>"
    return Html(start if name in _VOID else f"{start}{''.join(map(_escaped, children))}</{name}>")


def prose(text: str) -> Html:
    """A comment of the protos as paragraphs; `backticks` become code, `Errors:` begins a paragraph."""
    paragraphs = [" ".join(part.split()) for part in re.split(r"\n(?=Errors:|`)|\n\s*\n", text) if part.strip()]
    return Html("".join(el("p", inline(part)) for part in paragraphs))


def inline(text: str) -> Html:
    """A text in which `backticks` become code."""
    return Html(re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text)))

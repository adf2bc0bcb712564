"""Which part of a list is wanted."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list is wanted: 0 items means the server's default."""

    size: int = 0
    token: str = ""


FIRST_PAGE: Final = Page()

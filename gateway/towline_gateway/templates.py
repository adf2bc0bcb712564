"""Path templates of `google.api.http`: `/api/runs/{run_id}/steps/{node_id}`, `/api/runs/{run_id}:cancel`.

Works on the path as it came over the wire, so that an encoded slash stays inside its value. The last variable may take
the rest of the path, slashes and all (`{name=**}`). Refuses other wildcards (`*`, `{a=b/*}`) when the process starts:
no route of ours needs them.
"""

import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

_REST = "=**}"
_VARIABLE = re.compile(r"\{([a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)*)\}")


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed path template; `variables` are proto field paths in order of appearance.

    `takes_rest`: the last of them may hold slashes; `text` does not say so.
    """

    text: str
    variables: tuple[str, ...]
    pattern: re.Pattern[str]
    takes_rest: bool = False

    @property
    def specificity(self) -> tuple[int, int]:
        """Sorts templates: fewer variables first, then the longer fixed text."""
        return len(self.variables), -len(_VARIABLE.sub("", self.text))

    def match(self, raw_path: str) -> tuple[str, ...] | None:
        """The decoded values of the variables when the path fits, else None."""
        found = self.pattern.fullmatch(raw_path)
        if found is None:
            return None
        try:
            return tuple(unquote_to_bytes(value).decode() for value in found.groups())
        except UnicodeDecodeError:
            return None


def parse_template(text: str) -> Template:
    """Parses a template; raises `ValueError` on a form that is not supported."""
    takes_rest = text.endswith(_REST)
    text = f"{text.removesuffix(_REST)}}}" if takes_rest else text
    fixed = _VARIABLE.split(text)[::2]
    if not text.startswith("/") or any(mark in part for part in fixed for mark in "{}*?#"):
        raise ValueError(f"unsupported path template {text!r}")
    pattern = "([^/]+)".join(re.escape(part) for part in fixed)
    if takes_rest:
        pattern = f"{pattern.removesuffix('([^/]+)')}(.+)"
    return Template(text, tuple(_VARIABLE.findall(text)), re.compile(pattern), takes_rest)

"""The shell blocks of the documentation, as a script for each page.

Every block that begins with ```sh is run, in the order of its page and in one shell. A comment right above it may say

    <!-- before: commands -->     what a reader has done already; the shell does it first
    <!-- prints: words -->        what the page prints then
    <!-- not run: reason -->      that tests cannot run it: it needs root, another host, …

Words that a reader replaces by something of their own (`WORKFLOW`, `RUN`, addresses) are replaced here too. The shell
is somebody's who has signed in as an admin (`TOKEN` holds the token), and knows a workflow, a run of it that has ended
and a node (`A_WORKFLOW`, `A_RUN`, `A_NODE`).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
"""`clients/README.md` has a test of its own, for each language."""
WORDS: Mapping[str, str] = {
    "WORKFLOW": "$A_WORKFLOW",
    "RUN": "$A_RUN",
    "NODE": "$A_NODE",
    "you@example.com": "admin@example.com",
}
_BLOCK = re.compile(r"((?:^<!--(?:(?!-->).)*-->\n+)*)^```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_REMARK = re.compile(r"<!-- (before|prints|not run): (.*?) -->", re.DOTALL)
_PRELUDE = r"""
set -euo pipefail
where=nowhere
trap 'echo "failed: $where" >&2' ERR
"""


@dataclass(frozen=True, slots=True)
class Block:
    """One shell block, and what the comments above it say."""

    place: str
    text: str
    before: tuple[str, ...]
    prints: tuple[str, ...]
    not_run: str

    def script(self, addresses: Mapping[str, str]) -> str:
        """Returns what the shell is told."""
        if self.not_run:
            return ""
        words = re.compile(rf"(?<![\w$./-])({'|'.join(map(re.escape, WORDS))})(?![\w=.])")
        told = "\n".join((f"where={self.place}", *self.before, words.sub(lambda word: WORDS[word[0]], self.text)))
        for written, meant in addresses.items():
            told = told.replace(written, meant)
        return told


def blocks(page: Path) -> Iterator[Block]:
    """Yields the shell blocks of a page."""
    text = page.read_text()
    for found in _BLOCK.finditer(text):
        remarks = [(kind, words) for kind, words in _REMARK.findall(found[1])]
        line = text[: found.start(2)].count("\n")
        yield Block(
            place=f"{page.relative_to(ROOT)}:{line}",
            text=found[2],
            before=tuple(words for kind, words in remarks if kind == "before"),
            prints=tuple(words for kind, words in remarks if kind == "prints"),
            not_run=next((words for kind, words in remarks if kind == "not run"), ""),
        )


def script(page: Path, addresses: Mapping[str, str]) -> str:
    """Returns all that the shell of a page is told; addresses stand for those that the page names."""
    return "\n".join((_PRELUDE, *(block.script(addresses) for block in blocks(page))))

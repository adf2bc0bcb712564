"""Calls between replicas: for each topic how many of its waiters, or EVERYBODY. Collected, bounded, as text.

What is too much to say one by one becomes EVERYTHING: a ring too many costs a look, a ring too few costs a wait.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from towline_controlplane.bus import EVERYBODY

EVERYTHING: Final = "*"
"""The topic that stands for all topics."""

MOST_TOPICS: Final = 1024
MOST_MESSAGES: Final = 4
_MOST_DIGITS: Final = 6


class PendingCalls:
    """Calls that wait to be sent, of at most MOST_TOPICS topics."""

    def __init__(self) -> None:
        self._calls: dict[str, int] = {}

    def add(self, calls: Mapping[str, int]) -> None:
        """Adds calls; those of one topic are one."""
        for topic, count in calls.items():
            self._calls[topic] = self._calls.get(topic, 0) + count
        if len(self._calls) > MOST_TOPICS or EVERYTHING in self._calls:
            self._calls = {EVERYTHING: EVERYBODY}

    def take(self) -> dict[str, int]:
        """Removes and returns all."""
        taken, self._calls = self._calls, {}
        return taken


@dataclass(frozen=True, slots=True)
class Message:
    """What a replica says at once."""

    sender: str
    calls: Mapping[str, int]


def encode(message: Message, most_bytes: int) -> list[str]:
    """Returns the message as texts of at most `most_bytes`: as one about EVERYTHING if they were too many."""
    room = most_bytes - len(message.sender.encode())
    texts, used = [message.sender], 0
    for topic, count in message.calls.items():
        word = f" {topic}" if count == EVERYBODY else f" {count}{EVERYTHING}{topic}"
        size = len(word.encode())
        if used + size > room:
            texts.append(message.sender)
            used = 0
        if size > room or len(texts) > MOST_MESSAGES:
            return [f"{message.sender} {EVERYTHING}"]
        texts[-1] += word
        used += size
    return texts


def decode(text: str) -> Message:
    """Returns the message of a text; what cannot be understood in it is left out."""
    sender, *words = text.split(" ")
    calls: dict[str, int] = {}
    for word in words:
        number, mark, topic = word.partition(EVERYTHING)
        if not mark or word == EVERYTHING:
            calls[word] = EVERYBODY
        elif number.isascii() and number.isdigit() and len(number) <= _MOST_DIGITS and int(number):
            calls[topic] = int(number)
    return Message(sender, calls)

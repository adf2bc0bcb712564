"""Stands between an attempt and what is kept of it: no secret that it was given reaches a log, a result or a failure.

An attempt without secrets passes it at no cost. What the plugin itself sends elsewhere is beyond it.
"""

import json
from collections.abc import Mapping
from typing import Any, Protocol, cast

from google.protobuf.message import Message

from towline.v1.agent_service_pb2 import AttemptResult
from towline_agent import json_document
from towline_agent.execution import OnOutput, OutputStream
from towline_agent.redaction import MASK, Redactor

_OF_THE_AGENT = frozenset({"lease", "digest"})
"""Fields of a result that no plugin has a part in."""


class Output(Protocol):
    """Where the output of an attempt goes."""

    def write(self, stream: OutputStream, data: bytes) -> None:
        """Takes raw bytes of a stream."""
        ...

    def note(self, text: str) -> None:
        """Takes a line of the agent's own."""
        ...


class AttemptRedaction:
    """What the output and the result of one attempt go through; `write` takes its raw output."""

    def __init__(self, secrets: Mapping[str, str], output: Output) -> None:
        self.write: OnOutput = output.write
        self._output = output
        self._redactor = Redactor(secrets.values()) if secrets else None
        if self._redactor is not None:
            self._streams = {stream: self._redactor.stream() for stream in (OutputStream.STDOUT, OutputStream.STDERR)}
            self.write = self._write

    def finish(self) -> None:
        """Writes what was held back, once the processes are gone and before the result is decided."""
        if self._redactor is not None:
            for stream, redacted in self._streams.items():
                self._pass_on(stream, redacted.finish())

    def clean(self, result: AttemptResult) -> None:
        """Masks the secrets in a result, and says in the log if the output held one."""
        if self._redactor is None:
            return
        if result.output_json:
            output = _clean_json(self._redactor, result.output_json)
            if output != result.output_json:
                result.output_json = output
                self._output.note("The output of the plugin held a secret, which was replaced by ***")
        _clean_texts(self._redactor, result)

    def _write(self, stream: OutputStream, data: bytes) -> None:
        self._pass_on(stream, self._streams[stream].feed(data))

    def _pass_on(self, stream: OutputStream, data: bytes) -> None:
        if data:
            self._output.write(stream, data)


def _clean_json(redactor: Redactor, document: bytes) -> bytes:
    value = json_document.parse(document)
    clean = _clean_value(redactor, value)
    return document if clean == value else json.dumps(clean, ensure_ascii=False, separators=(",", ":")).encode()


def _clean_value(redactor: Redactor, value: Any) -> Any:
    if isinstance(value, str):
        return redactor.text(value)
    if isinstance(value, dict):
        members = cast("dict[str, Any]", value)
        return {redactor.text(name): _clean_value(redactor, member) for name, member in members.items()}
    if isinstance(value, list):
        return [_clean_value(redactor, item) for item in cast("list[Any]", value)]
    digits = json.dumps(value)
    return value if redactor.text(digits) == digits else MASK.decode()


def _clean_texts(redactor: Redactor, message: Message) -> None:
    """Masks the secrets in every text of a message and the messages in it, whatever they are for."""
    for field, value in message.ListFields():
        if field.name in _OF_THE_AGENT:
            continue
        if field.type == field.TYPE_STRING:
            _clean_text(redactor, message, field.name, value)
        elif field.message_type is not None and not field.message_type.GetOptions().map_entry:
            for each in value if field.is_repeated else (value,):
                _clean_texts(redactor, each)


def _clean_text(redactor: Redactor, message: Message, name: str, value: Any) -> None:
    if isinstance(value, str):
        setattr(message, name, redactor.text(value))
    else:
        value[:] = [redactor.text(text) for text in value]

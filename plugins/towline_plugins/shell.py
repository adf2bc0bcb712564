"""SHELL: runs a command line with `sh -c`; what it prints is shown as it comes and kept as output, up to a size.

The attempt is over when the shell is: background commands that still hold its output are not waited for.
"""

import io
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from towline_sdk.plugin import PermanentError, TransientError

_KEPT_BYTES = 256 * 1024
_READ_BYTES = 1024 * 1024  # the largest pipe that an ordinary user may make
_TRANSIENT_EXIT_CODE = 75


def run(config: dict[str, Any], secrets: Mapping[str, str] = MappingProxyType({})) -> dict[str, Any]:
    """Returns `exitCode` 0 and `stdout`; `truncated` is added when not all of it was kept.

    The command reads its secrets, a JSON object, from the descriptor that TOWLINE_SECRETS_FD names.

    Raises:
        TransientError: The command exited with 75.
        PermanentError: It exited with another code than 0, or a signal ended it.
    """
    # A request to end goes to the whole group: the command has its grace, and this process waits for it.
    signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    environment = {**os.environ, **config.get("env", {})}
    environment.pop("TOWLINE_RESULT_FD", None)
    descriptors = _secrets_file(secrets, environment)
    read_end, write_end = os.pipe()
    with io.FileIO(read_end) as output:
        shell = subprocess.Popen(  # noqa: S603 - to run the command is what the plugin is for
            ["/bin/sh", "-c", config["command"]],
            stdin=subprocess.DEVNULL,
            stdout=write_end,
            env=environment,
            pass_fds=descriptors,
        )
        for descriptor in (write_end, *descriptors):
            os.close(descriptor)
        kept = _relay(shell, output)
    _judge(shell.wait())
    answer = {"exitCode": 0, "stdout": kept[:_KEPT_BYTES].decode(errors="replace")}
    return {**answer, "truncated": True} if len(kept) > _KEPT_BYTES else answer


def _secrets_file(secrets: Mapping[str, str], environment: dict[str, str]) -> tuple[int, ...]:
    """Puts the secrets where only this process and the command can read them: into memory, never on a disk."""
    if not secrets:
        return ()
    descriptor = os.memfd_create("secrets")
    with os.fdopen(descriptor, "w", closefd=False) as file:
        json.dump(dict(secrets), file, ensure_ascii=False)
    os.lseek(descriptor, 0, os.SEEK_SET)
    environment["TOWLINE_SECRETS_FD"] = str(descriptor)
    return (descriptor,)


def _relay(shell: subprocess.Popen[bytes], output: io.FileIO) -> bytes:
    """Passes the shell's output on until the shell has ended; returns what is kept, and a byte if there was more."""
    kept = bytearray()
    for data in _output_of(shell, output):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        kept += data[: _KEPT_BYTES + 1 - len(kept)]
    return bytes(kept)


def _output_of(shell: subprocess.Popen[bytes], output: io.FileIO) -> Iterator[bytes]:
    ended = os.pidfd_open(shell.pid)
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    poll.register(output, select.POLLIN)
    os.set_blocking(output.fileno(), False)
    while True:
        # A pipe holds no more than one read takes: the read after the shell's end gets its last words.
        is_last = any(descriptor == ended for descriptor, _ in poll.poll())
        data = output.read(_READ_BYTES)
        if data:
            yield data
        if is_last or data == b"":
            break
    os.close(ended)


def _judge(exit_code: int) -> None:
    if exit_code < 0:
        _end_by(-exit_code)
    if exit_code == _TRANSIENT_EXIT_CODE:
        raise TransientError(f"the command exited with {exit_code}", code="EXIT_CODE")
    if exit_code != os.EX_OK:
        raise PermanentError(f"the command exited with {exit_code}", code="EXIT_CODE")


def _end_by(number: int) -> None:
    """Lets the signal that ended the shell end the attempt as well, so that it is explained like any other."""
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)

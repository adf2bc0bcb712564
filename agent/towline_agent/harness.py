"""Runs a Python entry point in a forked, plugin-free interpreter and turns what it does into a result document.

Knows the plugin protocol and no plugin. The attempt ends when the function returns: threads that it left behind and
`atexit` hooks are not waited for.
"""

import errno
import importlib
import inspect
import io
import json
import os
import sys
import sysconfig
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from towline_sdk import plugin
from towline_sdk.plugin import PermanentError, TransientError

PYTHON_PREFIX = "python:"
RESULT_DESCRIPTOR = 3
TRANSIENT_EXIT_CODE = 75

_PERMANENT_EXIT_CODE = 1
_LONGEST_MESSAGE = 4096
_OF_THE_DISK = {
    errno.ENOSPC: ("TRANSIENT", "DISK_FULL"),
    errno.EDQUOT: ("TRANSIENT", "DISK_FULL"),
    errno.EFBIG: ("PERMANENT", "FILE_LIMIT"),
}
"""Class and code of the errors by which the kernel says that something cannot be written."""


def run(entry_point: str, plugin_dir: Path | None, environment: dict[str, str]) -> int:
    """Calls the entry point once and returns the exit code; the result document is written by then."""
    _become(entry_point, environment)
    secrets = plugin.secrets()  # so that no process that it starts finds the descriptor
    streams = _open_standard_streams()
    try:
        document, code = _encode(_call(entry_point, plugin_dir, secrets)), os.EX_OK
    except SystemExit as stop:
        document, code = b"", _exit_code(stop)
    except TransientError as error:
        document, code = _describe("TRANSIENT", error.code, str(error), error.retry_after_ms), TRANSIENT_EXIT_CODE
    except PermanentError as error:
        document, code = _describe("PERMANENT", error.code, str(error)), _PERMANENT_EXIT_CODE
    except OSError as error:
        traceback.print_exception(type(error), error, _plugin_frames(error.__traceback__))
        kind, error_code = _OF_THE_DISK.get(error.errno or 0, ("PERMANENT", "PLUGIN_ERROR"))
        summary = traceback.format_exception_only(error)[-1].strip()
        document, code = _describe(kind, error_code, summary), _PERMANENT_EXIT_CODE
    except BaseException as error:  # noqa: BLE001 - whatever plugin code raises is the outcome of its attempt
        traceback.print_exception(type(error), error, _plugin_frames(error.__traceback__))
        summary = traceback.format_exception_only(error)[-1].strip()
        document, code = _describe("PERMANENT", "PLUGIN_ERROR", summary), _PERMANENT_EXIT_CODE
    for stream in streams:
        with suppress(OSError, ValueError):  # the plugin may have closed it, or nobody reads it any more
            stream.flush()
    return code if _write(document) else _PERMANENT_EXIT_CODE


def _become(entry_point: str, environment: dict[str, str]) -> None:
    sys.argv = [entry_point]
    sys.dont_write_bytecode = True  # a bundle is never written to
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()


def _open_standard_streams() -> tuple[io.TextIOWrapper, io.TextIOWrapper]:
    sys.stdin = sys.__stdin__ = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), encoding="utf-8")
    output, errors = _line_writer(1), _line_writer(2)
    sys.stdout = sys.__stdout__ = output
    sys.stderr = sys.__stderr__ = errors
    return output, errors


def _line_writer(descriptor: int) -> io.TextIOWrapper:
    raw = io.BufferedWriter(io.FileIO(descriptor, "w", closefd=False))
    return io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", line_buffering=True)


def _call(entry_point: str, plugin_dir: Path | None, secrets: dict[str, str]) -> object:
    function = _load(entry_point, plugin_dir)
    request = json.loads(sys.stdin.buffer.read())
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.name == "secrets" for parameter in parameters):
        request["secrets"] = secrets
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return function(**request)
    declared = {parameter.name for parameter in parameters}
    return function(**{name: value for name, value in request.items() if name in declared})


def _load(entry_point: str, plugin_dir: Path | None) -> Callable[..., object]:
    module, _, function = entry_point.removeprefix(PYTHON_PREFIX).partition(":")
    if "VIRTUAL_ENV" in os.environ:
        _enter(Path(os.environ["VIRTUAL_ENV"]))
    if plugin_dir is not None:
        _forget(_brought_by(plugin_dir))
        sys.path.insert(0, str(plugin_dir))
    return getattr(importlib.import_module(module), function)


def _enter(environment: Path) -> None:
    """Puts packages where a virtual environment has them: behind the standard library, before all of the agent's."""
    folder = environment / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    _forget(_brought_by(folder) - sys.stdlib_module_names)
    standard = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
    last = max((place for place, path in enumerate(sys.path) if _is_standard(path, standard)), default=-1)
    sys.path.insert(last + 1, str(folder))
    sys.prefix = sys.exec_prefix = str(environment)
    sys.executable = str(environment / "bin" / "python")


def _is_standard(path: str, folders: set[str]) -> bool:
    return path in folders or path.endswith(".zip") or os.path.basename(path) == "lib-dynload"


def _brought_by(folder: Path) -> set[str]:
    """Names of the modules that lie in a folder."""
    return {entry.name.partition(".")[0] for entry in folder.iterdir() if _holds_module(entry)}


def _holds_module(entry: Path) -> bool:
    return entry.suffix in (".py", ".so") or (entry / "__init__.py").exists()


def _forget(brought: set[str]) -> None:
    """What a plugin brings wins over what this interpreter already holds, as it would in a fresh one."""
    for name in [name for name in sys.modules if name.partition(".")[0] in brought]:
        del sys.modules[name]


def _encode(output: object) -> bytes:
    try:
        return json.dumps(output, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise PermanentError(f"the output is not JSON: {error}", code="INVALID_OUTPUT") from error


def _describe(error_class: str, code: str, message: str, retry_after_ms: int = 0) -> bytes:
    detail: dict[str, object] = {"class": error_class, "code": code, "message": message[:_LONGEST_MESSAGE]}
    if retry_after_ms:
        detail["retryAfterMs"] = retry_after_ms
    return json.dumps({"error": detail}).encode()


def _exit_code(stop: SystemExit) -> int:
    match stop.code:
        case None:
            return os.EX_OK
        case int(code):
            return code & 0xFF
        case message:
            print(message, file=sys.stderr)  # noqa: T201 - what the interpreter does with it
            return _PERMANENT_EXIT_CODE


def _plugin_frames(frames: TracebackType | None) -> TracebackType | None:
    while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    return frames


def _write(document: bytes) -> bool:
    unwritten = memoryview(document)
    try:
        while unwritten:
            unwritten = unwritten[os.write(RESULT_DESCRIPTOR, unwritten) :]
    except OSError as error:  # the plugin has closed the descriptor
        os.write(2, f"the result cannot be written: {error.strerror}\n".encode())
        return False
    return True

"""Results on disk, from the end of an attempt until the control plane has answered for them.

A file per result, written whole before anything is sent; what a dead process left behind is found again at start.
"""

from collections.abc import Iterable
from pathlib import Path

import structlog
from google.protobuf.message import DecodeError

from towline.v1.agent_service_pb2 import AttemptResult
from towline_agent.files import private_folder, write_private

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

_SUFFIX = ".result"


class ResultSpool:
    """The folder of results; keys are those of their leases."""

    def __init__(self, folder: Path) -> None:
        self._folder = private_folder(folder)

    def put(self, key: str, result: AttemptResult) -> None:
        """Keeps a result, on disk when this returns."""
        write_private(self._file(key), result.SerializeToString())

    def remove_many(self, keys: Iterable[str]) -> None:
        """Forgets results; missing ones are fine."""
        for key in keys:
            self._file(key).unlink(missing_ok=True)

    def load(self) -> dict[str, AttemptResult]:
        """Returns what is kept, oldest first; a file that cannot be read is removed, and said so."""
        found: dict[str, AttemptResult] = {}
        for file in sorted(self._folder.glob(f"*{_SUFFIX}"), key=lambda file: file.stat().st_mtime_ns):
            try:
                found[file.stem] = AttemptResult.FromString(file.read_bytes())
            except DecodeError:
                log.warning("spooled_result_damaged", file=file.name)
                file.unlink()
        return found

    def _file(self, key: str) -> Path:
        return self._folder / f"{key}{_SUFFIX}"

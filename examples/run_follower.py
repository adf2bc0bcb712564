"""Follows one run over REST: its events and its log lines, as they come, until both streams have ended."""

import queue
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

from examples.rest import Api


class Happening(NamedTuple):
    """An event of the run (`kind` is "event") or a line that a step wrote ("line")."""

    kind: str
    data: dict[str, Any]


class _StreamEnd(NamedTuple):
    error: Exception | None


def follow(api: Api, run_id: str) -> Iterator[Happening]:
    """Yields what happens, in order within each of the two streams; raises what broke a stream."""
    happenings: queue.Queue[Happening | _StreamEnd] = queue.Queue()
    paths = {"event": f"/api/runs/{run_id}/events", "line": f"/api/runs/{run_id}/logs?follow=true"}
    for kind, path in paths.items():
        threading.Thread(target=_read, args=(api, kind, path, happenings), daemon=True).start()
    open_streams = len(paths)
    while open_streams:
        happening = happenings.get()
        if isinstance(happening, Happening):
            yield happening
            continue
        if happening.error:
            raise happening.error
        open_streams -= 1


def _read(api: Api, kind: str, path: str, happenings: "queue.Queue[Happening | _StreamEnd]") -> None:
    try:
        for data in api.events(path):
            happenings.put(Happening(kind, data))
    except Exception as error:  # noqa: BLE001 - raised again by the reader of the queue
        happenings.put(_StreamEnd(error))
    else:
        happenings.put(_StreamEnd(None))

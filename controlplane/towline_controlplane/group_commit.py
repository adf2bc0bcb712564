"""Group commit: what arrives while a transaction is in flight shares the next one, and each is answered after it.

No delay is added; under load the batches grow by themselves. A batch that fails is applied one by one, so that a
poisoned item fails alone (I30).
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import structlog
from structlog.contextvars import bound_contextvars, get_contextvars

from towline_controlplane.errors import Unavailable
from towline_controlplane.store.database import Database, Transaction

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
R = TypeVar("R")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Waiting(Generic[T_co]):
    """An item and the future that its sender awaits."""

    item: T_co
    answer: asyncio.Future[Any]
    context: Mapping[str, Any] = field(default_factory=get_contextvars)
    """What the logs say of the call that sent it, such as its request id."""


class Backlog(Generic[T]):
    """Items that wait for the next commit; `wake` is set when one is added."""

    def __init__(self, wake: asyncio.Event) -> None:
        self._wake = wake
        self._waiting: list[Waiting[T]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, item: T) -> asyncio.Future[Any]:
        """Returns what will be answered to `item` once it is committed."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append(Waiting(item, answer))
        self._wake.set()
        return answer

    def take(self, most: int) -> list[Waiting[T]]:
        """Removes and returns the oldest items, without those whose sender has gone, as when its deadline is over."""
        waiting = [each for each in self._waiting if not each.answer.cancelled()]
        taken, self._waiting = waiting[:most], waiting[most:]
        return taken


async def commit_together(
    database: Database,
    waiting: Sequence[Waiting[T]],
    work: Callable[[Transaction, Sequence[T]], tuple[Sequence[object], R]],
    recover: Callable[[T, Exception], Awaitable[object]] | None = None,
) -> list[R]:
    """Applies all items in one transaction and answers each; returns the results of the transactions that it took.

    `work` returns an answer for each item, in their order, and a result; an answer that is an exception is raised at
    the item's sender. An item that fails alone too is answered by `recover`, which sees to it that its like do not come
    again, or else with its error.
    """
    if not waiting:
        return []
    try:
        answers, result = await database.write(lambda tx: work(tx, [each.item for each in waiting]))
    except Unavailable as error:
        for each in waiting:
            _settle(each.answer, error)
        return []
    except Exception as error:
        if len(waiting) > 1:
            return [result for each in waiting for result in await commit_together(database, [each], work, recover)]
        with bound_contextvars(**waiting[0].context):
            log.exception("commit failed", item=type(waiting[0].item).__name__)
            _settle(waiting[0].answer, await _recovered(waiting[0].item, error, recover))
        return []
    for each, answer in zip(waiting, answers, strict=True):
        _settle(each.answer, answer)
    return [result]


async def _recovered(item: T, error: Exception, recover: Callable[[T, Exception], Awaitable[object]] | None) -> object:
    if recover is None:
        return error
    try:
        return await recover(item, error)
    except Exception as failure:
        log.exception("recovery failed", item=type(item).__name__)
        return failure


def _settle(future: asyncio.Future[Any], answer: object) -> None:
    if future.done():  # its sender has gone
        return
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)

"""What a group commit owes to each of its senders."""

import asyncio
from collections.abc import Callable, Sequence

from rig import Rig, Scenario

from towline_controlplane.errors import NotFound, Unavailable
from towline_controlplane.group_commit import Backlog, Waiting, commit_together
from towline_controlplane.store.database import Transaction


def doubled(tx: Transaction, items: Sequence[int]) -> tuple[list[object], int]:
    if 0 in items:
        raise ZeroDivisionError
    return [NotFound("odd") if item % 2 else item * 2 for item in items], len(items)


def waiting(*items: int) -> list[Waiting[int]]:
    backlog: Backlog[int] = Backlog(asyncio.Event())
    for item in items:
        backlog.add(item)
    return backlog.take(len(items))


async def answers(batch: Sequence[Waiting[int]]) -> list[object]:
    return await asyncio.gather(*[each.answer for each in batch], return_exceptions=True)


def test_a_batch_is_one_transaction_and_each_gets_its_answer(play: Callable[[Scenario], None]) -> None:
    async def scenario(rig: Rig) -> None:
        batch = waiting(2, 3, 4)
        assert await commit_together(rig.database, batch, doubled) == [3]
        four, odd, eight = await answers(batch)
        assert (four, eight) == (4, 8)
        assert isinstance(odd, NotFound)

    play(scenario)


def test_what_nobody_waits_for_any_more_is_not_done(play: Callable[[Scenario], None]) -> None:
    async def scenario(rig: Rig) -> None:
        backlog: Backlog[int] = Backlog(asyncio.Event())
        two, four = backlog.add(2), backlog.add(4)
        two.cancel()  # as the deadline of its call does
        assert await commit_together(rig.database, backlog.take(10), doubled) == [1]
        assert await four == 8

    play(scenario)


def test_an_item_that_breaks_the_batch_fails_alone(play: Callable[[Scenario], None]) -> None:
    async def scenario(rig: Rig) -> None:
        batch = waiting(2, 0, 4)
        assert await commit_together(rig.database, batch, doubled) == [1, 1]
        four, broken, eight = await answers(batch)
        assert (four, eight) == (4, 8)
        assert isinstance(broken, ZeroDivisionError)

    play(scenario)


def test_a_database_that_is_away_is_not_tried_once_for_each(play: Callable[[Scenario], None]) -> None:
    tried: list[int] = []

    def away(tx: Transaction, items: Sequence[int]) -> tuple[list[object], None]:
        tried.append(len(items))
        raise Unavailable("the disk is full")

    async def scenario(rig: Rig) -> None:
        batch = waiting(2, 4, 6)
        assert await commit_together(rig.database, batch, away) == []
        assert all(isinstance(answer, Unavailable) for answer in await answers(batch))
        assert tried == [3]

    play(scenario)


def test_a_sender_that_has_gone_disturbs_nobody(play: Callable[[Scenario], None]) -> None:
    async def scenario(rig: Rig) -> None:
        batch = waiting(2, 4)
        batch[0].answer.cancel()
        await commit_together(rig.database, batch, doubled)
        assert await batch[1].answer == 8

    play(scenario)

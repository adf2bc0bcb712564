"""Two control planes on one PostgreSQL act upon the same schedules: each time is one run."""

import asyncio
from collections import Counter
from pathlib import Path

from rig import control_plane, serving
from schedule_samples import HOUR, Timekeeper

from towline_controlplane.schedule_records import Outcome, Overlap


def test_of_two_that_act_upon_the_same_times_each_starts_what_the_other_does_not(
    tmp_path: Path, postgres_url: str
) -> None:
    async def scenario() -> None:
        async with control_plane(tmp_path, postgres_url) as one, serving(postgres_url, one.clock) as other:
            first = Timekeeper(one)
            second = Timekeeper(other, first.starts)
            overlaps = [Overlap.ALLOW_ALL] * 6 + [Overlap.CANCEL_OTHER] * 3 + [Overlap.SKIP] * 3
            rows = [await first.schedule(overlap=overlap) for overlap in overlaps]
            for _ in range(4):
                one.clock.advance(3600)
                await asyncio.gather(first.settle(), second.settle())
                await asyncio.gather(first.settle(), second.settle())
            for row in rows:
                firings = await first.firings(row)
                assert [each.scheduled_time - (row.next_time or 0) for each in firings] == [0, HOUR, 2 * HOUR, 3 * HOUR]
                started = 1 if row.overlap is Overlap.SKIP else 4
                assert Counter(each.outcome for each in firings)[Outcome.STARTED] == started
                runs = {run.id: run.scheduled_time for run in await first.runs(row)}
                assert runs == {each.started_run_id: each.scheduled_time for each in firings if each.started_run_id}

    asyncio.run(scenario())

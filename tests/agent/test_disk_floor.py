"""Below the floor of free space nothing more is taken, above it again; results find room to the last."""

import errno
from pathlib import Path

import pytest
from running_agent import run

from towline.v1.agent_service_pb2 import AttemptResult, Lease
from towline_agent.disk_floor import MIB, DiskFloor, Reserve, free_bytes_of
from towline_agent.outbox import Outbox
from towline_agent.spool import ResultSpool
from towline_agent.testing import FakeClock


def test_the_floor_is_told_once_each_way(tmp_path: Path) -> None:
    async def scenario() -> None:
        said: list[str] = []
        free = iter([101, 99, 50, 100, 109, 110, 300])
        reserve = Reserve(tmp_path / "reserve", 0)
        floor = DiskFloor(100 * MIB, lambda: next(free) * MIB, reserve, FakeClock(), said.append)
        for _ in range(7):
            floor.tick()
        assert said == ["99 MiB of its disk are free, less than 100 MiB", ""]

    run(scenario)


def test_the_reserve_takes_up_room_until_it_is_needed(tmp_path: Path) -> None:
    async def scenario() -> None:
        reserve = Reserve(tmp_path / "reserve", MIB)
        free = iter([10, 0, 10])
        floor = DiskFloor(5 * MIB, lambda: next(free) * MIB, reserve, FakeClock(), lambda reason: None)
        floor.tick()
        assert (tmp_path / "reserve").stat().st_blocks * 512 >= MIB
        assert reserve.give_up()
        assert not reserve.give_up()
        floor.tick()
        assert not (tmp_path / "reserve").exists()
        floor.tick()
        assert (tmp_path / "reserve").exists()

    run(scenario)


def test_a_result_that_does_not_fit_takes_the_room_of_the_reserve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = ResultSpool.put
    reserve = Reserve(tmp_path / "reserve", MIB)

    def full(self: ResultSpool, key: str, result: AttemptResult) -> None:
        if (tmp_path / "reserve").exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        put(self, key, result)

    monkeypatch.setattr(ResultSpool, "put", full)

    async def scenario() -> None:
        reserve.take()
        spool = ResultSpool(tmp_path / "results")
        outbox = Outbox(spool, FakeClock())
        outbox.make_room = reserve.give_up
        await outbox.keep("key", AttemptResult(lease=Lease(run_id="run")))
        assert list(spool.load()) == ["key"]

    run(scenario)


def test_the_free_space_is_that_of_the_folder(tmp_path: Path) -> None:
    assert free_bytes_of(tmp_path) > 0

"""Calls of ScheduleService that tests share, and a way to let a time come."""

from typing import Any

from service_rig import DAG, Caller, Rig

from towline.v1.schedule_pb2 import Schedule
from towline_controlplane.frozen import replace
from towline_controlplane.loops.scheduling import Scheduling
from towline_controlplane.services.outlines import Outlines
from towline_controlplane.services.schedule_starts import ScheduleStarts
from towline_controlplane.store import schedules


async def workflow_of(caller: Caller, **fields: Any) -> str:
    return (await caller.call("WorkflowService/CreateWorkflow", name="w", dag=DAG, **fields)).workflow.id


async def create(caller: Caller, workflow_id: str, **fields: Any) -> Schedule:
    given = {"name": "s", "workflowId": workflow_id, **fields}
    if not given.keys() & {"cron", "interval"}:
        given["interval"] = "86400s"
    return (await caller.call("ScheduleService/CreateSchedule", **given)).schedule


async def call(caller: Caller, method: str, schedule: Schedule, **fields: Any) -> Any:
    return await caller.call(f"ScheduleService/{method}Schedule", scheduleId=schedule.id, **fields)


async def get(caller: Caller, schedule: Schedule) -> Schedule:
    return (await call(caller, "Get", schedule)).schedule


def loop_of(rig: Rig) -> Scheduling:
    return Scheduling(rig.database, rig.orchestrator, ScheduleStarts(rig.database, Outlines()))


async def make_due(rig: Rig, schedule: Schedule) -> None:
    """Moves the next time of a schedule to now, and lets it come."""

    def move(tx: schedules.Transaction) -> None:
        row = schedules.lock_schedule(tx, schedule.id, None)
        assert row is not None
        schedules.save_schedule(tx, replace(row, next_time=tx.now, due_time=tx.now))

    await rig.database.write(move)
    while await loop_of(rig).tick() == 0.0:
        pass

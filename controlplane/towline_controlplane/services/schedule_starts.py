"""What a run of a schedule would be now: the version to run, with an input that fits it, as its owner may start it."""

import asyncio
from dataclasses import dataclass
from typing import Final

from towline_controlplane.engine.firing import Refusal
from towline_controlplane.errors import InvalidArgument, NotFound
from towline_controlplane.json_values import parse
from towline_controlplane.model import Role, WorkflowVersion
from towline_controlplane.orchestrator import RunStart
from towline_controlplane.schedule_records import Schedule
from towline_controlplane.services.checks import found, refuse
from towline_controlplane.services.outlines import Outline, Outlines
from towline_controlplane.store import users, workflows
from towline_controlplane.store.database import Database, Transaction
from towline_dag.schemas import wrong_input

_SHOWN_CHARACTERS: Final = 500


@dataclass(frozen=True, slots=True)
class ScheduleStarts:
    """Looks up what a schedule names, each time anew: versions are pinned, inputs stop fitting, workflows go."""

    database: Database
    outlines: Outlines

    async def prepare(self, schedule: Schedule, time: int) -> RunStart | Refusal:
        """Returns the run for a time, or why there can be none; what is gone does not come back."""
        try:
            owner = await self.database.read(lambda tx: users.get_user(tx, schedule.owner_id))
            if owner is not None and owner.disabled:
                return Refusal("OWNER_DISABLED", "its owner is disabled")
            return await self.check(schedule, time)
        except NotFound as error:
            return Refusal(error.reason, error.message[:_SHOWN_CHARACTERS], final=True)
        except InvalidArgument as error:
            return Refusal(error.reason, error.message[:_SHOWN_CHARACTERS])

    async def check(self, schedule: Schedule, time: int) -> RunStart:
        """Returns the run for a time; raises NotFound or InvalidArgument."""
        version, outline = await self.database.read(lambda tx: self._version(tx, schedule))
        if outline.input_schema is not None:
            value = parse(schedule.input.encode(), "input")
            refuse(await asyncio.to_thread(wrong_input, outline.input_schema, value, "input"))
        return RunStart(
            workflow_id=schedule.workflow_id,
            version=version,
            owner_id=schedule.owner_id,
            input_json=schedule.input,
            priority=schedule.priority,
            labels=dict(schedule.labels),
            request_id=None,
            request_digest="",
            schedule_id=schedule.id,
            scheduled_time=time,
        )

    def _version(self, tx: Transaction, schedule: Schedule) -> tuple[WorkflowVersion, Outline]:
        owner = found(users.get_user(tx, schedule.owner_id), "user", schedule.owner_id)
        visible_owner = None if owner.role is Role.ADMIN else owner.id
        workflow = workflows.get_workflow(tx, schedule.workflow_id, visible_owner)
        workflow = found(workflow, "workflow", schedule.workflow_id)
        wanted = schedule.version_id or workflow.pinned_version_id or workflow.current_version_id
        version = workflows.get_version(tx, wanted)
        own = version is not None and version.workflow_id == workflow.id
        version = found(version if own else None, "version", wanted)
        return version, self.outlines.add(version)

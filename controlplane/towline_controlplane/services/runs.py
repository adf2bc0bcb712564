"""RunService: starting, listing and steering runs, their steps, their history and their logs.

Every change of a run goes through the orchestrator; here are only reads.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Final, Protocol, cast

import structlog

from towline.v1 import run_pb2
from towline.v1 import run_service_pb2 as pb
from towline_controlplane.engine.allowance import NO_RULES, Platform
from towline_controlplane.engine.explain import explain
from towline_controlplane.engine.handout import execution_key
from towline_controlplane.errors import InvalidArgument, LimitExceeded, NotFound, Unavailable, Violation
from towline_controlplane.json_values import MAX_BYTES, canonical_text, to_text
from towline_controlplane.model import Output, Run, Step, WorkflowVersion
from towline_controlplane.orchestrator import RunStart
from towline_controlplane.outputs import Outputs
from towline_controlplane.services import convert
from towline_controlplane.services.agent_messages import MAX_OUTPUT_BYTES
from towline_controlplane.services.callers import Context, current_user, visible_owner
from towline_controlplane.services.checks import found, refuse, wrong_labels, wrong_text
from towline_controlplane.services.explanations import explanation_message, situation_of
from towline_controlplane.services.list_queries import RUN_ORDERS, key_shape, order_of, run_filter
from towline_controlplane.services.log_streams import LogStreams, statuses
from towline_controlplane.services.outlines import Outline, Outlines
from towline_controlplane.services.pages import PageLimits, decode_token, encode_token, gather, page_size, query_of
from towline_controlplane.services.run_artifacts import RunArtifacts
from towline_controlplane.services.run_streams import RunStreams
from towline_controlplane.services.struct_values import plain, wire_text
from towline_controlplane.store import run_lists, runs, workflows
from towline_controlplane.store.database import Database, Transaction
from towline_controlplane.store.keysets import Place
from towline_dag.json_bounds import violations
from towline_dag.schemas import wrong_input

MAX_PRIORITY: Final = 100
MAX_REQUEST_ID_LENGTH: Final = 200
_RUN_LIMITS: Final = PageLimits()
_STEP_LIMITS: Final = PageLimits(default=500, maximum=1_000)

log = structlog.get_logger(__name__)


class RunCommands(Protocol):
    """The one writer of run state, as this service needs it."""

    async def start_run(self, start: RunStart) -> Run:
        """Creates a run; raises IdempotencyKeyReused."""
        ...

    async def pause(self, run_id: str, owner_id: str | None, *, freeze: bool = False) -> Run:
        """Stops hand-outs, with `freeze` what runs too; raises NotFound or InvalidState."""
        ...

    async def resume(self, run_id: str, owner_id: str | None) -> Run:
        """Allows hand-outs again; raises NotFound or InvalidState."""
        ...

    async def cancel(self, run_id: str, owner_id: str | None) -> Run:
        """Ends a run; raises NotFound or InvalidState."""
        ...

    async def delete(self, run_id: str, owner_id: str | None) -> None:
        """Deletes a run that has ended; raises NotFound or InvalidState."""
        ...

    async def retry(self, run_id: str, owner_id: str | None) -> Run:
        """Runs what failed again; raises NotFound or InvalidState."""
        ...


@dataclass(frozen=True, slots=True)
class RunService:
    """Implements `towline.v1.RunService`."""

    database: Database
    commands: RunCommands
    streams: RunStreams
    outlines: Outlines
    outputs: Outputs
    logs: LogStreams
    artifacts: RunArtifacts
    platform: Platform = NO_RULES

    async def StartRun(self, request: pb.StartRunRequest, _context: Context) -> pb.StartRunResponse:
        """Starts a run; answered once it is committed."""
        value = plain(request.input)
        _check_start(request, value)
        version, outline = await self._version_to_run(request.workflow_id, request.version_id)
        if outline.input_schema is not None:
            refuse(await asyncio.to_thread(wrong_input, outline.input_schema, value, "input"))
        run = await self.commands.start_run(
            RunStart(
                workflow_id=request.workflow_id,
                version=version,
                owner_id=current_user().id,
                input_json=to_text(value),
                priority=request.priority,
                labels=dict(request.labels),
                request_id=request.request_id or None,
                request_digest=_digest(request, value),
            )
        )
        return pb.StartRunResponse(run=convert.run(run))

    async def ListRuns(self, request: pb.ListRunsRequest, _context: Context) -> pb.ListRunsResponse:
        """Lists runs, without their outputs."""
        size, order = page_size(request.page_size, _RUN_LIMITS), order_of(RUN_ORDERS, request.order_by)
        narrow, query = run_filter(request, visible_owner()), query_of(request)
        after = decode_token(request.page_token, key_shape(order), *query)

        def read(tx: Transaction) -> pb.ListRunsResponse:
            page = gather(
                lambda key, limit: run_lists.list_runs(tx, narrow, cast("Place | None", key), limit, order),
                order.place,
                after,
                size,
                lambda row: len(row.input) + len(row.output or ""),
            )
            return pb.ListRunsResponse(
                runs=[convert.run(row) for row in page.rows], next_page_token=encode_token(page.next_key, *query)
            )

        return await self.database.read(read)

    async def GetRun(self, request: pb.GetRunRequest, _context: Context) -> pb.GetRunResponse:
        """Returns a run, with its output once it has ended."""
        owner_id = visible_owner()

        def read(tx: Transaction) -> tuple[Run, Mapping[str, Output] | None]:
            run = found(runs.get_run(tx, request.run_id, owner_id), "run", request.run_id)
            return run, self.outlines.outputs_of(tx, run)

        run, stored = await self.database.read(read)
        output = None if stored is None else await self._texts(run.id, stored)
        return pb.GetRunResponse(run=await asyncio.to_thread(convert.run, run, output))

    async def PauseRun(self, request: pb.PauseRunRequest, _context: Context) -> pb.PauseRunResponse:
        """Stops handing out the steps of a run, and lets what runs stand still if asked to."""
        if request.mode not in pb.PauseRunRequest.Mode.values():
            raise InvalidArgument.of("mode", f"has the unknown value {request.mode}")
        freeze = request.mode == pb.PauseRunRequest.FREEZE
        run = await self.commands.pause(request.run_id, visible_owner(), freeze=freeze)
        return pb.PauseRunResponse(run=convert.run(run))

    async def ResumeRun(self, request: pb.ResumeRunRequest, _context: Context) -> pb.ResumeRunResponse:
        """Hands out the steps of a paused run again."""
        return pb.ResumeRunResponse(run=convert.run(await self.commands.resume(request.run_id, visible_owner())))

    async def CancelRun(self, request: pb.CancelRunRequest, _context: Context) -> pb.CancelRunResponse:
        """Cancels a run."""
        return pb.CancelRunResponse(run=convert.run(await self.commands.cancel(request.run_id, visible_owner())))

    async def RetryRun(self, request: pb.RetryRunRequest, _context: Context) -> pb.RetryRunResponse:
        """Starts a run that did not succeed over from its failed steps."""
        return pb.RetryRunResponse(run=convert.run(await self.commands.retry(request.run_id, visible_owner())))

    async def DeleteRun(self, request: pb.DeleteRunRequest, _context: Context) -> pb.DeleteRunResponse:
        """Deletes a run that has ended."""
        await self.commands.delete(request.run_id, visible_owner())
        return pb.DeleteRunResponse()

    async def ListSteps(self, request: pb.ListStepsRequest, _context: Context) -> pb.ListStepsResponse:
        """Lists the steps of a run in the order of the DAG's nodes."""
        owner_id = visible_owner()
        size = page_size(request.page_size, _STEP_LIMITS)
        query = ("ListSteps", request.run_id)
        after = decode_token(request.page_token, (int,), *query)

        def read(tx: Transaction) -> pb.ListStepsResponse:
            run = found(runs.get_run(tx, request.run_id, owner_id), "run", request.run_id)
            page = gather(
                lambda key, limit: runs.list_steps(tx, run.id, int(key[0]) if key else -1, limit),
                lambda row: (row.position,),
                after,
                size,
                lambda row: len(row.output or ""),
            )
            return pb.ListStepsResponse(
                steps=[self._step(tx, run, row) for row in page.rows],
                next_page_token=encode_token(page.next_key, *query),
            )

        return await self.database.read(read)

    async def GetStep(self, request: pb.GetStepRequest, _context: Context) -> pb.GetStepResponse:
        """Returns a step with all its attempts."""
        owner_id = visible_owner()

        def read(tx: Transaction) -> tuple[run_pb2.Step, Output]:
            run = found(runs.get_run(tx, request.run_id, owner_id), "run", request.run_id)
            step = found(runs.get_step(tx, run.id, request.node_id), "step", request.node_id)
            message = self._step(tx, run, step)
            attempts = runs.list_attempts(tx, run.id, step.node_id)
            logs = statuses(tx, run.id, attempts)
            message.attempts.extend(convert.attempt(row, log) for row, log in zip(attempts, logs, strict=True))
            return message, Output(step.output, step.output_digest)

        message, output = await self.database.read(read)
        if output.digest is not None:
            message.output.CopyFrom(await asyncio.to_thread(wire_text, await self._text(request.node_id, output)))
        return pb.GetStepResponse(step=message)

    async def ExplainStep(self, request: pb.ExplainStepRequest, _context: Context) -> pb.ExplainStepResponse:
        """Explains why a step is not running."""
        owner_id = visible_owner()

        def read(tx: Transaction) -> pb.ExplainStepResponse:
            run = found(runs.get_run(tx, request.run_id, owner_id), "run", request.run_id)
            step = found(runs.get_step(tx, run.id, request.node_id), "step", request.node_id)
            return pb.ExplainStepResponse(
                explanation=explanation_message(explain(situation_of(tx, run, step, self.platform)))
            )

        return await self.database.read(read)

    async def WatchRun(self, request: pb.WatchRunRequest, context: Context) -> AsyncIterator[pb.WatchRunResponse]:
        """Streams the history of a run up to the event that ends it."""
        async for response in self.streams.watch(request, context):
            yield response

    async def TailLogs(self, request: pb.TailLogsRequest, context: Context) -> AsyncIterator[pb.TailLogsResponse]:
        """Streams log lines, with `follow` until the run has ended."""
        async for response in self.logs.tail(request, context):
            yield response

    async def ListArtifacts(self, request: pb.ListArtifactsRequest, _context: Context) -> pb.ListArtifactsResponse:
        """Lists the artifacts of a step or a run."""
        return await self.artifacts.list(request)

    async def DownloadArtifact(
        self, request: pb.DownloadArtifactRequest, _context: Context
    ) -> AsyncIterator[pb.DownloadArtifactResponse]:
        """Streams the bytes of an artifact."""
        async for response in self.artifacts.download(request):
            yield response

    async def _text(self, node_id: str, stored: Output) -> str:
        try:
            return (await self.outputs.texts({node_id: stored}, MAX_OUTPUT_BYTES))[node_id]
        except NotFound as error:
            raise Unavailable(f"the output of the step cannot be read: {error.message}") from error

    async def _texts(self, run_id: str, stored: Mapping[str, Output]) -> Mapping[str, str] | None:
        """Returns None for outputs that are too large together: they are read step by step."""
        try:
            return await self.outputs.texts(stored, MAX_OUTPUT_BYTES)
        except LimitExceeded:
            return None
        except (NotFound, Unavailable) as error:
            log.warning("output_unreadable", run=run_id, reason=error.message)
            return None

    def _step(self, tx: Transaction, run: Run, step: Step) -> run_pb2.Step:
        key = execution_key(run.id, step.node_id, step.attempt) if step.attempt else ""
        return convert.step(step, self.outlines.get(tx, run.version_id).types[step.node_id], key)

    async def _version_to_run(self, workflow_id: str, version_id: str) -> tuple[WorkflowVersion, Outline]:
        owner_id = visible_owner()

        def read(tx: Transaction) -> tuple[WorkflowVersion, Outline]:
            workflow = found(workflows.get_workflow(tx, workflow_id, owner_id), "workflow", workflow_id)
            wanted = version_id or workflow.pinned_version_id or workflow.current_version_id
            version = workflows.get_version(tx, wanted)
            own = version is not None and version.workflow_id == workflow.id
            version = found(version if own else None, "version", wanted)
            return version, self.outlines.add(version)

        return await self.database.read(read)


def _check_start(request: pb.StartRunRequest, value: object) -> None:
    wrong = list(violations(value, "input"))
    if not wrong and len(to_text(value).encode()) > MAX_BYTES:
        wrong.append(Violation("input", "is larger than 1 MiB"))
    if abs(request.priority) > MAX_PRIORITY:
        wrong.append(Violation("priority", f"must be -{MAX_PRIORITY} to {MAX_PRIORITY}"))
    wrong += wrong_text(request.request_id, "requestId", 0, MAX_REQUEST_ID_LENGTH)
    refuse(wrong, wrong_labels(request.labels, "labels"))


def _digest(request: pb.StartRunRequest, value: object) -> str:
    """Tells requests with the same idempotency key apart: SHA-256 of all that they ask for."""
    asked = [request.workflow_id, request.version_id, value, request.priority, dict(request.labels)]
    return hashlib.sha256(canonical_text(asked).encode()).hexdigest()

"""The calls of `RunService`, a part of `client`."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from towline.v1 import run_service_pb2 as pb
from towline.v1.explanation_pb2 import Explanation
from towline.v1.run_pb2 import Event, LogLine, LogsEnd, Run, Step
from towline_sdk.documents import JsonInput, parse_value
from towline_sdk.pages import FIRST_PAGE, Page
from towline_sdk.transport import Transport


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run is started, beside its input; `request_id` makes repeated starts one run."""

    version_id: str = ""
    priority: int = 0
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    request_id: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass(frozen=True, slots=True)
class RunCalls:
    """Runs, their steps, history and logs."""

    _transport: Transport

    def start(self, workflow_id: str, run_input: JsonInput = None, options: RunOptions | None = None) -> "StartedRun":
        """Starts a run exactly once, however often the call has to be sent: `await` it, or go on with `.watch()`."""
        options = options or RunOptions()
        request = pb.StartRunRequest(
            workflow_id=workflow_id,
            input=parse_value(run_input, "input"),
            version_id=options.version_id,
            priority=options.priority,
            labels=options.labels,
            request_id=options.request_id,
        )
        return StartedRun(self, self._transport.call(request, pb.StartRunResponse))

    async def list(
        self, workflow_id: str = "", state: Run.State = Run.STATE_UNSPECIFIED, page: Page = FIRST_PAGE
    ) -> pb.ListRunsResponse:
        """Returns a page of runs, newest first."""
        request = pb.ListRunsRequest(workflow_id=workflow_id, state=state, page_size=page.size, page_token=page.token)
        return await self._transport.call(request, pb.ListRunsResponse)

    async def get(self, run_id: str) -> Run:
        """Returns a run."""
        request = pb.GetRunRequest(run_id=run_id)
        return (await self._transport.call(request, pb.GetRunResponse)).run

    async def pause(self, run_id: str, *, freeze: bool = False) -> Run:
        """Stops handing out steps of a run; with `freeze` what runs stands still until it is resumed."""
        mode = pb.PauseRunRequest.FREEZE if freeze else pb.PauseRunRequest.DRAIN
        request = pb.PauseRunRequest(run_id=run_id, mode=mode)
        return (await self._transport.call(request, pb.PauseRunResponse)).run

    async def resume(self, run_id: str) -> Run:
        """Hands out the steps of a paused run again."""
        request = pb.ResumeRunRequest(run_id=run_id)
        return (await self._transport.call(request, pb.ResumeRunResponse)).run

    async def cancel(self, run_id: str) -> Run:
        """Cancels a run; steps that run are being stopped when this returns."""
        request = pb.CancelRunRequest(run_id=run_id)
        return (await self._transport.call(request, pb.CancelRunResponse)).run

    async def retry(self, run_id: str) -> Run:
        """Starts a run that did not succeed over from its failed steps."""
        request = pb.RetryRunRequest(run_id=run_id)
        return (await self._transport.call(request, pb.RetryRunResponse)).run

    async def delete(self, run_id: str) -> None:
        """Deletes a run that has ended, for good."""
        await self._transport.call(pb.DeleteRunRequest(run_id=run_id), pb.DeleteRunResponse)

    async def steps(self, run_id: str) -> pb.ListStepsResponse:
        """Returns all steps of a run in the order of the DAG's nodes."""
        whole = pb.ListStepsResponse()
        request = pb.ListStepsRequest(run_id=run_id)
        while True:
            page = await self._transport.call(request, pb.ListStepsResponse)
            whole.steps.extend(page.steps)
            if not page.next_page_token:
                return whole
            request.page_token = page.next_page_token

    async def step(self, run_id: str, node_id: str) -> Step:
        """Returns a step with all its attempts."""
        request = pb.GetStepRequest(run_id=run_id, node_id=node_id)
        return (await self._transport.call(request, pb.GetStepResponse)).step

    async def explain(self, run_id: str, node_id: str) -> Explanation:
        """Returns why a step is not running."""
        request = pb.ExplainStepRequest(run_id=run_id, node_id=node_id)
        return (await self._transport.call(request, pb.ExplainStepResponse)).explanation

    async def result(self, run_id: str) -> Run:
        """Returns a run once it has ended, however it did."""
        async for _ in self.watch(run_id):
            pass
        return await self.get(run_id)

    async def watch(self, run_id: str) -> AsyncIterator[Event]:
        """Yields the history of a run from its start, each event once, up to the one that ends the run."""

        def request(cursor: str) -> pb.WatchRunRequest:
            return pb.WatchRunRequest(run_id=run_id, cursor=cursor)

        async for answer in self._transport.follow(request, pb.WatchRunResponse):
            yield answer.event

    async def logs(
        self,
        run_id: str,
        node_id: str = "",
        *,
        follow: bool = False,
        on_end: Callable[[LogsEnd], None] = lambda end: None,
    ) -> AsyncIterator[LogLine]:
        """Yields log lines from the start, each once; with `follow` until the run has ended.

        `on_end` is told behind the last one whether the logs are complete.
        """

        def request(cursor: str) -> pb.TailLogsRequest:
            return pb.TailLogsRequest(run_id=run_id, node_id=node_id, follow=follow, cursor=cursor)

        async for answer in self._transport.follow(request, pb.TailLogsResponse):
            if answer.HasField("end"):
                on_end(answer.end)
            for each in answer.batch or (answer,):
                if each.HasField("line"):
                    yield each.line


class StartedRun:
    """A run from its start on. It is sent once, when it is first awaited or followed; then `id` and `run` are known."""

    def __init__(self, runs: RunCalls, starting: Coroutine[Any, Any, pb.StartRunResponse]) -> None:
        self._runs = runs
        self._starting = starting
        self._task: asyncio.Future[pb.StartRunResponse] | None = None

    def __await__(self) -> Generator[Any, None, Self]:
        yield from self._started().__await__()
        return self

    @property
    def run(self) -> Run:
        """The run as it was started; raises RuntimeError before that."""
        if self._task is None or not self._task.done():
            raise RuntimeError("the run has not been started yet: await it first")
        return self._task.result().run

    @property
    def id(self) -> str:
        """The id of the run."""
        return self.run.id

    async def result(self) -> Run:
        """Returns the run once it has ended, however it did."""
        return await self._runs.result(await self._started())

    async def watch(self) -> AsyncIterator[Event]:
        """Yields the history of the run, as `RunCalls.watch`."""
        async for event in self._runs.watch(await self._started()):
            yield event

    async def logs(self, node_id: str = "", *, follow: bool = True) -> AsyncIterator[LogLine]:
        """Yields the log lines of the run, as `RunCalls.logs`; until it has ended, unless told otherwise."""
        async for line in self._runs.logs(await self._started(), node_id, follow=follow):
            yield line

    async def _started(self) -> str:
        if self._task is None:
            self._task = asyncio.ensure_future(self._starting)
        return (await self._task).run.id

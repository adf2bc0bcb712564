"""Whether a step costs the same in a large run as in a small one, and what accepting and starting a large run costs.

    python -m bench.run_size [sqlite,postgres]

Costs are this process's CPU: of a step through the orchestrator, one report in flight; and from the bytes of a request
as they come off the wire to the committed workflow, and then to the committed run.
"""

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from google.protobuf import json_format

from bench.dags import Document, chain, layered, wide
from bench.figures import Cost, Stopwatch, spread, table
from bench.plant import OWNER, Plant, plant
from bench.store import Store, stores
from towline.v1 import run_service_pb2, workflow_service_pb2
from towline_controlplane.blobs import FolderBlobs
from towline_controlplane.bus import InProcessDoorbell
from towline_controlplane.errors import InvalidState
from towline_controlplane.log_archive import LogArchive
from towline_controlplane.model import WorkflowVersion
from towline_controlplane.outputs import Outputs
from towline_controlplane.services.callers import enter_user
from towline_controlplane.services.log_streams import LogStreams
from towline_controlplane.services.outlines import Outlines
from towline_controlplane.services.run_artifacts import RunArtifacts
from towline_controlplane.services.run_streams import RunStreams
from towline_controlplane.services.runs import RunService
from towline_controlplane.services.workflows import WorkflowService

_LARGE, _SMALL = 10_000, 10
_SHAPES: dict[str, Callable[[int], Document]] = {"chain": chain, "wide": wide, "layered": layered}
_STEPS = 200
_TRIALS = 5


async def step_costs(store: Store, shape: Callable[[int], Document]) -> tuple[list[Cost], list[Cost]]:
    """Returns what steps cost in small runs and in a large one."""
    async with plant(store) as control_plane:
        small = await control_plane.workflow(shape(_SMALL))
        large = await control_plane.workflow(shape(_LARGE))
        in_small = [await _cost(control_plane, small, _STEPS // _SMALL + 2) for _ in range(_TRIALS)]
        in_large = [await _cost(control_plane, large, 1) for _ in range(_TRIALS)]
        return in_small, in_large


async def _cost(control_plane: Plant, version: WorkflowVersion, runs: int) -> Cost:
    started = await control_plane.start(version, runs)
    (agent,) = await control_plane.agents([1])
    await agent.exchange()
    watch = Stopwatch()
    for _ in range(_STEPS):
        await agent.exchange()
    cost = watch.cost(_STEPS)
    for run in started:
        with contextlib.suppress(InvalidState):  # it has ended
            await control_plane.orchestrator.cancel(run.id, None)
    await agent.exchange()
    return cost


async def start_cost(store: Store, document: Document) -> tuple[Cost, Cost]:
    """Returns what it costs to accept a workflow, and to start a run of it."""
    with tempfile.TemporaryDirectory(prefix="towline-bench-") as folder:
        async with plant(store) as control_plane:
            database, orchestrator = control_plane.database, control_plane.orchestrator
            workflows = WorkflowService(database)
            blobs, bell = FolderBlobs(Path(folder)), InProcessDoorbell()
            runs = RunService(
                database,
                orchestrator,
                RunStreams(database, bell),
                Outlines(),
                Outputs(database, blobs),
                LogStreams(database, bell, LogArchive(database, blobs, Path(folder))),
                RunArtifacts(database, blobs),
            )
            enter_user(OWNER)
            bytes_of_request = json_format.ParseDict(
                {"name": "large", "dag": document}, workflow_service_pb2.CreateWorkflowRequest()
            ).SerializeToString()
            context: Any = None
            watch = Stopwatch()
            request = workflow_service_pb2.CreateWorkflowRequest.FromString(bytes_of_request)
            created = await workflows.CreateWorkflow(request, context)
            accepted = watch.cost(1)
            watch = Stopwatch()
            await runs.StartRun(run_service_pb2.StartRunRequest(workflow_id=created.workflow.id), context)
            return accepted, watch.cost(1)


def main() -> None:
    steps: list[list[str]] = []
    starts: list[list[str]] = []
    for name in (sys.argv[1] if len(sys.argv) > 1 else "sqlite,postgres").split(","):
        for shape, build in _SHAPES.items():
            for store in stores(name):
                small, large = asyncio.run(step_costs(store, build))
                ratio = median(cost.cpu_us for cost in large) / median(cost.cpu_us for cost in small)
                cells = (spread(cost.cpu_us for cost in costs) for costs in (small, large))
                steps.append([f"{store.name}, {shape}", *cells, f"{ratio:.2f}"])
            for store in stores(name):
                accepted, started = asyncio.run(start_cost(store, build(_LARGE)))
                total = accepted.cpu + started.cpu
                starts.append([f"{store.name}, {shape}", *(f"{s:.2f}" for s in (accepted.cpu, started.cpu, total))])
    print(table(["CPU µs per step", f"{_SMALL} nodes", f"{_LARGE:,} nodes", "ratio"], steps), end="\n\n")
    print(table([f"{_LARGE:,} nodes, CPU s", "accept", "start", "both"], starts))


if __name__ == "__main__":
    main()

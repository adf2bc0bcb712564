"""Starts a run and follows it while it goes on.

TOWLINE_SERVER=127.0.0.1:50051 TOWLINE_TOKEN=… python examples/sdk/follow_a_run.py
"""

import asyncio
import os

from greeting import GREETING

from towline.v1.run_pb2 import Event, Run
from towline_sdk.client import Client
from towline_sdk.documents import plain_value


async def main() -> None:
    async with Client(os.environ["TOWLINE_SERVER"], os.environ["TOWLINE_TOKEN"]) as client:
        workflow = await client.workflows.create(GREETING.document())
        started = client.runs.start(workflow.id, {"name": " ada "})
        async for event in started.watch():
            print(Event.Type.Name(event.type), event.node_id)
        run = await started.result()
        print(Run.State.Name(run.state), plain_value(run.output))


if __name__ == "__main__":
    asyncio.run(main())

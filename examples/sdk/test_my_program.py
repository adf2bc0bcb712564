"""How a program that uses Towline is tested: plugins are functions, the server is in this process.

pytest examples/sdk/test_my_program.py
"""

from typing import Any

from towline.v1.run_pb2 import Run
from towline_sdk.blocking import BlockingClient
from towline_sdk.documents import plain_value
from towline_sdk.testing import FakeControlPlane
from towline_sdk.workflow import Node, Workflow, cel


def import_orders(client: BlockingClient, day: str) -> int:
    """The program: has a day's orders loaded by a plugin and says how many there were."""
    flow = Workflow(name="orders", nodes=[Node("load", "load-orders", {"day": cel("input.day")})])
    run = client.runs.start(client.workflows.create(flow.document()).id, {"day": day}).result()
    loaded: Any = plain_value(run.output)
    return loaded["load"]["count"] if run.state == Run.SUCCEEDED else 0


def test_orders_are_counted() -> None:
    def load_orders(config: dict[str, str], log: Any) -> dict[str, int]:
        log(f"loading {config['day']}")
        return {"count": 3}

    with FakeControlPlane({"load-orders": load_orders}) as fake, BlockingClient(fake.address, fake.token) as client:
        assert import_orders(client, "2026-01-31") == 3
        (run,) = fake.runs()
        assert [line.text for line in client.runs.logs(run.id)] == ["loading 2026-01-31"]

"""The same without an event loop: every call returns when it is done.

TOWLINE_SERVER=127.0.0.1:50051 TOWLINE_TOKEN=… python examples/sdk/without_an_event_loop.py
"""

import os

from greeting import GREETING

from towline_sdk.blocking import BlockingClient
from towline_sdk.documents import plain_value
from towline_sdk.errors import NotFoundError


def main() -> None:
    with BlockingClient(os.environ["TOWLINE_SERVER"], os.environ["TOWLINE_TOKEN"]) as client:
        workflow = client.workflows.create(GREETING.document())
        run = client.runs.start(workflow.id, {"name": "ada"}).result()
        print(plain_value(run.output))
        for step in client.runs.steps(run.id).steps:
            print(step.node_id, step.attempt)
        try:
            client.runs.get("no-such-run")
        except NotFoundError as error:
            print(error)


if __name__ == "__main__":
    main()

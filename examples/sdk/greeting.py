"""A workflow as plain objects: two nodes, an edge with a condition, and what is said of it offline.

python examples/sdk/greeting.py
"""

import json

from towline_sdk.workflow import Edge, Node, RetryConfig, Workflow, cel, when

GREETING = Workflow(
    name="greeting",
    nodes=[
        Node(
            "shout",
            "TEXT_TRANSFORM",
            {"transform": "uppercase", "text": cel("input.name")},
            retry_config=RetryConfig(max_attempts=5),
        ),
        Node("tidy", "TEXT_TRANSFORM", {"transform": "trim"}),
    ],
    edges=[Edge("shout", "tidy", when("nodes.shout.output.text != ''"))],
    timeout_ms=60_000,
)

if __name__ == "__main__":
    GREETING.document()  # raises InvalidDocumentError if a server would refuse it
    print(json.dumps(GREETING.to_json(), indent=2))

"""Queues and the agents that may claim from them (I20)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline_controlplane.engine.placement import queue_id, satisfies

labels = st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=4)


@given(labels)
def test_equal_requirements_are_one_queue_in_any_order(required: dict[str, str]) -> None:
    backwards = dict(reversed(required.items()))
    assert queue_id(required) == queue_id(backwards)


@given(labels, labels)
def test_different_requirements_are_different_queues(left: dict[str, str], right: dict[str, str]) -> None:
    assert (queue_id(left) == queue_id(right)) == (left == right)


def test_the_id_of_a_queue_is_the_same_in_every_process() -> None:
    assert queue_id({}) == "80fe33d67f23acbe"
    assert queue_id({"zone": "eu", "gpu": "yes"}) == "3ae3127050ce968c"


@pytest.mark.parametrize(
    ("agent", "required", "may_claim"),
    [
        ({}, {}, True),
        ({"gpu": "yes"}, {}, True),
        ({"gpu": "yes", "zone": "eu"}, {"gpu": "yes"}, True),
        ({"gpu": "yes"}, {"gpu": "yes", "zone": "eu"}, False),
        ({"gpu": "no"}, {"gpu": "yes"}, False),
        ({}, {"gpu": ""}, False),
        ({"gpu": ""}, {"gpu": ""}, True),
    ],
)
def test_an_agent_claims_where_it_carries_every_label(
    agent: dict[str, str], required: dict[str, str], may_claim: bool
) -> None:
    assert satisfies(agent, required) is may_claim


@given(labels, labels)
def test_more_labels_never_cost_an_agent_work(agent: dict[str, str], required: dict[str, str]) -> None:
    assert satisfies(agent | required, required)

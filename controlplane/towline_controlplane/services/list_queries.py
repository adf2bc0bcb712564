"""What lists are narrowed to and ordered by, as requests say it: checked, in the words of the store."""

from collections.abc import Iterable, Mapping
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from towline.v1 import run_pb2
from towline.v1.run_service_pb2 import ListRunsRequest
from towline.v1.workflow_service_pb2 import ListWorkflowsRequest
from towline_controlplane.errors import InvalidArgument, Violation
from towline_controlplane.model import RunState
from towline_controlplane.services.checks import refuse, wrong_text
from towline_controlplane.store.keysets import NEWEST_FIRST, Order
from towline_controlplane.store.run_lists import BY_END, RunFilter
from towline_controlplane.store.workflows import WorkflowFilter

MAX_PREFIX_LENGTH: Final = 200
MAX_LABELS: Final = 10
MAX_LABEL_LENGTH: Final = 500
_MAX_SECONDS: Final = 253_402_300_799
"""The end of the year 9999, as protobuf bounds its times."""

RUN_ORDERS: Final[Mapping[int, Order]] = {
    ListRunsRequest.ORDER_BY_UNSPECIFIED: NEWEST_FIRST,
    ListRunsRequest.CREATE_TIME_DESC: NEWEST_FIRST,
    ListRunsRequest.CREATE_TIME_ASC: Order("create_time"),
    ListRunsRequest.END_TIME_DESC: Order(BY_END, descending=True),
    ListRunsRequest.END_TIME_ASC: Order(BY_END),
}
WORKFLOW_ORDERS: Final[Mapping[int, Order]] = {
    ListWorkflowsRequest.ORDER_BY_UNSPECIFIED: NEWEST_FIRST,
    ListWorkflowsRequest.CREATE_TIME_DESC: NEWEST_FIRST,
    ListWorkflowsRequest.CREATE_TIME_ASC: Order("create_time"),
    ListWorkflowsRequest.NAME_ASC: Order("name"),
    ListWorkflowsRequest.NAME_DESC: Order("name", descending=True),
    ListWorkflowsRequest.UPDATE_TIME_DESC: Order("update_time", descending=True),
    ListWorkflowsRequest.UPDATE_TIME_ASC: Order("update_time"),
}


def order_of(orders: Mapping[int, Order], number: int) -> Order:
    """Returns the order that an enum names; raises InvalidArgument for one that is not known."""
    if number not in orders:
        raise InvalidArgument.of("orderBy", f"has the unknown value {number}")
    return orders[number]


def key_shape(order: Order) -> tuple[type, type]:
    """Returns the types of a place in the order, by which a page token is checked."""
    return (str if order.column == "name" else int, str)


def run_filter(request: ListRunsRequest, owner_id: str | None) -> RunFilter:
    """Returns what the runs of a request are narrowed to; raises InvalidArgument."""
    states = _states([request.state] if request.state else [], "state") | _states(request.states, "states")
    wrong = [
        *_wrong_time(request.created_after, "createdAfter"),
        *_wrong_time(request.created_before, "createdBefore"),
        *_wrong_labels(request.labels),
    ]
    refuse(wrong)
    return RunFilter(
        owner_id,
        request.workflow_id or None,
        states,
        _micros(request.created_after) if request.HasField("created_after") else None,
        -_micros(request.created_before, -1) if request.HasField("created_before") else None,
        dict(_label(each) for each in request.labels),
    )


def workflow_filter(request: ListWorkflowsRequest, owner_id: str | None) -> WorkflowFilter:
    """Returns what the workflows of a request are narrowed to; raises InvalidArgument."""
    refuse(wrong_text(request.name_prefix, "namePrefix", 0, MAX_PREFIX_LENGTH))
    return WorkflowFilter(owner_id, request.name_prefix)


def _states(numbers: Iterable[int], field: str) -> frozenset[RunState]:
    names = run_pb2.Run.State.DESCRIPTOR.values_by_number
    for number in (numbers := frozenset(numbers)):
        if number not in names or number == run_pb2.Run.STATE_UNSPECIFIED:
            raise InvalidArgument.of(field, f"has the unknown value {number}")
    return frozenset(RunState(names[number].name) for number in numbers)


def _micros(time: Timestamp, sign: int = 1) -> int:
    """Rounds towards the past; the negative of a time with `sign` -1, and so the time towards the future."""
    return sign * time.seconds * 1_000_000 + sign * time.nanos // 1_000


def _wrong_time(time: Timestamp, field: str) -> list[Violation]:
    within = 0 <= time.seconds <= _MAX_SECONDS and 0 <= time.nanos < 1_000_000_000
    return [] if within else [Violation(field, "must be a time from 1970 to 9999")]


def _wrong_labels(labels: Iterable[str]) -> list[Violation]:
    labels = list(labels)
    if len(labels) > MAX_LABELS:
        return [Violation("labels", f"must not be more than {MAX_LABELS}")]
    wrong: list[Violation] = []
    for index, label in enumerate(labels):
        place = f"labels[{index}]"
        wrong += wrong_text(label, place, 1, MAX_LABEL_LENGTH)
        wrong += [] if _label(label)[0] and "=" in label else [Violation(place, "must be `key=value`")]
    if not wrong and len({_label(each)[0] for each in labels}) < len(labels):
        return [Violation("labels", "name a key twice")]
    return wrong


def _label(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    return key, value

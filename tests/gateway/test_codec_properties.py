"""Whatever a message holds, its JSON stands for it; whatever JSON is thrown at a message, the codec has an answer."""

import contextlib
import json
from typing import Any

from gateway_kinds import Kinds, printed
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from towline.v1 import agent_pb2, plugin_pb2, run_pb2, user_pb2, workflow_pb2
from towline.v1.run_service_pb2 import StartRunRequest
from towline_gateway.codec import InvalidFieldsError, decode, encode, parse
from towline_gateway.codec.decode import is_map
from towline_gateway.codec.scalars import MAX_EXACT_INTEGER, enum_names
from towline_gateway.contract import message_class

F = FieldDescriptor
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
FINITE = st.floats(allow_nan=False, allow_infinity=False).map(lambda number: number + 0.0)  # −0 is shown as 0
SAFE = st.integers(-MAX_EXACT_INTEGER, MAX_EXACT_INTEGER)
FREE = st.recursive(
    st.none() | st.booleans() | SAFE | FINITE | TEXT,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(TEXT, below, max_size=3),
    max_leaves=8,
)
SCALARS: dict[int, st.SearchStrategy[Any]] = {
    F.TYPE_BOOL: st.booleans(),
    F.TYPE_BYTES: st.binary(max_size=8),
    F.TYPE_DOUBLE: FINITE,
    F.TYPE_FLOAT: st.floats(allow_nan=False, allow_infinity=False, width=32),
    F.TYPE_STRING: TEXT,
    **dict.fromkeys((F.TYPE_INT32, F.TYPE_SFIXED32, F.TYPE_SINT32), st.integers(-(2**31), 2**31 - 1)),
    **dict.fromkeys((F.TYPE_INT64, F.TYPE_SFIXED64, F.TYPE_SINT64), st.integers(-(2**63), 2**63 - 1)),
    **dict.fromkeys((F.TYPE_UINT32, F.TYPE_FIXED32), st.integers(0, 2**32 - 1)),
    **dict.fromkeys((F.TYPE_UINT64, F.TYPE_FIXED64), st.integers(0, 2**64 - 1)),
}


def _well_known(draw: st.DrawFn, message: Any) -> bool:
    """Fills a message of `google.protobuf`; tells whether it was one."""
    match message.DESCRIPTOR.full_name:
        case "google.protobuf.Timestamp":
            message.seconds = draw(st.integers(-62_135_596_800, 253_402_300_799))
            message.nanos = draw(st.integers(0, 999_999_999))
        case "google.protobuf.Duration":
            sign = draw(st.sampled_from((-1, 1)))
            message.seconds = sign * draw(st.integers(0, 315_576_000_000))
            message.nanos = sign * draw(st.integers(0, 999_999_999)) if abs(message.seconds) < 315_576_000_000 else 0
        case "google.protobuf.Struct":
            message.update(draw(st.dictionaries(TEXT, FREE, max_size=3)))
        case "google.protobuf.ListValue":
            message.extend(draw(st.lists(FREE, max_size=3)))
        case "google.protobuf.Value":
            holder = type(message)(list_value={"values": []})
            holder.list_value.append(draw(FREE))
            message.CopyFrom(holder.list_value.values[0])
        case _:
            return False
    return True


def _fill(draw: st.DrawFn, message: Any, depth: int) -> None:
    if _well_known(draw, message):
        return
    descriptor: Descriptor = message.DESCRIPTOR
    chosen = draw(st.sets(st.sampled_from(list(descriptor.fields)), max_size=12)) if descriptor.fields else ()
    for field in sorted(chosen, key=lambda each: each.number):
        if is_map(field):
            _fill_map(draw, field, getattr(message, field.name), depth)
        elif field.message_type:
            _fill_messages(draw, field, message, depth)
        elif field.is_repeated:
            getattr(message, field.name).extend(draw(st.lists(_scalar(field), max_size=3)))
        else:
            setattr(message, field.name, draw(_scalar(field)))


def _fill_map(draw: st.DrawFn, field: FieldDescriptor, entries: Any, depth: int) -> None:
    assert field.message_type is not None
    key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
    for name in draw(st.lists(_scalar(key), max_size=2)):
        if not value.message_type:
            entries[name] = draw(_scalar(value))
        elif depth or value.message_type.full_name.startswith("google."):
            _fill(draw, entries[name], depth - 1)


def _fill_messages(draw: st.DrawFn, field: FieldDescriptor, message: Any, depth: int) -> None:
    assert field.message_type is not None
    if not depth and not field.message_type.full_name.startswith("google."):
        return
    if field.is_repeated:
        for _ in range(draw(st.integers(0, 2))):
            _fill(draw, getattr(message, field.name).add(), depth - 1)
    else:
        getattr(message, field.name).SetInParent()
        _fill(draw, getattr(message, field.name), depth - 1)


def _scalar(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.enum_type:
        names = enum_names(field.enum_type)
        return st.sampled_from([field.enum_type.values_by_name[name].number for name in names])
    return SCALARS[field.type]


@st.composite
def messages(draw: st.DrawFn, kind: Any) -> Any:
    message = kind()
    _fill(draw, message, depth=3)
    return message


TYPES = [
    agent_pb2.Agent,
    plugin_pb2.Plugin,
    run_pb2.Event,
    run_pb2.LogLine,
    run_pb2.Run,
    run_pb2.Step,
    user_pb2.User,
    workflow_pb2.Dag,
    workflow_pb2.Workflow,
    Kinds,
]


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(TYPES).flatmap(messages))
def test_json_stands_for_its_message(message: Any) -> None:
    kind: Any = message.__class__
    assert decode(kind, parse(encode(message).encode())) == message


NAMES = st.sampled_from(sorted({field.json_name for each in TYPES for field in each.DESCRIPTOR.fields}))
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda below: (
        st.lists(below, max_size=3)
        | st.dictionaries(NAMES, below, max_size=4)
        | st.dictionaries(st.text(max_size=4), below, max_size=2)
    ),
    max_leaves=20,
)


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(TYPES), ANY_JSON)
def test_any_json_is_read_or_refused_and_what_is_read_can_be_printed(kind: Any, tree: Any) -> None:
    with contextlib.suppress(InvalidFieldsError):
        message = decode(kind, tree)
        assert decode(kind, parse(encode(message).encode())) == message


@settings(max_examples=200, deadline=None)
@given(FREE)
def test_free_json_comes_back_as_it_was(value: Any) -> None:
    text = json.dumps({"input": value}).encode()
    shown = printed(decode(StartRunRequest, parse(text)))
    assert isinstance(shown, dict)
    assert shown["input"] == value


def test_every_message_of_the_contract_can_be_read_and_printed() -> None:
    for module in (agent_pb2, plugin_pb2, run_pb2, user_pb2, workflow_pb2):
        for descriptor in module.DESCRIPTOR.message_types_by_name.values():
            kind = message_class(descriptor)
            assert decode(kind, printed(kind())) == kind()


@given(st.integers(-62_135_596_800, 253_402_300_799), st.integers(0, 999_999_999), st.sampled_from([1, 1_000, 10**6]))
def test_times_are_printed_as_protobuf_prints_them(seconds: int, nanos: int, unit: int) -> None:
    time = Timestamp(seconds=seconds, nanos=nanos // unit * unit)
    assert encode(time) == f'"{time.ToJsonString()}"'

"""The codec, as tables: what is read from JSON and what is refused, with the exact place."""

from typing import Any

import pytest
from gateway_kinds import printed
from google.protobuf.any_pb2 import Any as PackedAny
from google.protobuf.struct_pb2 import ListValue, Struct, Value

from towline.v1.agent_admin_service_pb2 import CreateEnrollmentTokenRequest
from towline.v1.auth_service_pb2 import LoginResponse
from towline.v1.plugin_service_pb2 import PushPluginRequest
from towline.v1.run_pb2 import Attempt, Run, Usage
from towline.v1.run_service_pb2 import StartRunRequest
from towline.v1.workflow_pb2 import Condition, Edge, Limits, Node, RetryConfig
from towline.v1.workflow_service_pb2 import CreateWorkflowRequest, UpdateWorkflowRequest
from towline_gateway.codec import InvalidFieldsError, MalformedJsonError, decode, encode, parse
from towline_gateway.codec.violations import MAX_VIOLATIONS

NESTED = Value()
NESTED.struct_value.update({"a": [1, None, True, "x", {}]})

ACCEPTED: list[tuple[str, Any]] = [
    ("{}", Node()),
    ('{"id":"a","type":"T"}', Node(id="a", type="T")),
    ('{"id":"","join":null,"labels":null,"config":null}', Node()),
    ('{"join":"ALL_DONE"}', Node(join=Node.ALL_DONE)),
    ('{"timeoutMs":9223372036854775807}', Node(timeout_ms=2**63 - 1)),
    ('{"timeoutMs":"9223372036854775807"}', Node(timeout_ms=2**63 - 1)),
    ('{"timeoutMs":"-5"}', Node(timeout_ms=-5)),
    ('{"timeoutMs":1e3,"memoryLimitMb":2.0}', Node(timeout_ms=1000, memory_limit_mb=2)),
    ('{"labels":{"team/x":"é","":"e"}}', Node(labels={"team/x": "é", "": "e"})),
    ('{"config":{}}', Node(config=Struct())),
    ('{"id":"\\ud83d\\ude00"}', Node(id="😀")),
    (
        '{"from":"a","to":"b","condition":{"type":"ALWAYS"}}',
        Edge(source="a", target="b", condition=Condition(type=Condition.ALWAYS)),
    ),
    ('{"backoffMs":0}', RetryConfig(backoff_ms=0)),
    ('{"backoffMultiplier":2}', RetryConfig(backoff_multiplier=2.0)),
    ('{"backoffMultiplier":1.5e1}', RetryConfig(backoff_multiplier=15.0)),
    ('{"name":"","description":null}', UpdateWorkflowRequest(name="")),
    ('{"input":null}', StartRunRequest(input=Value(null_value=0))),  # pyright: ignore[reportArgumentType]
    ('{"input":{"a":[1,null,true,"x",{}]}}', StartRunRequest(input=NESTED)),
    ('{"input":9007199254740991}', StartRunRequest(input=Value(number_value=2**53 - 1))),
    ('{"input":-1.5e300}', StartRunRequest(input=Value(number_value=-1.5e300))),
    ('{"input":[]}', StartRunRequest(input=Value(list_value=ListValue()))),
    ('{"chunk":"AAEC/w=="}', PushPluginRequest(chunk=b"\x00\x01\x02\xff")),
]


@pytest.mark.parametrize(("text", "message"), ACCEPTED, ids=[text for text, _ in ACCEPTED])
def test_accepted(text: str, message: Any) -> None:
    kind: Any = message.__class__
    assert decode(kind, parse(text.encode())) == message


UTC = 1_769_851_800  # 2026-01-31T09:30:00Z
TIMES = [
    ("2026-01-31T09:30:00Z", UTC, 0),
    ("2026-01-31T09:30:00.5Z", UTC, 500_000_000),
    ("2026-01-31T09:30:00.123456789Z", UTC, 123_456_789),
    ("2026-01-31T10:30:00+01:00", UTC, 0),
    ("0001-01-01T00:00:00Z", -62_135_596_800, 0),
]


@pytest.mark.parametrize(("text", "seconds", "nanos"), TIMES)
def test_times_are_rfc_3339_to_the_nanosecond(text: str, seconds: int, nanos: int) -> None:
    read = decode(Run, {"createTime": text})
    assert (read.create_time.seconds, read.create_time.nanos) == (seconds, nanos)
    assert decode(Run, printed(read)) == read


REFUSED: list[tuple[Any, str, list[tuple[str, str]]]] = [
    (Node, "[]", [("", "must be an object, not an array")]),
    (Node, "null", [("", "must be an object, not null")]),
    (Node, '{"nope":1}', [("nope", "is not a known field")]),
    (Node, '{"retry_config":{}}', [("retry_config", "is not a known field")]),
    (Node, '{"a b":1}', [('["a b"]', "is not a known field")]),
    (Node, '{"\\ud800":1}', [('["?"]', "is not a known field")]),
    (Node, f'{{"{"x" * 9999}":1}}', [("x" * 100, "is not a known field")]),
    (Edge, '{"source":"a"}', [("source", "is not a known field")]),
    (Node, '{"id":1}', [("id", "must be a string, not a number")]),
    (Node, '{"id":"a\\u0000"}', [("id", "must not contain NUL")]),
    (Node, '{"id":"é\\u0000"}', [("id", "must not contain NUL")]),
    (Node, '{"id":"\\ud800"}', [("id", "must not contain an unpaired surrogate")]),
    (Node, '{"id":"a","id":"a"}', [("id", "is given more than once")]),
    (Node, '{"retryConfig":[]}', [("retryConfig", "must be an object, not an array")]),
    (Node, '{"labels":{"a":1,"b":null}}', [("labels.a", "must be a string"), ("labels.b", "must be a string")]),
    (Node, '{"labels":{"a":"1","a":"2"}}', [("labels.a", "is given more than once")]),
    (Node, '{"labels":[]}', [("labels", "must be an object, not an array")]),
    (Node, '{"labels":{"\\ud800":"x"}}', [('labels["?"]', "must not contain an unpaired")]),
    (Node, '{"join":"NOPE"}', [("join", "must be one of ALL, ANY, ALL_DONE")]),
    (Node, '{"join":"JOIN_UNSPECIFIED"}', [("join", "must be one of ALL, ANY, ALL_DONE")]),
    (Node, '{"join":1}', [("join", "must be one of")]),
    (Node, '{"memoryLimitMb":2147483648}', [("memoryLimitMb", "must be within -2147483648 and 2147483647")]),
    (Node, '{"memoryLimitMb":"5"}', [("memoryLimitMb", "must be an integer, not a string")]),
    (Node, '{"memoryLimitMb":1.5}', [("memoryLimitMb", "must be an integer, not a fraction")]),
    (Node, '{"memoryLimitMb":NaN}', [("memoryLimitMb", "must be an integer")]),
    (Node, '{"memoryLimitMb":true}', [("memoryLimitMb", "must be an integer, not a boolean")]),
    (Node, '{"timeoutMs":9223372036854775808}', [("timeoutMs", "must be within")]),
    (Node, '{"timeoutMs":"9223372036854775808"}', [("timeoutMs", "must be within")]),
    (Node, '{"timeoutMs":"1.5"}', [("timeoutMs", "must be an integer, not a string")]),
    (Node, '{"timeoutMs":"٣"}', [("timeoutMs", "must be an integer, not a string")]),
    (RetryConfig, '{"backoffMultiplier":"2"}', [("backoffMultiplier", "must be a number, not a string")]),
    (RetryConfig, '{"backoffMultiplier":1e999}', [("backoffMultiplier", "must be a finite number")]),
    (RetryConfig, '{"backoffMultiplier":-Infinity}', [("backoffMultiplier", "must be a finite number")]),
    (RetryConfig, f'{{"backoffMultiplier":1{"0" * 400}}}', [("backoffMultiplier", "must be a finite number")]),
    (Run, '{"createTime":"yesterday"}', [("createTime", "must be an RFC 3339 time")]),
    (Run, '{"createTime":"2026-02-30T00:00:00Z"}', [("createTime", "must be an RFC 3339 time")]),
    (Run, '{"createTime":"2026-01-31 09:30:00Z"}', [("createTime", "must be an RFC 3339 time")]),
    (Run, '{"createTime":1769851800}', [("createTime", "must be an RFC 3339 time")]),
    (Run, '{"cancelRequested":"true"}', [("cancelRequested", "must be true or false, not a string")]),
    (CreateEnrollmentTokenRequest, '{"lifetime":60}', [("lifetime", "must be seconds with the suffix s")]),
    (CreateEnrollmentTokenRequest, '{"lifetime":"999999999999s"}', [("lifetime", "must be seconds")]),
    (Node, '{"config":1}', [("config", "must be an object, not a number")]),
    (Node, '{"config":{"a":NaN}}', [("config.a", "must be a finite number")]),
    (Node, '{"config":{"a":{"b c":[1,1e400]}}}', [('config.a["b c"][1]', "must be a finite number")]),
    (Node, '{"config":{"a":9007199254740992}}', [("config.a", "must be an integer within ±(2^53−1)")]),
    (Node, '{"config":{"a":"\\u0000"}}', [("config.a", "must not contain NUL")]),
    (Node, '{"config":{"\\u0000":1}}', [("config", "a name in it must not contain NUL")]),
    (Node, '{"config":{"a":1,"a":2}}', [("config.a", "is given more than once")]),
    (StartRunRequest, '{"input":{"a":["\\ud800x"]}}', [("input.a[0]", "must not contain an unpaired surrogate")]),
    (PushPluginRequest, '{"chunk":"%"}', [("chunk", "must be a base64 string")]),
    (PushPluginRequest, '{"chunk":"AA"}', [("chunk", "must be a base64 string")]),
    (
        CreateWorkflowRequest,
        '{"dag":{"nodes":[{"id":"a"},{"retryConfig":{"maxAttempts":"x"}},7],"edges":[{"condition":{"type":"Y"}}]}}',
        [
            ("dag.nodes[1].retryConfig.maxAttempts", "must be an integer, not a string"),
            ("dag.nodes[2]", "must be an object, not a number"),
            ("dag.edges[0].condition.type", "must be one of ALWAYS, ON_SUCCESS, ON_FAILURE, EXPRESSION"),
        ],
    ),
    (CreateWorkflowRequest, '{"dag":{"nodes":{}}}', [("dag.nodes", "must be an array, not an object")]),
    (CreateWorkflowRequest, '{"dag":{"nodes":[null]}}', [("dag.nodes[0]", "must be an object, not null")]),
]


@pytest.mark.parametrize(("message", "text", "expected"), REFUSED, ids=[text[:60] for _, text, _ in REFUSED])
def test_refused_with_the_exact_place(message: Any, text: str, expected: list[tuple[str, str]]) -> None:
    with pytest.raises(InvalidFieldsError) as caught:
        decode(message, parse(text.encode()))
    found = [(each.field, each.message) for each in caught.value.violations]
    assert [field for field, _ in found] == [field for field, _ in expected]
    for (_, complaint), (_, start) in zip(found, expected, strict=True):
        assert complaint.startswith(start)


def test_only_as_many_violations_as_a_person_reads() -> None:
    with pytest.raises(InvalidFieldsError) as caught:
        decode(Node, {f"x{number}": number for number in range(1000)})
    assert len(caught.value.violations) == MAX_VIOLATIONS


@pytest.mark.parametrize(("depth", "fits"), [(32, True), (33, False)])
@pytest.mark.parametrize("bracket", ["[]", "{}"])
def test_free_json_is_bounded_in_depth(depth: int, bracket: str, fits: bool) -> None:
    opening, closing = ("[", "]") if bracket == "[]" else ('{"x":', "}")
    text = f'{{"input":{opening * depth}1{closing * depth}}}'
    if fits:
        assert decode(StartRunRequest, parse(text.encode())).HasField("input")
        return
    with pytest.raises(InvalidFieldsError, match="must not be nested deeper than 32 levels"):
        decode(StartRunRequest, parse(text.encode()))


def test_everything_that_has_a_value_by_nature_is_printed() -> None:
    assert printed(Attempt(usage=Usage())) == {
        "number": 0,
        "executionKey": "",
        "agentId": "",
        "epoch": 0,
        "memoryLimitMb": 0,
        "usage": {"peakMemoryBytes": 0, "cpuSeconds": 0.0, "logBytes": 0},
    }


def test_what_was_not_said_is_left_out() -> None:
    assert printed(RetryConfig()) == {}
    assert printed(RetryConfig(backoff_ms=0, max_lost=0)) == {"backoffMs": 0, "maxLost": 0}
    assert printed(Condition()) == {}
    assert printed(Condition(type=Condition.ON_FAILURE)) == {"type": "ON_FAILURE"}
    assert printed(Node(id="a", type="T")) == {"id": "a", "type": "T"}


def test_wide_integers_are_numbers_as_far_as_json_is_exact() -> None:
    shown = printed(Limits(memory_bytes=2**53 - 1, output_bytes=2**53, log_bytes=-(2**63)))
    assert shown == {
        "memoryBytes": 2**53 - 1,
        "outputBytes": str(2**53),
        "logBytes": str(-(2**63)),
        "processes": 0,
        "openFiles": 0,
        "fileBytes": 0,
        "artifactBytes": 0,
    }


def test_an_enum_value_of_a_newer_server_survives() -> None:
    run = Run.FromString(bytes([4 << 3, 99]))
    shown = printed(run)
    assert isinstance(shown, dict)
    assert shown["state"] == 99


def test_free_json_prints_integral_numbers_as_integers() -> None:
    node = Node()
    node.config.update({"b": 1.0, "a": [2.5, 1e300, -0.0], "c": {"n": None, "t": True}})
    text = encode(node)
    assert '"config":{"a":[2.5,1e+300,0],"b":1,"c":{"n":null,"t":true}}' in text


def test_edges_speak_of_from_and_to() -> None:
    assert printed(Edge(source="a", target="b")) == {"from": "a", "to": "b"}


def test_times_and_durations_print_as_text() -> None:
    response = LoginResponse()
    response.expire_time.FromJsonString("2026-01-31T09:30:00.25Z")
    shown = printed(response)
    assert isinstance(shown, dict)
    assert shown["expireTime"] == "2026-01-31T09:30:00.250Z"
    limits = Limits()
    limits.timeout.FromMilliseconds(1500)
    shown = printed(limits)
    assert isinstance(shown, dict)
    assert shown["timeout"] == "1.500s"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_json_does_not_know_are_never_printed(value: float) -> None:
    with pytest.raises(ValueError, match="JSON knows no"):
        encode(Usage(cpu_seconds=value))


MALFORMED = [(b'{"a":1,}', "line 1"), (b"", "line 1"), (b"\xff", "UTF-8 at byte 0"), (b"[" * 100_000, "too deeply")]


@pytest.mark.parametrize(("text", "complaint"), MALFORMED)
def test_text_that_is_not_json(text: bytes, complaint: str) -> None:
    with pytest.raises(MalformedJsonError, match=complaint):
        parse(text)


def test_a_well_known_type_that_the_codec_does_not_speak_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match=r"google\.protobuf\.Any"):
        encode(PackedAny())

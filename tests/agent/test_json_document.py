"""Strict JSON."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline_agent.json_document import MAX_DEPTH, MAX_INTEGER, InvalidDocument, parse

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-MAX_INTEGER, MAX_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False)
)
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
VALUES = st.recursive(SCALARS | TEXTS, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner), max_leaves=20)

REFUSED = {
    "NaN": b"[NaN]",
    "Infinity": b"-Infinity",
    "overflow": b"1e400",
    "large integer": b"9007199254740993",
    "huge integer": b"1" * 5000,
    "NUL": b'"a\\u0000b"',
    "NUL in a key": b'{"\\u0000": 1}',
    "half a pair": b'["\\ud800"]',
    "half a pair in a key": b'{"a": [{"\\udc00": 1}]}',
    "not UTF-8": b'"\xc3"',
    "too deep": b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1),
    "deeper than the stack": b"[" * 100_000 + b"]" * 100_000,
    "two values": b"1 2",
    "a mark": b"\xef\xbb\xbf1",
    "nothing": b"",
}


@pytest.mark.parametrize("document", REFUSED.values(), ids=REFUSED.keys())
def test_refused(document: bytes) -> None:
    with pytest.raises(InvalidDocument):
        parse(document)


@given(VALUES)
def test_everything_else_is_read(value: object) -> None:
    for escape in (True, False):
        assert parse(json.dumps(value, ensure_ascii=escape).encode()) == value


def test_the_deepest_that_is_allowed() -> None:
    assert parse(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    assert len(parse(b"[" + b",".join([b"[]"] * 500) + b"]")) == 500

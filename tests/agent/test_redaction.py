"""What is masked, whatever the bytes around it and however they are cut."""

import base64
import json
import re
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from towline_agent.redaction import MASK, SHORTEST, Redactor

LONG = "".join(f"{number:04d}" for number in range(1500))
VALUES = (
    "hunter2-hunter2",
    "hunter2-hunter3",
    "aaaaaaaa",
    "aaaaaaaab",
    'quoted"and\\slashed/é',
    "line one\nline two\n",
    LONG,
)
# Few letters, so that beginnings of the secrets are everywhere.
SECRETS = st.lists(st.text("ab\n", min_size=SHORTEST, max_size=20).filter(lambda text: len(text.strip()) >= SHORTEST))
NOISE = st.text("abc\n", max_size=12)


def redacted(pieces: list[bytes], values: list[str]) -> bytes:
    stream = Redactor(values).stream()
    return b"".join([*map(stream.feed, pieces), stream.finish()])


def chop(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]


@given(SECRETS, st.data(), st.lists(st.integers(0, 10_000), max_size=20))
def test_the_cuts_do_not_matter_and_nothing_comes_through(
    values: list[str], data: st.DataObject, cuts: list[int]
) -> None:
    pieces = data.draw(st.lists(st.sampled_from(values) | NOISE if values else NOISE, max_size=12))
    output = "".join(pieces).encode()
    clean = redacted([output], values)
    assert redacted(chop(output, cuts), values) == clean
    assert redacted(chop(output, list(range(len(output)))), values) == clean
    assert all(value.strip().encode() not in clean for value in values)


@given(st.binary(max_size=200), st.lists(st.integers(0, 10_000), max_size=20))
@example(b"aaaaaaa", [3])
def test_what_holds_no_secret_goes_through_as_it_is(output: bytes, cuts: list[int]) -> None:
    if not any(value[:SHORTEST].encode() in output for value in VALUES):
        assert redacted(chop(output, cuts), ["hunter2-hunter2", LONG, "aaaaaaaa"]) == output


def _in_a_url(value: str) -> str:
    return quote(value, safe="")


def _in_a_url_in_small_letters(value: str) -> str:
    return re.sub("%..", lambda code: code[0].lower(), quote(value, safe=""))


def _in_json(value: str) -> str:
    return json.dumps(value)


def _in_plain_json(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _of_a_user(name: str) -> Callable[[str], str]:
    return lambda value: base64.b64encode(f"{name}{value}".encode()).decode()


def _in_urlsafe_base64(value: str) -> str:
    return base64.urlsafe_b64encode(f"user:{value}".encode()).decode()


FORMS: list[Callable[[str], str]] = [
    *(str, str.strip, _in_json, _in_plain_json, _in_a_url, _in_a_url_in_small_letters, _in_urlsafe_base64),
    *map(_of_a_user, ("", "u:", "me:")),
]


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("form", FORMS)
def test_forms_of_a_value_are_masked(value: str, form: Callable[[str], str]) -> None:
    clean = redacted([b"<", form(value).encode(), b">"], [value])
    assert clean.count(MASK) == 1
    # Base64 keeps the few characters that other bytes have a part in.
    kept = clean.removeprefix(b"<").removesuffix(b">").replace(MASK, b"").strip(b'"\n \\n=')
    assert len(kept) <= 8


def test_an_ordinary_line_is_never_held_back() -> None:
    stream = Redactor(VALUES).stream()
    assert stream.feed(b"hello\nworld\n") == b"hello\nworld\n"
    assert stream.feed(b"a half of") == b"a half of"
    assert stream.feed(b"hunte") == b""
    assert stream.feed(b"d\n") == b"hunted\n"
    assert stream.feed(b"the key is hunter2-hunter2!\n") == b"the key is ***!\n"


def test_a_secret_that_was_broken_off_is_masked() -> None:
    assert redacted([b"key=", LONG[:1500].encode()], [LONG]) == b"key=***"
    assert redacted([b"hunter2-hun"], ["hunter2-hunter2"]) == MASK
    assert redacted([b"hunter"], ["hunter2-hunter2"]) == b"hunter"


def test_what_is_held_back_is_bounded() -> None:
    stream = Redactor([LONG]).stream()
    written = [stream.feed(bytes([letter])) for letter in LONG[:-1].encode()]
    assert written.index(MASK) <= 1024
    assert len(stream.feed(b"x")) <= 1025


def test_lines_of_a_secret_are_masked_alone() -> None:
    key = "-----BEGIN KEY-----\nMIIEvQIBADANBgkq\nhkiG9w0BAQEFAASC\n-----END KEY-----"
    assert redacted([b"  | MIIEvQIBADANBgkq\r\n"], [key]) == b"  | ***\r\n"
    assert redacted([key.encode()], [key]) == MASK


def test_a_text_that_may_have_been_cut_within_a_secret_loses_its_end() -> None:
    redactor = Redactor([LONG])
    assert redactor.text("x" * 4080 + LONG[:16]) == "x" * 4080 + "***"
    assert redactor.text("short " + LONG[:16]) == "short " + LONG[:16]
    assert redactor.text("no secret") == "no secret"


def test_a_piece_that_begins_within_a_character_leaves_a_text() -> None:
    value = "x" + "é" * 2000
    assert Redactor([value]).text("é" * 600).startswith("***\ufffd")


def test_short_values_are_not_looked_for() -> None:
    assert redacted([b"a short word"], ["short"]) == b"a short word"

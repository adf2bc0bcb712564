"""Calls between replicas as text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline_controlplane.bus import EVERYBODY, queue_topic, run_topic
from towline_controlplane.calls import EVERYTHING, MOST_MESSAGES, MOST_TOPICS, Message, PendingCalls, decode, encode

names = st.text("abcdef0123456789-", min_size=1, max_size=40)
calls = st.dictionaries(
    st.builds(run_topic, names) | st.builds(queue_topic, names), st.integers(0, 99_999), max_size=MOST_TOPICS
)


@given(calls, st.integers(100, 8000))
def test_what_is_encoded_is_decoded_or_is_everything(calls: dict[str, int], most_bytes: int) -> None:
    texts = encode(Message("me", calls), most_bytes)
    assert 1 <= len(texts) <= MOST_MESSAGES
    assert all(len(text.encode()) <= most_bytes for text in texts)
    decoded = [decode(text) for text in texts]
    assert {message.sender for message in decoded} == {"me"}
    together = {topic: count for message in decoded for topic, count in message.calls.items()}
    assert together in (calls, {EVERYTHING: EVERYBODY})
    assert together == calls or sum(len(topic) for topic in calls) > most_bytes


@given(st.text(max_size=200))
def test_any_text_is_understood_as_far_as_it_goes(text: str) -> None:
    assert all(count >= 0 for count in decode(text).calls.values())


@pytest.mark.parametrize("word", ["0*queue:a", "-1*queue:a", "x*queue:a", "1234567*queue:a", "²*queue:a"])
def test_a_count_that_is_none_is_left_out(word: str) -> None:
    assert decode(f"me {word} run:b").calls == {"run:b": EVERYBODY}


def test_calls_of_a_topic_add_up_and_too_many_topics_are_everything() -> None:
    pending = PendingCalls()
    pending.add({"queue:a": 2, "run:b": EVERYBODY})
    pending.add({"queue:a": 3})
    assert pending.take() == {"queue:a": 5, "run:b": EVERYBODY}
    assert pending.take() == {}
    for number in range(10 * MOST_TOPICS):
        pending.add({f"queue:{number}": 1})
    assert pending.take() == {EVERYTHING: EVERYBODY}


def test_a_topic_too_long_for_a_text_is_everything() -> None:
    assert encode(Message("me", {"run:" + "x" * 200: EVERYBODY}), 100) == ["me *"]

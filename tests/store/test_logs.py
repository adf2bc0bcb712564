import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_samples import Store, a_step, add_run

from towline_controlplane.store import logs
from towline_controlplane.store.database import Transaction
from towline_controlplane.store.logs import LogAppend, LogPosition, LogSize

EVERYTHING = 10**9


def size_of(store: Store, attempt: int = 1) -> LogSize:
    sizes = store.read(logs.load_sizes, [("run-1", "a")])
    return sizes.get(("run-1", "a", attempt), LogSize(0, final=False))


def append(tx: Transaction, offset: int, data: bytes, **fields: object) -> int:
    return logs.append_many(tx, [LogAppend("run-1", "a", 1, offset, data, **fields)])[0]  # pyright: ignore[reportArgumentType]


def read(tx: Transaction, node_id: str | None = None, after: LogPosition | None = None) -> bytes:
    return b"".join(chunk.data for chunk in logs.read_chunks(tx, "run-1", node_id, after, EVERYTHING))


@pytest.fixture(autouse=True)
def runs_with_logs(store: Store) -> None:
    store.write(add_run, "run-1", (a_step(node_id="a"), a_step(node_id="b")))
    store.write(add_run, "run-2", (a_step("run-2", "a"),))


def test_bytes_at_the_end_are_taken(store: Store) -> None:
    assert store.write(append, 0, b"one\n") == 4
    assert store.write(append, 4, b"two\n") == 8
    assert store.read(read) == b"one\ntwo\n"
    assert size_of(store) == LogSize(8, final=False)


def test_repeated_bytes_are_ignored_and_a_new_tail_is_taken(store: Store) -> None:
    store.write(append, 0, b"one\ntwo\n")
    assert store.write(append, 0, b"one\ntwo\n") == 8
    assert store.write(append, 4, b"two\n") == 8
    assert store.write(append, 4, b"two\nthree\n") == 14
    assert store.write(append, 0, b"") == 14
    assert store.read(read) == b"one\ntwo\nthree\n"


def test_beyond_a_gap_nothing_is_taken(store: Store) -> None:
    assert store.write(append, 3, b"late", final=True) == 0
    assert size_of(store) == LogSize(0, final=False)
    store.write(append, 0, b"abc")
    assert store.write(append, 4, b"late") == 3
    assert store.read(read) == b"abc"


def test_a_log_is_final_once_its_last_byte_is_there(store: Store) -> None:
    store.write(append, 0, b"abc")
    store.write(append, 0, b"a", final=True)
    assert not size_of(store).final
    store.write(append, 3, b"", final=True)
    assert size_of(store) == LogSize(3, final=True)
    store.write(append, 0, b"ab")
    assert size_of(store) == LogSize(3, final=True)


def test_an_attempt_without_a_log_has_size_zero(store: Store) -> None:
    assert size_of(store, 7) == LogSize(0, final=False)
    assert store.read(logs.read_chunks, "run-1", None, None, 100) == []
    assert store.write(logs.append_many, []) == []


def test_appends_of_one_batch_build_on_each_other_and_are_answered_in_order(store: Store) -> None:
    batch = [
        LogAppend("run-1", "a", 1, 0, b"aa"),
        LogAppend("run-2", "a", 1, 0, b"other run"),
        LogAppend("run-1", "b", 1, 1, b"gap"),
        LogAppend("run-1", "a", 1, 1, b"abb", final=True),
        LogAppend("run-1", "a", 2, 0, b"second attempt"),
    ]
    assert store.write(logs.append_many, batch) == [2, 9, 0, 4, 14]
    assert size_of(store) == LogSize(4, final=True)
    found = store.read(logs.read_chunks, "run-1", None, None, EVERYTHING)
    assert [(c.arrival, c.node_id, c.attempt, c.offset, c.data) for c in found] == [
        (1, "a", 1, 0, b"aa"),
        (2, "a", 1, 2, b"bb"),
        (3, "a", 2, 0, b"second attempt"),
    ]


def test_a_node_is_read_without_the_others(store: Store) -> None:
    store.write(
        logs.append_many,
        [LogAppend("run-1", node, 1, offset, b"%c" % node.encode()) for offset in (0, 1) for node in "ab"],
    )
    assert store.read(read, "a") == b"aa"
    assert store.read(read, "b") == b"bb"
    assert store.read(read) == b"abab"


def test_reading_ends_with_the_chunk_that_reaches_the_limit(store: Store) -> None:
    for number in range(40):
        store.write(append, number * 10, b"%010d" % number)
    assert len(store.read(logs.read_chunks, "run-1", None, None, 1)) == 1
    assert len(store.read(logs.read_chunks, "run-1", None, None, 25)) == 3
    assert len(store.read(logs.read_chunks, "run-1", None, None, 30)) == 3
    assert len(store.read(logs.read_chunks, "run-1", None, None, EVERYTHING)) == 40


def test_a_reader_goes_on_in_the_middle_of_a_chunk(store: Store) -> None:
    store.write(append, 0, b"one\ntwo\n")
    [chunk] = store.read(logs.read_chunks, "run-1", "a", None, EVERYTHING)
    [rest] = store.read(logs.read_chunks, "run-1", "a", chunk.position(4), EVERYTHING)
    assert (rest.offset, rest.data) == (4, b"two\n")
    [end] = store.read(logs.read_chunks, "run-1", "a", rest.position(2), EVERYTHING)
    assert (end.offset, end.data) == (6, b"o\n")
    assert store.read(logs.read_chunks, "run-1", "a", end.position(2), EVERYTHING) == []
    store.write(append, 8, b"three\n")
    assert store.read(read, "a", end.position(2)) == b"three\n"


def test_bytes_of_any_value_are_kept(store: Store) -> None:
    data = bytes(range(256)) * 1024
    assert store.write(append, 0, data) == len(data)
    assert store.read(read) == data


def test_racing_appends_of_the_same_bytes_are_taken_once(store: Store) -> None:
    async def scenario() -> list[int]:
        chunks = [(offset, b"%d" % offset) for offset in range(10)] * 4
        return await asyncio.gather(*(store.database.write(lambda tx, c=c: append(tx, *c)) for c in chunks))

    store.runner.run(scenario())
    assert store.read(read) == b"0123456789"


STREAM = bytes(range(60))


class Rollback(Exception):
    """Ends an example without a trace."""


slices = st.tuples(st.sampled_from("ab"), st.integers(1, 2), st.integers(0, 60), st.integers(0, 60)).map(
    lambda s: LogAppend("run-1", s[0], s[1], s[2], STREAM[s[2] : s[2] + s[3]])
)


# One database serves all examples: each rolls back what it did.
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(st.lists(slices, max_size=6), max_size=12), pages=st.lists(st.integers(1, 40), min_size=1))
def test_any_sequence_of_appends_yields_the_stream_and_readers_see_each_byte_once(
    store: Store, batches: list[list[LogAppend]], pages: list[int]
) -> None:
    logs_read: dict[tuple[str, int], bytes] = {}
    position: LogPosition | None = None

    def follow(tx: Transaction, limit: int, after: LogPosition | None) -> LogPosition | None:
        for chunk in logs.read_chunks(tx, "run-1", None, after, limit):
            key = (chunk.node_id, chunk.attempt)
            assert chunk.offset == len(logs_read.get(key, b""))
            taken = chunk.data[:limit]
            logs_read[key] = logs_read.get(key, b"") + taken
            after = chunk.position(len(taken))
            if len(taken) < len(chunk.data):
                break
        return after

    def scenario(tx: Transaction) -> None:
        nonlocal position
        expected: dict[tuple[str, int], int] = {}
        for number, batch in enumerate(batches):
            offsets = logs.append_many(tx, batch)
            for item, offset in zip(batch, offsets, strict=True):
                key = (item.node_id, item.attempt)
                size = expected.get(key, 0)
                if item.offset <= size:
                    expected[key] = max(size, item.offset + len(item.data))
                assert offset == expected.get(key, 0)
            position = follow(tx, pages[number % len(pages)], position)
        while (further := follow(tx, pages[0], position)) != position:
            position = further
        assert logs_read == {key: STREAM[:size] for key, size in expected.items() if size}
        raise Rollback

    with pytest.raises(Rollback):
        store.write(scenario)

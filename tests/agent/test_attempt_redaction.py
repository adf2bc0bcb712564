"""An agent that was given secrets: nothing that it keeps or says holds one."""

import json
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest
from running_agent import World, run, running, settled

from towline.v1.agent_service_pb2 import AttemptResult, Lease, Offer
from towline.v1.run_pb2 import Failure
from towline_agent.attempt_redaction import AttemptRedaction
from towline_agent.execution import EndReason, Exit, Launch, OnOutput, OutputStream
from towline_agent.log_spool import LogSpool
from towline_agent.testing import FakeClock, make_offer

VALUE = "planted-secret-of-ours"
PIN = "1234567890"


def offer() -> Offer:
    given = make_offer()
    given.secrets["TOKEN"] = VALUE
    given.secrets["PIN"] = PIN
    return given


def lines(world: World) -> list[bytes]:
    return [line.split(b" ", 1)[1] for line in world.control_plane.logs["step"].data.splitlines()]


def returns(result: bytes) -> Callable[[Launch, OnOutput], Awaitable[Exit]]:
    async def play(launch: Launch, on_output: OnOutput) -> Exit:
        return Exit(EndReason.EXITED, exit_code=0, result=result)

    return play


def planted_files(folder: Path) -> list[Path]:
    """What holds a secret; the agent may take files and folders away meanwhile."""
    planted: list[Path] = []
    for place, _, names in os.walk(folder):
        for path in (Path(place, name) for name in names):
            with suppress(FileNotFoundError):
                planted += [path] if b"planted-secret" in path.read_bytes() else []
    return planted


def test_output_in_pieces_is_masked_before_it_is_spooled(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:

            async def talk(launch: Launch, on_output: OnOutput) -> Exit:
                assert json.loads(launch.secrets) == {"TOKEN": VALUE, "PIN": PIN}
                for letter in f"it is {VALUE}!\nand now ".encode():
                    on_output(OutputStream.STDOUT, bytes([letter]))
                on_output(OutputStream.STDERR, VALUE[:10].encode())
                on_output(OutputStream.STDOUT, VALUE.encode())
                on_output(OutputStream.STDERR, VALUE[10:].encode() + b" in an error\n")
                assert planted_files(tmp_path) == []
                return Exit(EndReason.EXITED, exit_code=3)

            world.supervisor.script("step", talk)
            world.control_plane.offer(offer())
            await world.control_plane.until(lambda: world.control_plane.results)
            await settled(world)
            assert lines(world) == [b"O- it is ***!", b"E- *** in an error", b"O- and now ***"]
            assert "*** in an error" in world.control_plane.results["step"].failure.cause

    run(scenario)


@pytest.mark.parametrize(
    ("output", "recorded"),
    [
        ({"token": VALUE, "n": 1.5}, {"token": "***", "n": 1.5}),
        ([f"a {VALUE} b", {VALUE: None}], ["a *** b", {"***": None}]),
        (int(PIN), "***"),
    ],
)
def test_the_output_is_masked_and_the_log_says_so(tmp_path: Path, output: object, recorded: object) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            escaped = json.dumps(output).replace("p", "\\u0070").encode()
            world.supervisor.script("step", returns(escaped))
            world.control_plane.offer(offer())
            await world.control_plane.until(lambda: world.control_plane.results)
            assert planted_files(tmp_path) == []
            await settled(world)
            assert json.loads(world.control_plane.results["step"].output_json) == recorded
            assert lines(world) == [b"S- The output of the plugin held a secret, which was replaced by ***"]

    run(scenario)


def test_what_holds_no_secret_is_passed_on_byte_by_byte(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            world.supervisor.script("step", returns(b'{"a" :1e2}'))
            world.control_plane.offer(offer())
            await world.control_plane.until(lambda: world.control_plane.results)
            await settled(world)
            assert world.control_plane.results["step"].output_json == b'{"a" :1e2}'

    run(scenario)


def test_a_failure_is_masked_in_all_its_texts(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            told = {"error": {"message": f"ValueError: {VALUE}", "code": "PLUGIN_ERROR"}}

            async def fail(launch: Launch, on_output: OnOutput) -> Exit:
                on_output(OutputStream.STDERR, f"raised {VALUE}\n".encode())
                return Exit(EndReason.EXITED, exit_code=1, result=json.dumps(told).encode())

            world.supervisor.script("step", fail)
            world.control_plane.offer(offer())
            await world.control_plane.until(lambda: world.control_plane.results)
            await settled(world)
            failure = world.control_plane.results["step"].failure
            assert failure.message == "ValueError: ***"
            assert "raised ***" in failure.cause

    run(scenario)


def test_a_stopped_attempt_writes_what_was_held_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:

            async def stuck(launch: Launch, on_output: OnOutput) -> Exit:
                on_output(OutputStream.STDOUT, f"hello {VALUE[:12]}".encode())
                return Exit(EndReason.TIMEOUT)

            world.supervisor.script("step", stuck)
            world.control_plane.offer(offer())
            await world.control_plane.until(lambda: world.control_plane.results)
            await settled(world)
            assert world.control_plane.results["step"].outcome == AttemptResult.TIMED_OUT
            assert lines(world) == [b"O- hello ***"]

    run(scenario)


def test_every_text_of_a_result_is_masked_but_its_lease(tmp_path: Path) -> None:
    log = LogSpool(tmp_path / "logs", FakeClock()).open("key", make_offer().lease, 1000)
    result = AttemptResult(
        lease=Lease(node_id=VALUE), failure=Failure(code="X", message=f"a {VALUE}", cause=VALUE), output_json=b"1"
    )
    AttemptRedaction({"TOKEN": VALUE}, log).clean(result)
    assert (result.lease.node_id, result.output_json) == (VALUE, b"1")
    assert (result.failure.code, result.failure.message, result.failure.cause) == ("X", "a ***", "***")
    AttemptRedaction({}, log).clean(result)
    assert result.lease.node_id == VALUE

"""How log lines are printed, and what is said behind the last one."""

import json

import pytest
from cli_fakes import FakeControlPlane, Terminal

from towline.v1 import run_service_pb2
from towline.v1.run_pb2 import AttemptLog, LogLine, LogsEnd, LogState
from towline_cli.output import coloured


def test_logs_name_their_step_and_cannot_drive_the_terminal(towline: Terminal, control_plane: FakeControlPlane) -> None:
    line = LogLine(node_id="a", attempt=2, text="clear \x1b[2J\ttab")
    control_plane.answers["TailLogs"] = lambda _: [run_service_pb2.TailLogsResponse(line=line, cursor="1")]

    assert towline("run", "logs", "r1").stdout == "a[2] | clear ␛[2J\ttab\n"
    assert json.loads(towline("run", "logs", "r1", "-o", "json").stdout)["text"] == "clear \x1b[2J\ttab"


ENDS: list[tuple[LogsEnd, str]] = [
    (LogsEnd(complete=True, attempts=2, stored_bytes=30), "logs complete: 30 bytes of 2 attempts\n"),
    (
        LogsEnd(
            attempts=4,
            stored_bytes=30,
            incomplete=[
                AttemptLog(node_id=f"n{state}", attempt=1, log=LogState(state=state, missing=missing))
                for state, missing in (
                    (LogState.GROWING, []),
                    (LogState.ARRIVING, [LogState.Gap(start=4, end=9)]),
                    (LogState.INCOMPLETE, [LogState.Gap(start=4)]),
                    (LogState.MISMATCHED, []),
                )
            ],
        ),
        "logs not complete: 30 bytes of 4 attempts\n"
        "n1[1] is still running\n"
        "n2[1] still on the way, bytes 4 to 9\n"
        "n4[1] missing, what came after byte 4\n"
        "n5[1] MISMATCH: what is stored is not what its agent has sent\n",
    ),
]


@pytest.mark.parametrize(("end", "said"), ENDS, ids=["complete", "not complete"])
def test_logs_say_whether_that_is_all(
    towline: Terminal, control_plane: FakeControlPlane, end: LogsEnd, said: str
) -> None:
    control_plane.answers["TailLogs"] = lambda _: [run_service_pb2.TailLogsResponse(end=end)]

    for arguments in ((), ("-o", "json")):
        answer = towline("run", "logs", "r1", *arguments)
        assert (answer.stdout, answer.stderr) == ("", said)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("\x1b[1;31mred\x1b[0m", "\x1b[1;31mred\x1b[0m\x1b[0m"),
        ("\x1b[31mred and \x1b[2Jclear", "\x1b[31mred and ␛[2Jclear\x1b[0m"),
        ("10%\r20%", "10%␍20%"),
        ("a\x00b\x07\x9b2J", "a␀b␇�2J"),
        ("\x1b]0;title\x07", "␛]0;title␇"),
    ],
)
def test_only_colours_keep_their_power_on_a_terminal(text: str, shown: str) -> None:
    assert coloured(text) == shown

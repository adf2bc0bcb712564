from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console

from towline.v1.run_pb2 import Event, LogLine, Run, Step
from towline_cli.live_view import LiveView, picture
from towline_cli.progress import NOT_SUCCEEDED, RUN_STATES, STEP_STATES, Progress
from towline_cli.views import EVENT_WORDS

FAILURE: dict[str, Any] = {"error": {"class": "TRANSIENT", "code": "BUSY", "message": "try later"}}


def event(kind: str, node_id: str = "", attempt: int = 0, at: int = 0, **details: Any) -> Event:
    made = Event(type=kind, node_id=node_id, attempt=attempt, create_time=Timestamp(seconds=at))
    made.details.update(details)
    return made


def retried_run() -> Progress:
    progress = Progress("r1")
    progress.expect([Step(node_id="b", type="SHELL"), Step(node_id="a", type="DELAY")])
    for each in (
        event("RUN_CREATED", at=10),
        event("STEP_READY", "b", at=10),
        event("STEP_STARTED", "b", 1, at=11),
        event("STEP_ATTEMPT_FAILED", "b", 1, at=13, **FAILURE),
        event("STEP_RETRY_SCHEDULED", "b", 1, at=13, delayMs=100),
    ):
        progress.apply(each)
    return progress


def drawn(progress: Progress, height: int = 40, now: float = 20) -> list[str]:
    console = Console(width=120, color_system=None)
    with console.capture() as capture:
        console.print(picture(progress, height, now))
    return [line.rstrip() for line in capture.get().splitlines()]


def test_failed_attempt_is_shown_until_the_next_one_starts() -> None:
    progress = retried_run()
    step = progress.steps["b"]
    assert (step.state, step.attempt, step.error, step.seconds(20)) == (Step.READY, 1, "BUSY: try later", 2)

    progress.apply(event("STEP_STARTED", "b", 2, at=15))
    assert (step.state, step.attempt, step.error, step.seconds(20)) == (Step.LEASED, 2, "", 5)

    progress.apply(event("STEP_SUCCEEDED", "b", 2, at=17))
    assert (step.state, step.seconds(20), progress.ended_steps()) == (Step.SUCCEEDED, 2, 1)


def test_run_ends_with_its_last_event() -> None:
    progress = retried_run()
    progress.apply(event("RUN_FAILED", at=14))

    assert (progress.state, progress.started, progress.ended) == (Run.FAILED, 10, 14)


def test_every_event_that_changes_a_state_has_words_or_is_quiet() -> None:
    quiet = {Event.STEP_READY, Event.STEP_OFFERED, Event.STEP_RESET}
    spoken = set(EVENT_WORDS)
    assert spoken.isdisjoint(quiet)
    assert {Event.Type.Name(kind) for kind in {*RUN_STATES, *STEP_STATES, *NOT_SUCCEEDED} - quiet - spoken} == set()
    assert spoken | quiet == {number for number in Event.Type.values() if number}


def test_picture_shows_steps_in_their_order_and_the_last_lines() -> None:
    progress = retried_run()
    progress.lines.extend(LogLine(node_id="b", attempt=1, text=f"line {n} \x1b[2J") for n in range(30))

    lines = drawn(progress)

    assert lines[0] == "run r1  PENDING  0/2 steps  10.00 s"
    assert [line.split()[:3] for line in (lines[1], lines[-1])] == [["├─", "○", "b"], ["└─", "·", "a"]]
    assert lines[1].endswith("BUSY: try later")
    assert lines[2:-1] == [f"│     line {n} ␛[2J" for n in range(20, 30)]


def test_picture_of_a_large_run_fits_the_terminal_and_keeps_what_matters() -> None:
    progress = Progress("r1")
    progress.expect(Step(node_id=f"n{n}") for n in range(1000))
    progress.apply(event("STEP_STARTED", "n700", 1))
    progress.apply(event("STEP_FAILED", "n300", 1, **FAILURE))

    lines = drawn(progress, height=24)

    assert len(lines) <= 24
    assert [line.split()[2] for line in lines[1:3]] == ["n0", "n1"]
    assert {"n300", "n700"} <= {line.split()[2] for line in lines}
    assert lines[-1] == "└─ … and 992 more steps"


def test_lines_of_a_step_that_is_not_shown_name_it() -> None:
    progress = Progress("r1")
    progress.expect(Step(node_id=f"n{n}") for n in range(100))
    progress.lines.append(LogLine(node_id="n99", attempt=1, text="far away"))
    progress.lines.append(LogLine(node_id="n0", attempt=1, text="near"))
    lines = drawn(progress, height=20)
    assert lines[-1] == "n99[1] | far away"
    assert lines[2] == "│     near"


def test_live_view_leaves_the_last_picture_on_the_screen() -> None:
    console = Console(width=100, height=30, force_terminal=True, color_system=None)
    with console.capture() as capture, LiveView("r1", console) as view:
        view.expect([Step(node_id="a")])
        view.refresh()
        view.line(LogLine(node_id="a", attempt=1, text="last words"))
        view.event(event("RUN_SUCCEEDED", at=1))

    last_picture = capture.get().rpartition("run r1")[2]
    assert "SUCCEEDED" in last_picture
    assert "last words" in last_picture


@pytest.mark.parametrize("kind", sorted(Event.Type.keys()[1:]))
def test_every_event_can_be_applied_to_an_unknown_step(kind: str) -> None:
    progress = Progress("r1")
    progress.apply(event(kind, "x" if kind.startswith("STEP") else ""))
    assert drawn(progress)

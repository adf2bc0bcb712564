"""The life of an attempt on this agent, as one literal table. Pure: no I/O, no clock, no wire.

`offered -> preparing -> running -> reporting -> done`; a cancel, a shutdown or a fence leads through `stopping`, which
still ends in a report, and a released lease through `discarding`, which never does. What the table does not list cannot
happen.
"""

from enum import StrEnum
from types import MappingProxyType


class Phase(StrEnum):
    """Where an attempt is."""

    OFFERED = "OFFERED"
    """Received and counted against a slot; nothing was done yet."""
    PREPARING = "PREPARING"
    """Its bundle is fetched and its folder made."""
    RUNNING = "RUNNING"
    STOPPING = "STOPPING"
    """Asked to end; it will be reported."""
    DISCARDING = "DISCARDING"
    """Asked to end; nobody wants to hear of it any more."""
    REPORTING = "REPORTING"
    """No process is left, the result is on disk; no slot is held."""
    DONE = "DONE"


class Event(StrEnum):
    """What happens to an attempt."""

    BEGIN = "BEGIN"
    LAUNCH = "LAUNCH"
    END = "END"
    """Its processes are gone, or it never had any."""
    CANCEL = "CANCEL"
    """The control plane wants it stopped and reported."""
    SHUTDOWN = "SHUTDOWN"
    """The agent ends and can wait no longer."""
    HAND_BACK = "HAND_BACK"
    """The agent ends at once."""
    RELEASE = "RELEASE"
    """The control plane says that the lease is no longer ours."""
    FENCE = "FENCE"
    """The lease ran out unrenewed, or the offer unacknowledged: somebody else may soon hold it."""
    VERDICT = "VERDICT"
    """The control plane answered the report."""


class Action(StrEnum):
    """What the owner of the attempt has to do after a step of the table."""

    NONE = "NONE"
    ABORT = "ABORT"
    """End preparation or processes at once."""
    STOP = "STOP"
    """Ask the processes to end, with their grace."""
    REPORT = "REPORT"
    """Put the result on disk and send it."""
    DROP = "DROP"
    """Forget the result that waits to be sent."""


class IllegalTransition(Exception):
    """An event that cannot happen in this phase: a defect of the agent."""

    def __init__(self, phase: Phase, event: Event) -> None:
        super().__init__(f"{event} cannot happen to an attempt that is {phase}")


_LATE = (Event.CANCEL, Event.SHUTDOWN, Event.HAND_BACK, Event.RELEASE, Event.FENCE)

TRANSITIONS = MappingProxyType(
    {
        (Phase.OFFERED, Event.BEGIN): (Phase.PREPARING, Action.NONE),
        (Phase.OFFERED, Event.CANCEL): (Phase.STOPPING, Action.ABORT),
        (Phase.OFFERED, Event.SHUTDOWN): (Phase.STOPPING, Action.ABORT),
        (Phase.OFFERED, Event.RELEASE): (Phase.DISCARDING, Action.ABORT),
        # Whether the lease still counts is the control plane's to say: what a fence ends is reported, as lost.
        (Phase.OFFERED, Event.FENCE): (Phase.STOPPING, Action.ABORT),
        (Phase.PREPARING, Event.LAUNCH): (Phase.RUNNING, Action.NONE),
        (Phase.PREPARING, Event.END): (Phase.REPORTING, Action.REPORT),
        (Phase.PREPARING, Event.CANCEL): (Phase.STOPPING, Action.ABORT),
        (Phase.PREPARING, Event.SHUTDOWN): (Phase.STOPPING, Action.ABORT),
        (Phase.PREPARING, Event.RELEASE): (Phase.DISCARDING, Action.ABORT),
        (Phase.PREPARING, Event.FENCE): (Phase.STOPPING, Action.ABORT),
        (Phase.RUNNING, Event.END): (Phase.REPORTING, Action.REPORT),
        (Phase.RUNNING, Event.CANCEL): (Phase.STOPPING, Action.STOP),
        (Phase.RUNNING, Event.SHUTDOWN): (Phase.STOPPING, Action.STOP),
        (Phase.RUNNING, Event.RELEASE): (Phase.DISCARDING, Action.STOP),
        (Phase.RUNNING, Event.FENCE): (Phase.STOPPING, Action.ABORT),
        (Phase.STOPPING, Event.END): (Phase.REPORTING, Action.REPORT),
        (Phase.STOPPING, Event.CANCEL): (Phase.STOPPING, Action.NONE),
        (Phase.STOPPING, Event.SHUTDOWN): (Phase.STOPPING, Action.NONE),
        (Phase.STOPPING, Event.RELEASE): (Phase.DISCARDING, Action.NONE),
        (Phase.STOPPING, Event.FENCE): (Phase.STOPPING, Action.ABORT),
        (Phase.DISCARDING, Event.END): (Phase.DONE, Action.NONE),
        (Phase.DISCARDING, Event.CANCEL): (Phase.DISCARDING, Action.NONE),
        (Phase.DISCARDING, Event.SHUTDOWN): (Phase.DISCARDING, Action.NONE),
        (Phase.DISCARDING, Event.RELEASE): (Phase.DISCARDING, Action.NONE),
        (Phase.DISCARDING, Event.FENCE): (Phase.DISCARDING, Action.ABORT),
        (Phase.REPORTING, Event.VERDICT): (Phase.DONE, Action.NONE),
        (Phase.REPORTING, Event.CANCEL): (Phase.REPORTING, Action.NONE),
        (Phase.REPORTING, Event.SHUTDOWN): (Phase.REPORTING, Action.NONE),
        (Phase.REPORTING, Event.RELEASE): (Phase.DONE, Action.DROP),
        (Phase.REPORTING, Event.FENCE): (Phase.REPORTING, Action.NONE),
        (Phase.DONE, Event.VERDICT): (Phase.DONE, Action.NONE),
        **{
            (phase, Event.HAND_BACK): (Phase.STOPPING, Action.ABORT)
            for phase in (Phase.OFFERED, Phase.PREPARING, Phase.RUNNING, Phase.STOPPING)
        },
        (Phase.DISCARDING, Event.HAND_BACK): (Phase.DISCARDING, Action.ABORT),
        (Phase.REPORTING, Event.HAND_BACK): (Phase.REPORTING, Action.NONE),
        **{(Phase.DONE, late): (Phase.DONE, Action.NONE) for late in _LATE},
    }
)


def step(phase: Phase, event: Event) -> tuple[Phase, Action]:
    """Returns the next phase and what to do; raises IllegalTransition for what the table does not list."""
    found = TRANSITIONS.get((phase, event))
    if found is None:
        raise IllegalTransition(phase, event)
    return found

"""Waits for work with a long poll whenever slots are free and no report is about to ask for work anyway.

It loses its race when the answer is lost: the offers in it go back after their confirmation time and cost no retry.
"""

from datetime import timedelta

from google.protobuf.duration_pb2 import Duration

from towline.v1.agent_service_pb2 import PullRequest
from towline_agent.attempts import Attempts
from towline_agent.clock import Backoff, Clock
from towline_agent.control_plane import ControlPlane, ControlPlaneError
from towline_agent.intake import Intake
from towline_agent.outbox import Outbox
from towline_agent.session import Session

LONGEST_WAIT_SECONDS = 25.0
SPREAD_SECONDS = 5.0
"""Waits differ by up to this much, so that agents do not come back all at once."""
HASTY_SECONDS = 1.0
"""A control plane that answers empty-handed sooner than this is asked again less often."""


class PullLoop:
    """One Pull after the other; `tick` makes one."""

    def __init__(
        self,
        control_plane: ControlPlane,
        session: Session,
        intake: Intake,
        outbox: Outbox,
        attempts: Attempts,
        clock: Clock,
    ) -> None:
        self._control_plane = control_plane
        self._session = session
        self._intake = intake
        self._outbox = outbox
        self._attempts = attempts
        self._clock = clock
        self._backoff = Backoff(clock.jitter)

    async def run(self) -> None:
        """Pulls until cancelled."""
        while True:
            await self.tick()

    async def tick(self) -> None:
        """Waits for a free slot, makes one Pull and starts what it brings; waits before the next if it failed."""
        await self._room()
        asked = self._intake.ask()
        request = PullRequest(
            session_id=self._session.id,
            want=asked.want,
            free_memory_bytes=asked.free_memory_bytes,
            wait=self._wait(),
            started=asked.started,
        )
        try:
            response = await self._control_plane.pull(request)
        except ControlPlaneError as error:
            self._intake.give_up(asked)
            await self._session.recover(error, self._backoff)
            return
        self._intake.take(asked, response.offers, self._attempts.start)
        if not response.offers and self._clock.monotonic() - asked.asked_at < HASTY_SECONDS:
            await self._session.pause(self._backoff.next())
        else:
            self._backoff.reset()

    async def _room(self) -> None:
        await self._session.opened()
        while not self._intake.slots.free or self._outbox:
            await self._intake.changed.wait()
            await self._session.opened()

    def _wait(self) -> Duration:
        wait = Duration()
        wait.FromTimedelta(timedelta(seconds=LONGEST_WAIT_SECONDS - SPREAD_SECONDS * self._clock.jitter()))
        return wait

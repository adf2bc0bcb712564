"""Sends results, all that wait in one call, and takes the next offers from the same answer.

So a chain of steps moves one hop per round trip. It loses its race when the answer is lost or a lease has gone stale:
the same results are sent again until a verdict comes, and whatever it says, the result is then forgotten.
"""

import structlog

from towline.v1.agent_service_pb2 import AttemptResult, ReportRequest, ReportResponse, Verdict
from towline_agent.attempts import Attempts
from towline_agent.clock import Backoff, Clock
from towline_agent.control_plane import ControlPlane, ControlPlaneError, RequestRefused, Unavailable
from towline_agent.intake import Intake, Request
from towline_agent.outbox import Outbox
from towline_agent.session import Session

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class ReportLoop:
    """One Report after the other; `tick` makes one."""

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
        self._backoff = Backoff(clock.jitter)

    async def run(self) -> None:
        """Reports until cancelled."""
        while True:
            await self.tick()

    async def tick(self) -> None:
        """Waits for a result and makes one Report; waits before the next if it failed."""
        await self._something_to_send()
        await self._session.opened()
        batch = self._outbox.batch()
        if not batch:  # the last result was dropped while the session was shut
            return
        asked = self._intake.ask()
        try:
            response = await self._send(batch, asked)
        except RequestRefused as error:
            self._intake.give_up(asked)
            self._outbox.refused(batch, str(error))
        except ControlPlaneError as error:
            self._intake.give_up(asked)
            await self._session.recover(error, self._backoff)
        else:
            self._backoff.reset()
            self._settle(batch, response)
            self._intake.take(asked, response.offers, self._attempts.start)

    async def _something_to_send(self) -> None:
        if self._outbox.littered:
            await self._outbox.sweep()
        while not self._outbox:
            # Whoever took the last result away, a verdict or a release: now it is for the Pull to ask for work.
            self._intake.changed.set()
            await self._outbox.sweep()
            self._attempts.concluded()
            if not self._outbox:
                await self._outbox.changed.wait()

    async def _send(self, batch: dict[str, AttemptResult], asked: Request) -> ReportResponse:
        request = ReportRequest(
            session_id=self._session.id,
            results=batch.values(),
            want=asked.want,
            free_memory_bytes=asked.free_memory_bytes,
            started=asked.started,
        )
        response = await self._control_plane.report(request)
        if len(response.verdicts) != len(batch):
            raise Unavailable(f"{len(response.verdicts)} verdicts for {len(batch)} results")
        return response

    def _settle(self, batch: dict[str, AttemptResult], response: ReportResponse) -> None:
        for (key, result), verdict in zip(batch.items(), response.verdicts, strict=True):
            if verdict.code != Verdict.ACCEPTED:
                log.warning(
                    "result_discarded",
                    run=result.lease.run_id,
                    node=result.lease.node_id,
                    attempt=result.lease.attempt,
                    verdict=verdict.code,
                    reason=verdict.message,
                )
            self._outbox.drop(key)
            self._attempts.answered(key)
        self._outbox.accepted()

"""Runs attempts: one task for each, from its offer until its result is on its way.

Owns what `lifecycle` decides and does what it says. A slot is free again once no process is left and the result is on
disk; an attempt that goes wrong in an unforeseen way becomes a failed attempt and disturbs no other.
"""

import asyncio
from collections.abc import Callable
from types import MappingProxyType

import structlog

from towline.v1.agent_service_pb2 import AttemptResult, Directive, Offer
from towline_agent.artifact_inputs import InputUnavailable
from towline_agent.artifacts import Artifacts
from towline_agent.attempt_redaction import AttemptRedaction
from towline_agent.bundles import PluginUnavailable
from towline_agent.certificate import bounded_lines
from towline_agent.demands import level_message
from towline_agent.execution import DEFAULT_PROCESSES, EndReason, Exit, OutputStream, Supervisor
from towline_agent.holdings import Attempt, Holdings, lease_key
from towline_agent.intake import weight_of
from towline_agent.lifecycle import Action, Event, Phase
from towline_agent.log_spool import AttemptLog, LogSpool
from towline_agent.log_stream import LogStream
from towline_agent.outbox import Outbox
from towline_agent.outcomes import (
    Circumstances,
    decide,
    inputs_unavailable,
    not_prepared,
    sandbox_unavailable,
    unavailable,
)
from towline_agent.sandbox.standing import SandboxUnavailable
from towline_agent.slots import Slots
from towline_agent.workshop import Workshop

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

_DIRECTED = MappingProxyType({Directive.CANCEL: Event.CANCEL, Directive.RELEASE: Event.RELEASE})
_GATES = MappingProxyType({Directive.FREEZE: True, Directive.THAW: False})
_ENDING = frozenset({Phase.STOPPING, Phase.DISCARDING, Phase.REPORTING, Phase.DONE})

_NEVER_STARTED = frozenset({EndReason.SPAWN_FAILED, EndReason.SANDBOX_FAILED})


class Attempts:
    """All attempts of this agent; `concluded` is called after each one leaves its slot or its verdict is in."""

    def __init__(
        self,
        holdings: Holdings,
        slots: Slots,
        supervisor: Supervisor,
        workshop: Workshop,
        logs: tuple[LogSpool, LogStream],
        results: tuple[Outbox, Artifacts],
    ) -> None:
        self.concluded: Callable[[], None] = lambda: None
        self._holdings = holdings
        holdings.lapsed = self._lapsed
        self._slots = slots
        self._supervisor = supervisor
        self._workshop = workshop
        self._log_spool, self._log_stream = logs
        self._outbox, self._artifacts = results
        self._work: dict[str, asyncio.Task[AttemptResult]] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._actions: MappingProxyType[Action, Callable[[str], object]] = MappingProxyType(
            {
                Action.NONE: lambda key: None,
                Action.REPORT: lambda key: None,
                Action.ABORT: self._abort,
                Action.STOP: supervisor.stop,
                Action.DROP: self._drop,
            }
        )

    def run_in(self, tasks: asyncio.TaskGroup) -> None:
        """Gives the attempts to come a group to run in; when it is cancelled, what runs is killed."""
        self._tasks = tasks

    def start(self, offer: Offer, asked_at: float) -> None:
        """Starts an offered attempt in the slot that was taken for it; `asked_at` is when it was asked for."""
        attempt = self._holdings.add(offer, asked_at)
        if attempt is None:
            log.warning("offer_left", run=offer.lease.run_id, node=offer.lease.node_id)
            self._slots.release(weight_of(offer))
            return
        output = self._log_spool.open(attempt.key, offer.lease, offer.limits.log_bytes)
        self._log_stream.follow(output.file)
        tasks = self._group()
        redaction = AttemptRedaction(offer.secrets, output)
        self._work[attempt.key] = tasks.create_task(self._produce(attempt, output, redaction))
        tasks.create_task(self._live(attempt, output, redaction))
        log.debug("attempt_started", **attempt.names)

    def direct(self, directive: Directive) -> None:
        """Does what the control plane wants done with an attempt; one that is gone is none of its business."""
        attempt = self._holdings.get(lease_key(directive.lease))
        if attempt is None:
            return
        if directive.action in _GATES:
            self._gate(attempt, frozen=_GATES[directive.action])
            return
        event = _DIRECTED.get(directive.action)
        if event is None:
            return
        log.info("attempt_directed", action=event, reason=directive.reason, **attempt.names)
        attempt.stop_reason = attempt.stop_reason or directive.reason
        self._apply(attempt, event)

    def _gate(self, attempt: Attempt, *, frozen: bool) -> None:
        """Freezes an attempt or lets it go on. One that has not been launched waits; one that is ending goes on."""
        if frozen is attempt.frozen or attempt.phase in _ENDING:
            return
        log.info("attempt_frozen" if frozen else "attempt_thawed", **attempt.names)
        if frozen:
            attempt.thawed.clear()
            self._supervisor.freeze(attempt.key)
        else:
            attempt.thawed.set()
            self._supervisor.thaw(attempt.key)

    def fence(self) -> None:
        """Kills all that runs at once; it is reported as lost, should the lease still count then."""
        for attempt in self._holdings:
            self._apply(attempt, Event.FENCE)

    def _lapsed(self, attempt: Attempt) -> None:
        log.error("offer_lapsed", reason="its start was not acknowledged in time", **attempt.names)
        self._apply(attempt, Event.FENCE)

    def shut_down(self) -> None:
        """Asks all that runs to end; it is reported as lost with the agent."""
        for attempt in self._holdings:
            self._apply(attempt, Event.SHUTDOWN)

    def hand_back(self) -> None:
        """Kills all that runs at once; it is reported as lost with the agent."""
        for attempt in self._holdings:
            self._apply(attempt, Event.HAND_BACK)

    def answered(self, key: str) -> None:
        """The control plane gave its verdict on the result."""
        attempt = self._holdings.get(key)
        if attempt is not None:
            attempt.apply(Event.VERDICT)
        self._holdings.remove(key)
        self.concluded()

    def abandon(self) -> None:
        """Kills what still runs, whatever phase it is in, and reports nothing of it."""
        for work in self._work.values():
            work.cancel()

    def _group(self) -> asyncio.TaskGroup:
        if self._tasks is None:
            raise RuntimeError("attempts were started before they had a group to run in")
        return self._tasks

    def _apply(self, attempt: Attempt, event: Event) -> None:
        self._actions[attempt.apply(event)](attempt.key)

    def _abort(self, key: str) -> None:
        work = self._work[key]
        if not work.cancelling():  # a second time would end the wait for the processes' death
            work.cancel()

    def _drop(self, key: str) -> None:
        self._artifacts.forget(key)
        self._outbox.drop(key)
        self._holdings.remove(key)
        self.concluded()

    async def _produce(self, attempt: Attempt, output: AttemptLog, redaction: AttemptRedaction) -> AttemptResult:
        try:
            self._apply(attempt, Event.BEGIN)
            launch = await self._workshop.prepare(attempt.offer, attempt.key)
            while attempt.frozen:
                await attempt.thawed.wait()
            self._apply(attempt, Event.LAUNCH)
            end = await self._supervisor.run(launch, redaction.write)
        except PluginUnavailable as error:
            return unavailable(error.failure)
        except InputUnavailable as error:
            return inputs_unavailable(error.failure)
        except SandboxUnavailable as error:
            return sandbox_unavailable(str(error))
        except OSError as error:
            return not_prepared(error)
        except Exception as error:
            log.exception("attempt_broken", **attempt.names)
            return not_prepared(error)
        if end.killed:
            output.note(f"{len(end.killed)} processes outlived the plugin and were killed")
        redaction.finish()
        result = _decide(attempt, end, output)
        if end.reason not in _NEVER_STARTED:
            result.sandbox_level = level_message(launch.confinement.level)
        max_bytes = attempt.offer.limits.artifact_bytes
        await self._artifacts.collect(attempt.key, launch.artifacts_dir, max_bytes, result, output.note)
        return result

    async def _live(self, attempt: Attempt, output: AttemptLog, redaction: AttemptRedaction) -> None:
        work = self._work[attempt.key]
        await asyncio.wait([work])
        del self._work[attempt.key]
        redaction.finish()
        result = _decide(attempt, Exit(EndReason.STOPPED), output) if work.cancelled() else work.result()
        redaction.clean(result)
        attempt.offer.secrets.clear()  # the result may have to wait for minutes
        if attempt.apply(Event.END) is Action.REPORT:
            await self._report(attempt, result, output)
        else:
            self._artifacts.forget(attempt.key)
            self._log_stream.forget(output.file)
            self._holdings.remove(attempt.key)
            self._slots.release(weight_of(attempt.offer))
        self.concluded()
        await self._workshop.clean(attempt.key)

    async def _report(self, attempt: Attempt, result: AttemptResult, output: AttemptLog) -> None:
        output.finish()
        self._log_stream.finish(output.file)
        result.lease.CopyFrom(attempt.offer.lease)
        result.log_bytes = output.file.size
        result.log.CopyFrom(output.end())
        if result.artifacts:  # without them the result is worth nothing: it is kept once they are stored
            self._slots.release(weight_of(attempt.offer))
            await self._deliver(attempt, result)
            if self._holdings.get(attempt.key) is attempt:
                await self._outbox.keep(attempt.key, result)
        else:
            await self._outbox.keep(attempt.key, result)
            self._slots.release(weight_of(attempt.offer))
        if self._holdings.get(attempt.key) is attempt:
            self._outbox.add(attempt.key, result)
        else:  # released while it was written
            self._outbox.drop(attempt.key)
        if result.outcome != AttemptResult.SUCCEEDED:
            log.info("attempt_failed", code=result.failure.code, message=result.failure.message, **attempt.names)

    async def _deliver(self, attempt: Attempt, result: AttemptResult) -> None:
        self.concluded()
        await self._workshop.clean(attempt.key)
        await self._artifacts.deliver(attempt.key, result)


def _decide(attempt: Attempt, end: Exit, output: AttemptLog) -> AttemptResult:
    limits = attempt.offer.limits
    around = Circumstances(
        timeout_seconds=limits.timeout.ToTimedelta().total_seconds(),
        memory_bytes=limits.memory_bytes,
        output_bytes=limits.output_bytes,
        stopped_by=attempt.stopped_by,
        stop_reason=attempt.stop_reason,
        last_output=bounded_lines(output.tail(OutputStream.STDOUT)),
        last_errors=bounded_lines(output.tail(OutputStream.STDERR)),
        cpu_seconds=limits.cpu_time.ToTimedelta().total_seconds(),
        processes=limits.processes or DEFAULT_PROCESSES,
    )
    return decide(attempt.offer.lease, end, around)

"""A supervisor to test against, which plays the processes of attempts as it is scripted."""

import asyncio
from collections.abc import Awaitable, Callable

from towline_agent.execution import EndReason, Exit, Launch, OnOutput

Play = Callable[[Launch, OnOutput], Awaitable[Exit]]
"""What a played process does."""


class FakeSupervisor:
    """Plays processes: each ends at once with `null`, or does what is scripted for its node."""

    def __init__(self) -> None:
        self.launches: list[Launch] = []
        self.stopped: list[str] = []
        self.killed: list[str] = []
        self.frozen: set[str] = set()
        self.running = 0
        self.most_running = 0
        self.closed = False
        self._plays: dict[str, Play] = {}
        self._stops: dict[str, asyncio.Event] = {}
        self._starts: dict[str, asyncio.Event] = {}
        self._ends: dict[str, asyncio.Event] = {}

    def script(self, node: str, play: Play) -> None:
        """Says what the processes of a node do."""
        self._plays[node] = play

    def hold(self, node: str) -> "asyncio.Future[Exit]":
        """Keeps the processes of a node running until the returned future has their end."""
        end: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()

        async def play(launch: Launch, on_output: OnOutput) -> Exit:
            return await asyncio.shield(end)

        self.script(node, play)
        return end

    async def started(self, node: str) -> Launch:
        """Returns the launch of a node once it is there."""
        async with asyncio.timeout(20):
            await self._starts.setdefault(node, asyncio.Event()).wait()
        return next(launch for launch in self.launches if launch.environment["TOWLINE_NODE_ID"] == node)

    async def ended(self, node: str) -> None:
        """Returns once no process of a node is left."""
        async with asyncio.timeout(20):
            await self._ends.setdefault(node, asyncio.Event()).wait()

    async def run(self, launch: Launch, on_output: OnOutput) -> Exit:
        """Plays one attempt; a stop ends it with STOPPED."""
        node = launch.environment["TOWLINE_NODE_ID"]
        self.launches.append(launch)
        stop = self._stops[launch.key] = asyncio.Event()
        self._starts.setdefault(node, asyncio.Event()).set()
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            return await self._race(self._plays.get(node, _succeed)(launch, on_output), stop)
        except asyncio.CancelledError:
            self.killed.append(launch.key)
            raise
        finally:
            self.running -= 1
            self._ends.setdefault(node, asyncio.Event()).set()
            del self._stops[launch.key]

    def stop(self, key: str) -> None:
        """Makes `run` answer STOPPED."""
        self.stopped.append(key)
        if key in self._stops:
            self._stops[key].set()

    def freeze(self, key: str) -> None:
        """Remembers that it stands still."""
        self.frozen.add(key)

    def thaw(self, key: str) -> None:
        """Forgets it."""
        self.frozen.discard(key)

    async def close(self) -> None:
        """Remembers that it was closed."""
        self.closed = True

    async def _race(self, play: Awaitable[Exit], stop: asyncio.Event) -> Exit:
        playing, stopping = asyncio.ensure_future(play), asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([playing, stopping], return_when=asyncio.FIRST_COMPLETED)
            return playing.result() if playing.done() else Exit(EndReason.STOPPED)
        finally:
            playing.cancel()
            stopping.cancel()


async def _succeed(launch: Launch, on_output: OnOutput) -> Exit:
    return Exit(EndReason.EXITED, exit_code=0, result=b"null", elapsed_seconds=0.01)

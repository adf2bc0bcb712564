"""One channel to several replicas of a control plane, which are equal: a call goes to one that is connected.

Calls stay with a replica until its connection is gone or it leaves one unanswered: then the next ones go elsewhere.
What was under way fails, and whether to send it again is for the caller to decide. While no replica is connected, a
call waits for one that is being connected.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from grpc import ChannelConnectivity as State
from grpc import StatusCode, aio

from towline_sdk import tls
from towline_sdk.servers import addresses, has_tls, host_and_port

CONNECT_SECONDS: Final = 2.0
KEEPALIVE: Final = (
    # A third as often as the server allows, and without calls too: a peer that is gone is noticed before the next one.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
)
"""Options for every channel to a control plane."""
_HOPE: Final = (State.READY, State.CONNECTING, State.IDLE, State.TRANSIENT_FAILURE, State.SHUTDOWN)
"""States of a connection, the most promising first."""
_UNANSWERED: Final = {StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED}

Options = Sequence[tuple[str, Any]]


def open_channel(servers: str, options: Options, ca_file: Path | None = None) -> aio.Channel:
    """Opens a channel to one server or to several; it connects on first use and reconnects by itself."""
    channels = [_channel(address, options, ca_file) for address in addresses(servers)]
    return channels[0] if len(channels) == 1 else FailoverChannel(channels)


def _channel(address: str, options: Options, ca_file: Path | None) -> aio.Channel:
    if not has_tls(address):
        return aio.insecure_channel(host_and_port(address), options=options)
    return aio.secure_channel(host_and_port(address), tls.credentials(ca_file), options=options)


async def connected(channel: aio.Channel) -> None:
    """Returns once one of several replicas is connected, or after a moment; a single server's call itself tells."""
    if isinstance(channel, FailoverChannel):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CONNECT_SECONDS):
                await channel.channel_ready()


class FailoverChannel(aio.Channel):
    """Gives each call to the channel of one replica; the others are kept connected, ready to take over."""

    def __init__(self, channels: Sequence[aio.Channel]) -> None:
        self._channels = channels
        self._preferred = 0
        self._judgements: set[asyncio.Task[None]] = set()

    def get_state(self, try_to_connect: bool = False) -> State:
        """Returns the most promising state of all replicas."""
        return min((channel.get_state(try_to_connect) for channel in self._channels), key=_HOPE.index)

    async def wait_for_state_change(self, last_observed_state: State) -> None:
        """Returns once `get_state` is another one."""
        while (states := [channel.get_state() for channel in self._channels]) and (
            min(states, key=_HOPE.index) is last_observed_state
        ):
            await _first_of(
                [channel.wait_for_state_change(state) for channel, state in zip(self._channels, states, strict=True)]
            )

    async def channel_ready(self) -> None:
        """Returns once a replica is connected."""
        while (state := self.get_state(try_to_connect=True)) is not State.READY:
            await self.wait_for_state_change(state)

    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:
        """Returns the method of whichever replica is preferred when it is called."""
        return self._at_any([channel.unary_unary(*args, **kwargs) for channel in self._channels])

    def unary_stream(self, *args: Any, **kwargs: Any) -> Any:
        """Returns the method of whichever replica is preferred when it is called."""
        return self._at_any([channel.unary_stream(*args, **kwargs) for channel in self._channels])

    def stream_unary(self, *args: Any, **kwargs: Any) -> Any:
        """Returns the method of whichever replica is preferred when it is called."""
        return self._at_any([channel.stream_unary(*args, **kwargs) for channel in self._channels])

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        """Returns the method of whichever replica is preferred when it is called."""
        return self._at_any([channel.stream_stream(*args, **kwargs) for channel in self._channels])

    async def close(self, grace: float | None = None) -> None:
        """Closes the channels of all replicas."""
        await asyncio.gather(*(channel.close(grace) for channel in self._channels))

    async def __aenter__(self) -> "FailoverChannel":
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        await self.close()

    def _at_any(self, methods: Sequence[Callable[..., Any]]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            index = self._choose()
            begun = methods[index](*args, **kwargs)
            begun.add_done_callback(partial(self._look_at, index))
            return begun

        return call

    def _look_at(self, index: int, ended: aio.Call) -> None:
        judgement = asyncio.ensure_future(self._judge(index, ended))
        self._judgements.add(judgement)
        judgement.add_done_callback(self._judgements.discard)

    async def _judge(self, index: int, ended: aio.Call) -> None:
        """Turns to the next replica when the preferred one did not answer; of many such calls only the first does."""
        code = await ended.code()
        if index == self._preferred and code in _UNANSWERED:
            self._preferred = (index + 1) % len(self._channels)

    def _choose(self) -> int:
        states = [channel.get_state(try_to_connect=True) for channel in self._channels]
        count = len(states)
        in_order = [(self._preferred + offset) % count for offset in range(count)]
        self._preferred = min(in_order, key=lambda index: _HOPE.index(states[index]))
        return self._preferred


async def _first_of(waits: Sequence[Any]) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()

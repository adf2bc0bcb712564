"""How often callers may call: for each class of methods, by user and by address.

An address may stand for many users, so it has several times the rate of one. Agents are not limited: what they send is
bounded by their slots.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from ipaddress import IPv6Address, ip_address
from typing import Final

from towline_controlplane.rates import Charge, LocalMeter, Meter, Rate, charge

_USERS_PER_ADDRESS: Final = 4
_BURST_SECONDS: Final = 10
_SMALLEST_BURST: Final = 10
# Together they make the delay between attempts grow: 10 are free, then one each 6 s, each minute, each 5 minutes.
_ATTEMPTS: Final = (Rate(10, 10), Rate(1, 30), Rate(0.2, 100))


class RouteClass(StrEnum):
    """What a method counts as."""

    READ = "read"
    WRITE = "write"
    SIGN_IN = "sign-in"
    """Open to anybody, so counted by address alone."""


@dataclass(frozen=True, slots=True)
class CallRates:
    """Calls per minute: of a user, and of an address for what is open to anybody; 0: any number."""

    reads: int = 0
    writes: int = 0
    sign_ins: int = 0


@dataclass(frozen=True, slots=True)
class CallLimits:
    """Holds callers to their rates; raises RateLimited."""

    rates: CallRates = field(default_factory=CallRates)
    meter: Meter = field(default_factory=LocalMeter)

    async def check_address(self, kind: RouteClass, address: str) -> None:
        """Charges a call to the address it comes from."""
        if not address:
            return
        key, per_minute = f"{kind}:address:{block_of(address)}", self._per_minute(kind)
        if kind is RouteClass.SIGN_IN:
            await charge(self.meter, _charges(key, per_minute, per_minute))
        else:
            await charge(self.meter, _charges(key, per_minute * _USERS_PER_ADDRESS))

    async def check_user(self, kind: RouteClass, user_id: str) -> None:
        """Charges a call to its user."""
        await charge(self.meter, _charges(f"{kind}:user:{user_id}", self._per_minute(kind)))

    def _per_minute(self, kind: RouteClass) -> int:
        return {RouteClass.READ: self.rates.reads, RouteClass.WRITE: self.rates.writes}.get(kind, self.rates.sign_ins)


@dataclass(frozen=True, slots=True)
class Attempts:
    """Slows down who guesses passwords of an account from an address, and nobody else; raises RateLimited.

    An attempt is charged before it is judged, so that many at once gain nothing, and forgiven if it was right. From
    another address the account is reached as ever, so nobody can be locked out by others.
    """

    meter: Meter = field(default_factory=LocalMeter)

    async def begin(self, address: str, account: str) -> None:
        """Charges an attempt."""
        keys = _attempt_keys(address, account)
        await charge(self.meter, [Charge(key, rate) for key, rate in zip(keys, _ATTEMPTS, strict=True)])

    async def forgive(self, address: str, account: str) -> None:
        """Forgets all attempts, because one was right."""
        await self.meter.reset(_attempt_keys(address, account))


def block_of(address: str) -> str:
    """Returns what one party is likely to have: an IPv4 address, or the 64 bits of an IPv6 network."""
    parsed = ip_address(address)
    return str(IPv6Address(int(parsed) >> 64 << 64)) if isinstance(parsed, IPv6Address) else address


def _charges(key: str, per_minute: int, burst: int = 0) -> Sequence[Charge]:
    at_once = burst or max(_SMALLEST_BURST, per_minute * _BURST_SECONDS // 60)
    return (Charge(key, Rate(per_minute, at_once)),) if per_minute else ()


def _attempt_keys(address: str, account: str) -> list[str]:
    whose = sha256(account.encode()).hexdigest()[:32]
    where = block_of(address) if address else "nowhere"
    return [f"attempt:{index}:{where}:{whose}" for index in range(len(_ATTEMPTS))]

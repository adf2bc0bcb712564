"""What goes wrong in one simulation, drawn by its seed: each kind of fault is absent from many seeds.

A fault that is always there hides what only its absence lets happen.
"""

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Weather:
    """How bad it gets. Probabilities are per message, per step of a process or per transaction; times in seconds."""

    replicas: int
    agents: int
    lease_seconds: float
    offer_seconds: float
    storm_seconds: float
    """After so long nothing goes wrong any more."""
    latency: float
    """Mean of the delay of a message."""
    drop: float
    duplicate: float
    break_stream: float
    ring_lost: float
    work_seconds: float
    """Mean of what a transaction or a file takes."""
    slow_work: float
    """Share of transactions and files that take seconds."""
    database_error: float
    crash_replica: float
    crash_agent: float
    lose_disk: float
    """Share of the restarts of agents that lose the state folder."""
    partitions: int
    clock_jumps: int
    drains: int
    frosts: int
    """Runs that are frozen while something of them runs, and thawed later."""
    bans: int
    """Agents that an admin disables, and enables later."""


def draw(chance: random.Random) -> Weather:
    """Draws the weather of a seed."""

    def sometimes(share: float, *values: float) -> float:
        return chance.choice(values) if chance.random() < share else 0.0

    lease_seconds = chance.choice((4.0, 8.0, 15.0))
    return Weather(
        replicas=chance.choice((1, 2)),
        agents=chance.choice((1, 2, 2, 3)),
        lease_seconds=lease_seconds,
        offer_seconds=chance.choice((1.0, 2.0, 5.0)),
        storm_seconds=chance.choice((10.0, 20.0, 30.0)),
        latency=chance.choice((0.001, 0.02, 0.2)),
        drop=sometimes(0.6, 0.02, 0.1, 0.3),
        duplicate=sometimes(0.5, 0.05, 0.2),
        break_stream=sometimes(0.5, 0.02, 0.2),
        ring_lost=sometimes(0.4, 0.1, 1.0),
        work_seconds=chance.choice((0.0005, 0.005, 0.03)),
        slow_work=sometimes(0.3, 0.01, 0.05),
        database_error=sometimes(0.3, 0.01, 0.05),
        crash_replica=sometimes(0.6, 0.0005, 0.003),
        crash_agent=sometimes(0.5, 0.0005, 0.003),
        lose_disk=chance.choice((0.0, 0.5)),
        partitions=chance.choice((0, 0, 1, 2)),
        clock_jumps=chance.choice((0, 0, 0, 2)),
        drains=chance.choice((0, 0, 1, 2)),
        frosts=chance.choice((0, 2, 4)),
        bans=chance.choice((0, 0, 0, 1)),
    )

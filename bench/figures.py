"""How figures are taken and printed: the median of interleaved trials, with the smallest and largest."""

import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cost:
    """What a number of steps took: seconds on the wall, and of this process's CPU."""

    steps: int
    wall: float
    cpu: float

    @property
    def per_second(self) -> float:
        """Steps per second on the wall."""
        return self.steps / self.wall

    @property
    def cpu_us(self) -> float:
        """Microseconds of this process's CPU per step."""
        return self.cpu / self.steps * 1e6


class Stopwatch:
    """Starts when it is made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def cost(self, steps: int) -> Cost:
        """Returns what `steps` took since the start."""
        return Cost(steps, time.perf_counter() - self._wall, time.process_time() - self._cpu)


def spread(values: Iterable[float], digits: int = 0) -> str:
    """Returns the median with the smallest and largest of the values."""
    known = sorted(values)
    middle, low, high = (f"{value:,.{digits}f}" for value in (statistics.median(known), known[0], known[-1]))
    return f"{middle} ({low}–{high})"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

"""`make simulate SEEDS=n`: simulates many seeds on all cores and stops at the first that finds something.

`SEED=k` replays one and prints all that happened; `MUTANT=name` switches a bug on that must be found.
"""

import argparse
import contextlib
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator

from mutants import MUTANTS

from simulation import Report, simulate


def main() -> int:
    """Runs the command; its exit code is 1 if a defect was found."""
    parser = argparse.ArgumentParser(prog="simulate")
    parser.add_argument("--seeds", type=int, default=1_000, help="how many seeds")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="replay this one")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), help="switch a bug on")
    options = parser.parse_args()
    if options.seed is not None:
        return _replay(options.seed, options.mutant)
    return _search(options.first, options.seeds, options.mutant)


def _replay(seed: int, mutant: str | None) -> int:
    report = _simulate(seed, mutant, keep_trace=True)
    print("\n".join(report.lines))
    print(f"\n{report.weather}\n")
    print("\n".join(report.defects) or "nothing was found")
    return 1 if report.defects else 0


def _search(first: int, count: int, mutant: str | None) -> int:
    began = time.monotonic()
    done = 0
    for report in _reports(first, count, mutant):
        done += 1
        if report.defects:
            print(f"seed {report.seed} found:\n  " + "\n  ".join(report.defects[:5]))
            print(f"replay it with: {replay_command(report.seed, mutant)}")
            return 1
        if done % 500 == 0:
            print(f"{done} seeds, {done / (time.monotonic() - began):.1f} a second", flush=True)
    print(f"{done} seeds from {first} on, nothing found, in {time.monotonic() - began:.0f} s")
    return 0


def replay_command(seed: int, mutant: str | None = None) -> str:
    """Returns what to type to see a seed again."""
    return f"make simulate SEED={seed}" + (f" MUTANT={mutant}" if mutant else "")


def _reports(first: int, count: int, mutant: str | None) -> Iterator[Report]:
    # A worker is replaced now and then: whatever a simulation may leave behind must not add up.
    with multiprocessing.Pool(os.cpu_count(), maxtasksperchild=50) as workers:
        tasks = ((seed, mutant) for seed in range(first, first + count))
        yield from workers.imap_unordered(_task, tasks, chunksize=4)


def _task(task: tuple[int, str | None]) -> Report:
    return _simulate(*task)


def _simulate(seed: int, mutant: str | None, *, keep_trace: bool = False) -> Report:
    with MUTANTS[mutant].switch() if mutant else contextlib.nullcontext():
        return simulate(seed, keep_trace=keep_trace)


if __name__ == "__main__":
    sys.exit(main())

"""What does each sandbox level cost a short step? From the launch of a warm Python plugin that does nothing to its end.

`python -m bench.sandbox_start [starts]` prints a table of milliseconds; as root L3 has a user of its own, and with
control groups there is L4. The other levels are measured without groups.
"""

import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from towline_agent import cgroups
from towline_agent.cgroups import Hierarchy
from towline_agent.execution import Launch
from towline_agent.sandbox.group_attacks import can_contain
from towline_agent.sandbox.levels import Confinement, Level, Network
from towline_agent.supervisor_client import ProcessSupervisor

_UID = 60600
_MIB = 1024 * 1024
_CASES = (
    (Level.L0, Network.HOST),
    (Level.L1, Network.HOST),
    (Level.L2, Network.HOST),
    (Level.L2, Network.FILTERED),
    (Level.L3, Network.HOST),
    (Level.L3, Network.FILTERED),
    (Level.L3, Network.OWN),
)
_CONTAINED = (Level.L4, Network.OWN)


def _launch(key: str, folder: Path, confinement: Confinement) -> Launch:
    work = folder / key
    work.mkdir()
    if confinement.uid is not None:
        os.chown(work, confinement.uid, confinement.uid)
    return Launch(
        key=key,
        entry_point="python:nothing:run",
        work_dir=work,
        artifacts_dir=work,
        plugin_dir=folder.parent / "plugin",
        environment={"PATH": os.defpath},
        stdin=b"{}",
        timeout_seconds=60,
        memory_bytes=512 * _MIB,
        output_bytes=_MIB,
        confinement=confinement,
    )


async def _time(supervisor: ProcessSupervisor, folder: Path, confinement: Confinement, count: int) -> list[float]:
    found: list[float] = []
    for number in range(count):
        launch = _launch(str(number), folder, confinement)
        started = time.perf_counter()
        ended = await supervisor.run(launch, lambda _stream, _data: None)
        found.append((time.perf_counter() - started) * 1000)
        if ended.exit_code != 0:
            raise SystemExit(f"{confinement}: {ended}")
    return found


def _furnished(folder: Path) -> Path:
    folder.chmod(0o711)
    (folder / "plugin").mkdir(mode=0o755)
    (folder / "plugin" / "nothing.py").write_text("def run():\n    pass\n")
    return folder


async def _measure(supervisor: ProcessSupervisor, contained: ProcessSupervisor | None, count: int) -> None:
    cases = _CASES if contained is None else (*_CASES, _CONTAINED)
    with tempfile.TemporaryDirectory() as place:
        folder = _furnished(Path(place))
        own_user = _UID if os.geteuid() == 0 else None
        rounds = [Confinement(level, network, own_user if level >= Level.L3 else None) for level, network in cases]
        taken: dict[Confinement, list[float]] = {confinement: [] for confinement in rounds}
        for turn in range(10):  # in turns, so that a slow moment of the machine hits all alike
            for confinement in rounds:
                inner = folder / f"{turn}-{confinement.level.name}-{confinement.network}"
                inner.mkdir(mode=0o711)
                by = contained if contained is not None and confinement.level is Level.L4 else supervisor
                taken[confinement] += await _time(by, inner, confinement, count // 10)
    for each in (supervisor, contained):
        if each is not None:
            await each.close()
    print("| level | network | p50 ms | p95 ms | p50 above L0 |")
    print("|---|---|---|---|---|")
    base = statistics.median(taken[rounds[0]])
    for confinement, values in taken.items():
        p50, p95 = statistics.median(values), statistics.quantiles(values, n=20)[-1]
        name, network = confinement.level.name, confinement.network
        print(f"| {name} | {network} | {p50:.1f} | {p95:.1f} | {p50 - base:+.1f} |")


def main() -> None:
    """Measures and prints."""
    groups = _groups()
    try:
        supervisor = ProcessSupervisor.start(())
        contained = ProcessSupervisor.start((), groups=groups) if os.geteuid() == 0 and can_contain(groups) else None
        asyncio.run(_measure(supervisor, contained, int(sys.argv[1]) if len(sys.argv) > 1 else 200))
    finally:
        groups.dissolve()


def _groups() -> Hierarchy:
    try:
        return cgroups.claim()
    except cgroups.Unavailable as reason:
        return Hierarchy.none(str(reason))


if __name__ == "__main__":
    main()

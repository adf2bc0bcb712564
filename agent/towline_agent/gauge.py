"""What an attempt uses, looked at again and again: the last looks, the largest, and which limit was passed.

Where there is a control group the kernel counts, exactly and at little cost; otherwise the processes are added up.
"""

from collections import deque
from dataclasses import dataclass, field, replace

from towline_agent import oom_kills, process_tree
from towline_agent.cgroup_files import Controller, Reading
from towline_agent.cgroups import Group
from towline_agent.execution import EndReason, Launch, Sample, Watch

SAMPLE_SECONDS = 0.1
MOST_SAMPLES = 60


@dataclass(slots=True)
class Gauge:
    """Measures the processes below a shim; `group` is theirs alone, or None."""

    launch: Launch
    shim_pid: int
    group: Group | None
    peak_bytes: int = 0
    _samples: deque[Sample] = field(default_factory=lambda: deque[Sample](maxlen=MOST_SAMPLES))
    _tasks: int = 0
    _counted: Reading = field(default_factory=Reading)
    _kills_before: int | None = None
    """Around the agent; by the first look, for a start must not wait for it."""

    def look(self, offset_seconds: float) -> None:
        """Takes a sample."""
        counted = self._counted = Reading() if self.group is None else self.group.read()
        if self._kills_before is None and not self._has(Controller.MEMORY):
            self._kills_before = oom_kills.count()
        memory, cpu = counted.memory_bytes, counted.cpu_seconds
        if memory is None or cpu is None or not self._has(Controller.PIDS):
            seen = process_tree.look(self.shim_pid, self.launch.memory_bytes)
            memory = seen.memory_bytes if memory is None else memory
            cpu = seen.cpu_seconds if cpu is None else cpu
            self._tasks = seen.tasks
        self.peak_bytes = max(self.peak_bytes, memory)
        if memory or not self._samples:  # else nobody was left to measure
            self._samples.append(Sample(round(offset_seconds, 3), memory, round(cpu, 3)))

    def passed(self) -> EndReason | None:
        """The limit that the last look found passed."""
        last = self._samples[-1]
        if last.memory_bytes > self.launch.memory_bytes or self._counted.oom_kills:
            return EndReason.MEMORY_LIMIT
        if self._tasks > self.launch.processes or self._counted.refused_processes:
            return EndReason.PROCESS_LIMIT
        if self.launch.cpu_seconds and last.cpu_seconds >= self.launch.cpu_seconds:
            return EndReason.CPU_LIMIT
        return None

    def conclude(self, *, look_closely: bool) -> Watch:
        """What is known in the end; what the kernel has counted is read only where somebody will want to know."""
        seen = Watch(tuple(self._samples), SAMPLE_SECONDS, by_kernel=self._has(Controller.MEMORY))
        if not look_closely:
            return seen
        seen = replace(seen, kills_around=self._kills_around())
        if self.group is None:
            return seen
        counted = self._counted = self.group.read()
        return replace(
            seen,
            kernel_kills=counted.oom_kills,
            was_at_limit=counted.limit_hits > 0,
            refused_processes=counted.refused_processes,
            left=len(self.group.pids()),
        )

    def peak(self, largest_process_bytes: int) -> int:
        """The largest use: as the kernel counted it if it killed for it, else the largest sample or process."""
        if self._counted.oom_kills and self._counted.peak_bytes is not None:
            return self._counted.peak_bytes
        return max(self.peak_bytes, largest_process_bytes)

    def _kills_around(self) -> int:
        return 0 if self._kills_before is None else max(0, oom_kills.count() - self._kills_before)

    def _has(self, controller: Controller) -> bool:
        return self.group is not None and controller in self.group.folders

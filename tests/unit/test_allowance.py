"""What an attempt may use: who asks, and who has the last word."""

from dataclasses import replace
from typing import Any

import pytest

from towline_controlplane.engine.allowance import Allowed, ServerLimits, allow
from towline_controlplane.engine.graph import compile_dag
from towline_controlplane.model import PluginRef
from towline_dag.choices import Limits, SideEffects

PLUGIN = PluginRef("P", "1", "digest", "run", SideEffects.NONE)
SERVER = ServerLimits(
    timeout_ms=1_000,
    memory_limit_mb=100,
    defaults=Limits(processes=10, output_kb=8),
    most_timeout_ms=5_000,
    most_memory_mb=400,
    most=Limits(processes=50, output_kb=8, cpu_seconds=60),
)
NOTHING: dict[str, Any] = {}


def allowed(node: dict[str, Any], plugin: PluginRef = PLUGIN, raised_mb: int = 0) -> Allowed:
    dag = compile_dag({"nodes": [{"id": "a", "type": "P", **node}], "edges": []})
    return allow(dag.nodes[0], plugin, raised_mb, SERVER)


@pytest.mark.parametrize(
    ("node", "plugin", "raised_mb", "timeout_ms", "memory_mb"),
    [
        (NOTHING, PLUGIN, 0, 1_000, 100),
        ({"timeoutMs": 3_000, "memoryLimitMb": 200}, PLUGIN, 0, 3_000, 200),
        (NOTHING, replace(PLUGIN, timeout_ms=2_000, memory_limit_mb=50), 0, 2_000, 50),
        ({"timeoutMs": 500}, replace(PLUGIN, timeout_ms=2_000), 0, 500, 100),
        ({"timeoutMs": 50_000, "memoryLimitMb": 5_000}, PLUGIN, 0, 5_000, 400),
        ({"memoryLimitMb": 100}, PLUGIN, 200, 1_000, 200),
        ({"memoryLimitMb": 100}, PLUGIN, 800, 1_000, 400),
    ],
)
def test_time_and_memory(
    node: dict[str, Any], plugin: PluginRef, raised_mb: int, timeout_ms: int, memory_mb: int
) -> None:
    limits = allowed(node, plugin, raised_mb)
    assert (limits.timeout_ms, limits.memory_limit_mb) == (timeout_ms, memory_mb)


@pytest.mark.parametrize(
    ("node", "plugin", "expected"),
    [
        (NOTHING, Limits(), Limits(processes=10, output_kb=8, cpu_seconds=60)),
        ({"processes": 30}, Limits(processes=5), Limits(processes=30, output_kb=8, cpu_seconds=60)),
        (NOTHING, Limits(processes=5), Limits(processes=5, output_kb=8, cpu_seconds=60)),
        ({"processes": 500, "outputKb": 4_000}, Limits(), Limits(processes=50, output_kb=8, cpu_seconds=60)),
        ({"cpuSeconds": 5, "fileMb": 7}, Limits(), Limits(processes=10, output_kb=8, cpu_seconds=5, file_mb=7)),
        ({"outputKb": 4, "logKb": 9}, Limits(), Limits(processes=10, output_kb=4, cpu_seconds=60, log_kb=9)),
        (NOTHING, Limits(open_files=20), Limits(processes=10, output_kb=8, cpu_seconds=60, open_files=20)),
    ],
)
def test_the_rest(node: dict[str, Any], plugin: Limits, expected: Limits) -> None:
    assert allowed({"limits": node}, replace(PLUGIN, limits=plugin)).rest == expected

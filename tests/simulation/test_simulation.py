"""Whole control planes and agents in a storm of faults, seed by seed; nothing may break, and everything must end."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mutants import MUTANTS
from simulate import replay_command

from simulation import simulate

CHUNK = 10
CHUNKS = range(0, 200, CHUNK)

pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize("first", CHUNKS)
def test_nothing_breaks(first: int) -> None:
    for seed in range(first, first + CHUNK):
        report = simulate(seed)
        assert not report.defects, f"{report.defects}; see it with: {replay_command(seed)}"


@pytest.mark.parametrize("name", MUTANTS)
def test_a_bug_is_found(name: str) -> None:
    mutant = MUTANTS[name]
    with mutant.switch():
        assert any(simulate(seed).defects for seed in range(mutant.first, mutant.first + mutant.seeds)), (
            f"{name} passes {mutant.seeds} seeds"
        )


@pytest.mark.parametrize("seed", [3, 22])
def test_a_seed_does_the_same_in_every_process(seed: int) -> None:
    script = f"from simulation import simulate; print(simulate({seed}).digest)"
    here = str(Path(__file__).parent)
    digests = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONPATH": here, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert digests == {f"{simulate(seed).digest}\n"}

"""The control plane ends at every single thing that it does to its database, and the run ends as if it had not (F1)."""

import asyncio
import itertools

import pytest
from faults import Faults
from lives import Life, Stage
from plots import PLOTS, Cast, Plot
from sqlalchemy import func, select

from towline_controlplane.audit.auditor import audit_runs
from towline_controlplane.store import tables
from towline_controlplane.store.database import Transaction

IDS = [plot.name for plot in PLOTS]


@pytest.mark.parametrize("plot", PLOTS, ids=IDS)
def test_an_exit_at_any_point_changes_nothing(stage: Stage, plot: Plot) -> None:
    async def scenario() -> int:
        first = await cast_of(stage.life(), plot)
        for at in itertools.count(1):
            faults, cast = Faults(at), Cast(plot, first.version, first.agent)
            life = stage.life(faults)
            if await life.survives(cast.play(life)):
                return at
            life = stage.life()
            assert await life.survives(cast.play(life))
            await check(life, cast, at)
        raise AssertionError

    assert asyncio.run(scenario()) > 20


async def cast_of(life: Life, plot: Plot) -> Cast:
    version = await life.rig.workflow(plot.nodes, plot.edges, plot.conditions, **plot.policies)
    return Cast(plot, version, await life.rig.agent())


async def check(life: Life, cast: Cast, runs: int) -> None:
    """The run is as it ends without a fault, it is the only one of its key, and no row of it is out of order."""
    state, steps = cast.plot.ends
    assert (await life.rig.run(cast.run_id)).state is state
    assert {node_id: step.state for node_id, step in (await life.rig.steps(cast.run_id)).items()} == steps
    assert await life.rig.database.read(lambda tx: count_runs(tx, cast.version.id)) == runs
    breaches = await life.rig.database.read(lambda tx: audit_runs(tx, life.rig.orchestrator.blueprints, [cast.run_id]))
    assert breaches == []


def count_runs(tx: Transaction, version_id: str) -> int:
    runs = tables.runs
    return tx.connection.execute(select(func.count()).where(runs.c.version_id == version_id)).scalar_one()

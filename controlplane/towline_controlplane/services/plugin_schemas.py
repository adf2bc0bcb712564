"""Holds what runs against the schemas of its plugin: configs once they are rendered, outputs as they are reported.

Plugins and versions never change, so that what is known of them is kept. A run's plugins are remembered from the offers
of its steps; only a report of what another replica has offered asks the database.
"""

import asyncio
import json
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from towline_controlplane.engine.commands import EndAttempt, Outcome
from towline_controlplane.errors import Violation
from towline_controlplane.handouts import StepOffer
from towline_controlplane.model import Failure, FailureClass, PluginRef
from towline_controlplane.store import plugins, runs, workflows
from towline_controlplane.store.database import Database, Transaction
from towline_controlplane.submissions import Report
from towline_dag.schemas import Checker
from towline_plugins.catalog import BUILTINS

_KEPT_SCHEMAS: Final = 1_000
_KEPT_STEPS: Final = 50_000
_CHECKED_IN_PLACE: Final = 32 * 1024
"""Outputs up to this size are checked without leaving the event loop."""
_MAX_TOLD: Final = 5

StepKey = tuple[str, str]


@dataclass(frozen=True, slots=True)
class _Schemas:
    config: Checker
    output: Checker


_BUILTIN: Final = {
    name: _Schemas(Checker(each.config_schema), Checker(each.output_schema)) for name, each in BUILTINS.items()
}


@dataclass(slots=True)
class PluginSchemas:
    """The schemas by digest, and which plugin a step calls, both bounded, the oldest forgotten first."""

    database: Database
    _by_digest: OrderedDict[str, _Schemas] = field(default_factory=OrderedDict[str, _Schemas])
    _of_steps: OrderedDict[StepKey, PluginRef] = field(default_factory=OrderedDict[StepKey, PluginRef])

    async def wrong_config(self, given: StepOffer) -> Failure | None:
        """Returns why a step that is about to be offered must not run: its rendered config does not fit.

        A config without templates was judged when its workflow version was created.
        """
        _remember(self._of_steps, (given.step.run_id, given.step.node_id), given.plugin, _KEPT_STEPS)
        if given.step.config is None:
            return None
        checker = (await self._schemas(given.plugin)).config
        wrong = checker.wrong(json.loads(given.config), "config")
        return _failure("INVALID_CONFIG", "The config does not fit the schema of the plugin", wrong) if wrong else None

    async def judged(self, reports: Sequence[Report]) -> list[Report]:
        """Returns the reports, those whose output does not fit the plugin's schema as permanent failures."""
        ended_well = [each for each in reports if each.end.outcome is Outcome.SUCCEEDED and each.end.output is not None]
        await self._learn((each.lease.run_id, each.lease.node_id) for each in ended_well)
        return [await self._judged(each) if each.end.output is not None else each for each in reports]

    async def _judged(self, report: Report) -> Report:
        plugin = self._of_steps.get((report.lease.run_id, report.lease.node_id))
        if plugin is None or report.end.output is None:  # no such step: the lease will be found stale
            return report
        checker = (await self._schemas(plugin)).output
        if checker.accepts_all:
            return report
        text = report.end.output
        large = len(text) > _CHECKED_IN_PLACE
        wrong = await asyncio.to_thread(_wrong, checker, text) if large else _wrong(checker, text)
        return replace(report, end=_failed(report.end, wrong)) if wrong else report

    async def _learn(self, keys: Iterable[StepKey]) -> None:
        unknown = [key for key in keys if key not in self._of_steps]
        if unknown:
            found = await self.database.read(lambda tx: _plugins_of(tx, unknown))
            for key, plugin in found.items():
                _remember(self._of_steps, key, plugin, _KEPT_STEPS)

    async def _schemas(self, plugin: PluginRef) -> _Schemas:
        if not plugin.digest:
            return _BUILTIN.get(plugin.name, _NONE)
        known = self._by_digest.get(plugin.digest)
        if known is None:
            version = await self.database.read(lambda tx: plugins.find_by_digest(tx, plugin.digest))
            known = _NONE if version is None else _compiled(version.config_schema, version.output_schema)
            _remember(self._by_digest, plugin.digest, known, _KEPT_SCHEMAS)
        return known


def _compiled(config_schema: str, output_schema: str) -> _Schemas:
    return _Schemas(Checker(json.loads(config_schema)), Checker(json.loads(output_schema)))


_NONE: Final = _compiled("{}", "{}")


def _plugins_of(tx: Transaction, keys: Iterable[StepKey]) -> dict[StepKey, PluginRef]:
    known: dict[str, Mapping[str, PluginRef]] = {}
    found: dict[StepKey, PluginRef] = {}
    for run_id, node_id in keys:
        if run_id not in known:
            run = runs.get_run(tx, run_id, None)
            version = None if run is None else workflows.get_version(tx, run.version_id)
            known[run_id] = {} if version is None else version.plugins
        if node_id in known[run_id]:
            found[run_id, node_id] = known[run_id][node_id]
    return found


def _remember(kept: OrderedDict[Any, Any], key: object, value: object, most: int) -> None:
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > most:
        kept.popitem(last=False)


def _wrong(checker: Checker, text: str) -> list[Violation]:
    return checker.wrong(json.loads(text), "output")


def _failed(end: EndAttempt, wrong: Sequence[Violation]) -> EndAttempt:
    failure = _failure("INVALID_OUTPUT", "The output does not fit the schema of the plugin", wrong)
    return replace(end, outcome=Outcome.FAILED, output=None, failure=failure)


def _failure(code: str, message: str, wrong: Sequence[Violation]) -> Failure:
    told = "; ".join(f"{each.field} {each.message}" for each in wrong[:_MAX_TOLD])
    return Failure(FailureClass.PERMANENT, code, f"{message}: {told}"[:8_192], told[:8_192])

"""Between rows and the nouns of the model: one column per field, in the order of the fields.

Enums are stored by value, failures, usages and mappings as JSON text, everything else as it is.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from operator import attrgetter
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Connection, Select, Table
from sqlalchemy.dialects import postgresql, sqlite

from towline_controlplane.artifact_records import Artifact
from towline_controlplane.evidence import Cause, Evidence
from towline_controlplane.identity import ApiKey, AuditEvent, CredentialKind, SignIn
from towline_controlplane.model import (
    AgentRecord,
    Attempt,
    AttemptState,
    Event,
    EventType,
    Failure,
    FailureClass,
    PluginRef,
    Role,
    Run,
    RunState,
    Step,
    StepState,
    Usage,
    User,
    Workflow,
    WorkflowVersion,
)
from towline_controlplane.registry import Permissions, Plugin, PluginVersion
from towline_controlplane.schedule_records import Firing, Origin, Outcome, Overlap, Schedule
from towline_controlplane.vault import Secret
from towline_dag.choices import DEFAULT_LIMITS, Limits, Network, SideEffects

T = TypeVar("T")

_INSERTS = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


@dataclass(frozen=True, slots=True)
class Conversion:
    """How a field becomes a column and back."""

    store: Callable[[Any], object]
    load: Callable[[Any], Any]


class Mapped(Generic[T]):
    """A dataclass and its columns; `conversions` names the fields that are not stored as they are."""

    def __init__(self, kind: type[T], **conversions: Conversion) -> None:
        self.names = tuple(field.name for field in fields(kind))  # pyright: ignore[reportArgumentType]
        self._kind = kind
        self._values = attrgetter(*self.names)
        self._conversions = [(self.names.index(name), conversion) for name, conversion in conversions.items()]

    def load(self, row: Sequence[Any]) -> T:
        """Returns the object of a row whose columns are `names`."""
        values = list(row)
        for index, conversion in self._conversions:
            values[index] = conversion.load(values[index])
        return self._kind(*values)

    def values(self, item: T) -> list[Any]:
        """Returns the columns of an object, in the order of `names`."""
        values = list(self._values(item))
        for index, conversion in self._conversions:
            values[index] = conversion.store(values[index])
        return values

    def row(self, item: T) -> dict[str, Any]:
        """Returns the columns of an object by name."""
        return dict(zip(self.names, self.values(item), strict=True))

    def stored(self, name: str, value: object) -> object:
        """Returns a value of a field as its column has it."""
        index = self.names.index(name)
        return next((each.store(value) for place, each in self._conversions if place == index), value)

    def picker(self, names: Iterable[str]) -> Callable[[T], Sequence[Any]]:
        """Returns what takes two or more columns of an object, in the order of `names`."""
        names = tuple(names)
        fields_of = attrgetter(*names)
        places = {self.names[index]: conversion.store for index, conversion in self._conversions}
        conversions = [(place, places[name]) for place, name in enumerate(names) if name in places]

        def pick(item: T) -> Sequence[Any]:
            values = [*fields_of(item)]
            for place, store in conversions:
                values[place] = store(values[place])
            return values

        return pick

    def differing(self, old: T, new: T) -> tuple[str, ...]:
        """Returns the names of the fields in which two objects differ."""
        pairs = zip(self.names, self._values(old), self._values(new), strict=True)
        return tuple([name for name, before, after in pairs if before is not after and before != after])

    def columns(self, *tables: Table) -> list[ColumnElement[Any]]:
        """Returns the columns in the order of `names`, each from the first of the tables that has it."""
        return [next(table.c[name] for table in tables if name in table.c) for name in self.names]

    def all(self, connection: Connection, query: Select[Any]) -> list[T]:
        """Returns the objects of a query for `columns`."""
        return [self.load(row) for row in connection.execute(query)]

    def first(self, connection: Connection, query: Select[Any]) -> T | None:
        """Returns the object of the first row of a query for `columns`."""
        row = connection.execute(query).first()
        return None if row is None else self.load(row)


def insert_if_absent(connection: Connection, table: Table, row: Mapping[str, Any]) -> bool:
    """Inserts a row unless one of its unique keys is taken; tells whether it did. The transaction stays usable."""
    dialect_insert = _INSERTS[connection.dialect.name]
    statement = dialect_insert(table).values(row).on_conflict_do_nothing()
    return connection.execute(statement, execution_options={"preserve_rowcount": True}).rowcount == 1


to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
"""Returns compact JSON text."""


def _failure_to_json(failure: Failure | None) -> str | None:
    return None if failure is None else to_json(asdict(failure))


def _failure_from_json(text: str | None) -> Failure | None:
    return None if text is None else _failure(**json.loads(text))


def _failure(kind: str, **values: Any) -> Failure:
    return Failure(FailureClass(kind), **values)


_USED = tuple(each.name for each in fields(Usage))
_ALWAYS_USED = frozenset({"peak_memory_bytes", "cpu_seconds", "log_bytes"})


def _usage_to_json(usage: Usage) -> str:
    values = {name: getattr(usage, name) for name in _USED}
    return to_json({name: value for name, value in values.items() if value or name in _ALWAYS_USED})


def _usage_from_json(text: str) -> Usage:
    # A later release may know more of an attempt.
    return Usage(**{name: value for name, value in json.loads(text).items() if name in _USED})


def _evidence_to_json(evidence: Evidence | None) -> str | None:
    return None if evidence is None else f'["{evidence.cause.value}",{evidence.facts}]'


def _evidence_from_json(text: str | None) -> Evidence | None:
    if text is None:
        return None
    cause, facts = json.loads(text)
    return Evidence(Cause(cause), to_json(facts))


_REF_CONVERSIONS: Mapping[str, Callable[[Any], Any]] = {
    "side_effects": SideEffects,
    "network": Network,
    "secrets": tuple,
    "limits": lambda values: Limits(**values),
}
_REF_DEFAULTS = {each.name: each.default for each in fields(PluginRef) if each.default is not MISSING}


def _refs_to_json(refs: Mapping[str, PluginRef]) -> str:
    return to_json({node_id: _ref_to_values(ref) for node_id, ref in refs.items()})


def _ref_to_values(ref: PluginRef) -> dict[str, Any]:
    """Defaults are left out, so that a release before this one reads what asks for nothing that it does not know."""
    unset = object()
    said = (each.name for each in fields(ref) if getattr(ref, each.name) != _REF_DEFAULTS.get(each.name, unset))
    values = {name: getattr(ref, name) for name in said}
    return values if ref.limits == DEFAULT_LIMITS else values | {"limits": _limits_to_values(ref.limits)}


def _refs_from_json(text: str) -> dict[str, PluginRef]:
    return {node_id: _ref(values) for node_id, values in json.loads(text).items()}


def _ref(values: Mapping[str, Any]) -> PluginRef:
    return PluginRef(**{name: _REF_CONVERSIONS.get(name, _as_it_is)(value) for name, value in values.items()})


def _as_it_is(value: Any) -> Any:
    return value


def _permissions_from_json(text: str) -> Permissions:
    values = json.loads(text)
    return Permissions(Network(values.get("network", Network.FULL)), tuple(values.get("secrets", ())))


def _limits_to_values(limits: Limits) -> dict[str, int]:
    return {name: value for name, value in asdict(limits).items() if value}


def _enum(kind: type[Any]) -> Conversion:
    return Conversion(attrgetter("_value_"), kind)


_BOOLEAN = Conversion(bool, bool)
_MAPPING = Conversion(to_json, json.loads)
_NAMES = Conversion(to_json, lambda text: tuple(json.loads(text)))
_FAILURE = Conversion(_failure_to_json, _failure_from_json)
_PERMISSIONS = Conversion(lambda permissions: to_json(asdict(permissions)), _permissions_from_json)
_LIMITS = Conversion(
    lambda limits: to_json(_limits_to_values(limits)),
    lambda text: Limits(**json.loads(text)),
)
_USAGE = Conversion(_usage_to_json, _usage_from_json)
_EVIDENCE = Conversion(_evidence_to_json, _evidence_from_json)

RUN = Mapped(
    Run,
    state=_enum(RunState),
    labels=_MAPPING,
    cancel_requested=_BOOLEAN,
    error=_FAILURE,
    deadline_reached=_BOOLEAN,
    admitted=_BOOLEAN,
    frozen=_BOOLEAN,
)
STEP = Mapped(Step, state=_enum(StepState), held=_BOOLEAN, error=_FAILURE)
ATTEMPT = Mapped(Attempt, state=_enum(AttemptState), error=_FAILURE, usage=_USAGE, evidence=_EVIDENCE)
ARTIFACT = Mapped(Artifact)
EVENT = Mapped(Event, type=_enum(EventType), details=_MAPPING)
USER = Mapped(User, role=_enum(Role), disabled=_BOOLEAN)
AUDIT_EVENT = Mapped(AuditEvent, credential=_enum(CredentialKind), target=_MAPPING)
SIGN_IN = Mapped(SignIn)
API_KEY = Mapped(ApiKey, scopes=_NAMES)
WORKFLOW = Mapped(Workflow)
WORKFLOW_VERSION = Mapped(WorkflowVersion, plugins=Conversion(_refs_to_json, _refs_from_json))
AGENT = Mapped(AgentRecord, labels=_MAPPING, drained=_BOOLEAN, disabled=_BOOLEAN, plugins=_NAMES, lacking=_NAMES)
PLUGIN = Mapped(Plugin)
PLUGIN_VERSION = Mapped(
    PluginVersion,
    side_effects=_enum(SideEffects),
    enabled=_BOOLEAN,
    permissions=_PERMISSIONS,
    limits=_LIMITS,
)
SECRET = Mapped(Secret)
SCHEDULE = Mapped(Schedule, labels=_MAPPING, overlap=_enum(Overlap), paused=_BOOLEAN)
FIRING = Mapped(
    Firing,
    outcome=_enum(Outcome),
    origin=_enum(Origin),
    run_state=Conversion(lambda state: state and state.value, lambda state: state and RunState(state)),
)

"""What an audit looks at and what it finds. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from towline_controlplane.engine.graph import Dag
from towline_controlplane.model import Attempt, Event, Run, Step


@dataclass(frozen=True, slots=True)
class Breach:
    """An invariant that does not hold: its number, of what, what was expected and what is there instead."""

    invariant: str
    what: str
    expected: object
    found: object
    run_id: str = ""
    node_id: str = ""

    def __str__(self) -> str:
        place = "".join(f" {kind} {name}" for kind, name in (("run", self.run_id), ("step", self.node_id)) if name)
        return f"{self.invariant}{place}: {self.what}: expected {self.expected}, found {self.found}"


@dataclass(frozen=True, slots=True)
class RunRows:
    """All rows of one run at one moment, and the DAG that it executes.

    `attempts` are by node id in the order of their numbers; `events` in the order of theirs.
    """

    dag: Dag
    run: Run
    steps: Mapping[str, Step]
    attempts: Mapping[str, Sequence[Attempt]]
    events: Sequence[Event]
    run_input: object = None
    """The parsed input, if a condition may read it."""
    outputs: Mapping[str, object] = field(default_factory=dict[str, object])
    """Parsed outputs of the SUCCEEDED nodes that conditions refer to."""


@dataclass(slots=True)
class Findings:
    """Collects the breaches of one run."""

    run_id: str
    breaches: list[Breach] = field(default_factory=list[Breach])

    def equal(self, invariant: str, what: str, expected: object, found: object, node_id: str = "") -> None:
        """Notes a breach unless the two are equal."""
        if expected != found:
            self.breaches.append(Breach(invariant, what, expected, found, self.run_id, node_id))

    def at_least(self, invariant: str, what: str, least: int, found: int, node_id: str = "") -> None:
        """Notes a breach if `found` is less than `least`."""
        if found < least:
            self.breaches.append(Breach(invariant, what, f"at least {least}", found, self.run_id, node_id))

    def at_most(self, invariant: str, what: str, most: int, found: int, node_id: str = "") -> None:
        """Notes a breach if `found` is more than `most`."""
        if found > most:
            self.breaches.append(Breach(invariant, what, f"at most {most}", found, self.run_id, node_id))

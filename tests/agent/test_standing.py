"""How an attempt is confined by what its host stands for, and what a filter, a view and a pool are made of."""

import struct
from pathlib import Path

import pytest

from towline.v1.agent_service_pb2 import Offer
from towline.v1.sandbox_pb2 import Confinement as Asked
from towline.v1.sandbox_pb2 import Sandbox
from towline_agent.demands import demand_of, describe_sandbox
from towline_agent.sandbox import seccomp
from towline_agent.sandbox.levels import Confinement, Feature, Level, Network, Policy
from towline_agent.sandbox.standing import Demand, NetworkDemand, SandboxUnavailable, Standing, choose
from towline_agent.sandbox.users import NoUserLeft, Users
from towline_agent.sandbox.view import view_of

FULL, UNNEEDED, NONE = NetworkDemand.FULL, NetworkDemand.UNNEEDED, NetworkDemand.NONE
HOST, FILTERED, OWN = Network.HOST, Network.FILTERED, Network.OWN


@pytest.mark.parametrize(
    ("level", "demand", "chosen"),
    [
        (Level.L0, Demand(), (Level.L0, HOST)),
        (Level.L0, Demand(network=UNNEEDED), (Level.L0, HOST)),
        (Level.L0, Demand(network=NONE), None),
        (Level.L0, Demand(Level.L1), None),
        (Level.L1, Demand(network=NONE), None),
        (Level.L1, Demand(Level.L1, UNNEEDED), (Level.L1, HOST)),
        (Level.L2, Demand(network=UNNEEDED), (Level.L2, FILTERED)),
        (Level.L2, Demand(Level.L1, NONE), (Level.L2, FILTERED)),
        (Level.L2, Demand(Level.L3), None),
        (Level.L3, Demand(), (Level.L3, HOST)),
        (Level.L3, Demand(Level.L3, UNNEEDED), (Level.L3, FILTERED)),
        (Level.L3, Demand(Level.L0, NONE), (Level.L3, OWN)),
        (Level.L3, Demand(Level.L4), None),
    ],
)
def test_an_attempt_gets_the_strongest_sandbox_and_never_less_than_it_demands(
    level: Level, demand: Demand, chosen: tuple[Level, Network] | None
) -> None:
    standing = Standing(level)
    if chosen is None:
        with pytest.raises(SandboxUnavailable):
            choose(standing, demand, None)
    else:
        confinement = choose(standing, demand, 60_600)
        assert (confinement.level, confinement.network) == chosen
        assert confinement.uid == (60_600 if level > Level.L0 else None)


@pytest.mark.parametrize(
    ("asked", "demand"),
    [
        (Asked(), Demand()),
        (Asked(min_sandbox=Sandbox.L3, network=Sandbox.FULL), Demand(Level.L3)),
        (Asked(network=Sandbox.NONE, network_unneeded=True), Demand(Level.L0, NONE)),
        (Asked(network=Sandbox.FULL, network_unneeded=True), Demand(Level.L0, UNNEEDED)),
    ],
)
def test_an_offer_says_what_it_demands(asked: Asked, demand: Demand) -> None:
    assert demand_of(Offer(confinement=asked)) == demand


def test_a_level_that_is_not_known_is_above_all_that_are() -> None:
    asked = Asked.FromString(b"\x08\x63")  # min_sandbox = 99
    assert demand_of(Offer(confinement=asked)).level is Level.L4


def test_an_agent_tells_what_holds_and_what_does_not() -> None:
    standing = Standing(Level.L2, (Feature.NOT_ROOT,), {Feature.OWN_ROOT: "no"}, kernel="6.1", probed_at=5.5)
    message = describe_sandbox(standing)
    assert (message.level, list(message.features), message.kernel) == (Sandbox.L2, ["not_root"], "6.1")
    assert [(each.feature, each.reason) for each in message.missing] == [("own_root", "no")]
    assert (message.memory_enforcement, message.network_isolation) == ("sampled", "seccomp")
    assert message.probe_time.seconds == 5


def verdict(program: bytes, architecture: int, number: int, *arguments: int) -> str:
    """What a filter makes of a system call: the interpreter of the kernel, in small."""
    words = {0: number, 4: architecture} | {16 + 8 * index: value for index, value in enumerate(arguments)}
    code = [struct.unpack_from("=HBBI", program, offset) for offset in range(0, len(program), 8)]
    position, accumulator = 0, 0
    while True:
        kind, yes, no, operand = code[position]
        position += 1
        match kind:
            case 0x20:
                accumulator = words.get(operand, 0)
            case 0x06:
                return "allow" if operand == 0x7FFF0000 else f"errno {operand & 0xFFFF}"
            case _:
                taken = {0x15: accumulator == operand, 0x35: accumulator >= operand, 0x45: bool(accumulator & operand)}
                position += yes if taken[kind] else no


MACHINES = {"x86_64": (0xC000003E, 0, 41, 56, 16), "aarch64": (0xC00000B7, 1, 198, 220, 29)}


@pytest.mark.parametrize("machine", MACHINES)
def test_the_filter_refuses_what_is_listed_and_allows_the_rest(machine: str) -> None:
    architecture, column, socket, clone, ioctl = MACHINES[machine]
    closed, opened = (seccomp.program(families, machine) for families in (seccomp.ISOLATED, seccomp.CONNECTED))
    for name, numbers in seccomp.DENIED.items():
        if (number := numbers[column]) is not None:
            assert verdict(closed, architecture, number) == "errno 1", name
    assert verdict(opened, architecture, 435) == "errno 38"
    for family, allowed in ((1, "allow"), (2, "errno 13"), (10, "errno 13"), (16, "errno 13"), (40, "errno 13")):
        assert verdict(closed, architecture, socket, family) == allowed
    for family in (1, 2, 10, 16):
        assert verdict(opened, architecture, socket, family) == "allow"
    for family in (17, 38, 40):
        assert verdict(opened, architecture, socket, family) == "errno 13"
    assert verdict(opened, architecture, clone, 0x10000011) == "errno 1"
    assert verdict(opened, architecture, clone, 0x003D0F00) == "allow"
    assert verdict(opened, architecture, ioctl, 1, 0x5412) == "errno 1"
    assert verdict(opened, architecture, ioctl, 1, 0x5401) == "allow"
    assert verdict(opened, architecture + 1, 1) == "errno 1"
    assert verdict(opened, architecture, 0x40000001) == "errno 38"


def test_a_filter_for_a_machine_that_is_not_known_is_refused() -> None:
    with pytest.raises(OSError, match="riscv64"):
        seccomp.program(seccomp.ISOLATED, "riscv64")


def test_nothing_that_contains_the_state_of_the_agent_is_shown(tmp_path: Path) -> None:
    for name in ("shared", "data/agent"):
        (tmp_path / name).mkdir(parents=True)
    readable = (str(tmp_path / "shared"), str(tmp_path / "data"), str(tmp_path / "absent"))
    shown = view_of(Policy(readable, str(tmp_path / "data" / "agent"))).readable
    assert str(tmp_path / "shared") in shown
    assert str(tmp_path / "data") not in shown
    assert str(tmp_path / "absent") not in shown
    assert not {"/", "/etc", "/home", "/var", "/run"} & set(shown)
    assert not any(one != other and other.startswith(f"{one}/") for one in shown for other in shown)


def test_a_user_belongs_to_one_attempt_at_a_time_and_rests_longest_before_the_next() -> None:
    users = Users(range(5, 8))
    assert [users.take() for _ in range(3)] == [5, 6, 7]
    with pytest.raises(NoUserLeft):
        users.take()
    users.give_back(6)
    users.give_back(5)
    assert [users.take(), users.take()] == [6, 5]
    assert Users().take() is None


def test_confinements_are_values() -> None:
    assert Confinement(Level.L3, OWN, 1) == Confinement(Level.L3, OWN, 1)

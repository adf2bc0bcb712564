"""The probe: what canaries find on this host, and what is made of what they find."""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from sandbox_scenario import CONTAINS, IS_ROOT

from towline_agent import prctl
from towline_agent.sandbox.levels import FEATURES_OF, Feature, Level
from towline_agent.sandbox.probe import ATTACKS_ON, Findings, Operator, judge, probe
from towline_agent.sandbox.reach import barrier
from towline_agent.sandbox.standing import Standing
from towline_agent.supervisor_client import ProcessSupervisor

ALL_REFUSED = Findings({attack: "refused" for attacks in ATTACKS_ON.values() for attack in attacks})
NONE_REFUSED = Findings({})
BROKEN = Findings({}, "clone: Operation not permitted")
PLAIN = Operator()
LEVELS = (Level.L1, Level.L2, Level.L3, Level.L4)
NO_GROUP = Findings(ALL_REFUSED.refusals, lacking=dict.fromkeys(FEATURES_OF[Level.L4], "no groups"))


def but(*attacks: str) -> Findings:
    return Findings({name: why for name, why in ALL_REFUSED.refusals.items() if name not in attacks})


def judged(
    l1: Findings, l2: Findings, l3: Findings, l4: Findings | None = None, *, operator: Operator = PLAIN
) -> Standing:
    l4 = l4 or Findings(l3.refusals, l3.broken, NO_GROUP.lacking)
    return judge(dict(zip(LEVELS, (l1, l2, l3, l4), strict=True)), NONE_REFUSED, operator)


@pytest.mark.parametrize(
    ("findings", "level"),
    [
        ((ALL_REFUSED, ALL_REFUSED, ALL_REFUSED), Level.L3),
        ((ALL_REFUSED, ALL_REFUSED, BROKEN), Level.L2),
        ((ALL_REFUSED, BROKEN, BROKEN), Level.L1),
        ((BROKEN, BROKEN, BROKEN), Level.L0),
        ((BROKEN, BROKEN, ALL_REFUSED), Level.L3),
        ((ALL_REFUSED, ALL_REFUSED, but("see_file")), Level.L2),
        ((ALL_REFUSED, but("send_udp"), but("send_udp")), Level.L1),
        ((but("outlive"), but("outlive"), but("outlive")), Level.L0),
        ((ALL_REFUSED, ALL_REFUSED, but("be_root")), Level.L2),
        ((but("signal"), but("signal"), but("signal")), Level.L3),
        ((ALL_REFUSED, ALL_REFUSED, ALL_REFUSED, ALL_REFUSED), Level.L4),
        ((ALL_REFUSED, ALL_REFUSED, ALL_REFUSED, BROKEN), Level.L3),
        ((ALL_REFUSED, ALL_REFUSED, ALL_REFUSED, but("see_file")), Level.L3),
        *(
            ((ALL_REFUSED, ALL_REFUSED, ALL_REFUSED, but(attack)), Level.L3)
            for feature in FEATURES_OF[Level.L4]
            for attack in ATTACKS_ON[feature]
        ),
    ],
)
def test_a_level_holds_if_every_attack_of_it_and_of_those_below_was_refused(
    findings: tuple[Findings, ...], level: Level
) -> None:
    assert judged(*findings).level is level


def test_what_is_missing_is_said_with_its_reason() -> None:
    standing = judged(ALL_REFUSED, but("send_udp"), BROKEN)
    assert standing.missing[Feature.SOCKETS_FILTERED] == "the attack send_udp succeeded"
    assert standing.missing[Feature.OWN_ROOT] == "clone: Operation not permitted"
    assert {standing.missing[feature] for feature in FEATURES_OF[Level.L4]} == {"no groups"}
    assert not set(standing.features) & set(standing.missing)
    assert set(standing.features) | set(standing.missing) == {*ATTACKS_ON, Feature.CPU_CGROUP}


def test_what_is_refused_to_everyone_proves_nothing() -> None:
    unconfined = Findings({"make_user_namespace": "Operation not permitted"})
    standing = judge(dict.fromkeys(LEVELS, ALL_REFUSED), unconfined, Operator())
    assert standing.unproven == {Feature.NO_USER_NAMESPACES: "make_user_namespace: Operation not permitted"}


def test_an_operator_may_limit_the_level_and_allow_root() -> None:
    limited = judged(ALL_REFUSED, ALL_REFUSED, ALL_REFUSED, operator=Operator(most=Level.L2))
    assert (limited.level, limited.missing[Feature.OWN_ROOT]) == (Level.L2, "the agent is set to L2 at most")
    as_root = but("be_root")
    assert judged(as_root, as_root, as_root).level is Level.L0
    assert judged(as_root, as_root, as_root, operator=Operator(allow_root=True)).level is Level.L3


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Standing:
    """The standing of this host."""
    folder = tmp_path_factory.mktemp("canaries")
    script = f"""
import asyncio, json, os
from pathlib import Path
from {prctl.__name__} import refuse_inspection
from {probe.__module__} import Operator, probe
from {ProcessSupervisor.__module__} import ProcessSupervisor
from towline_agent.doctor import describe
from towline_agent.sandbox_settings import claim_groups
from towline_agent.settings import Settings
groups = claim_groups(Settings())
async def run():
    supervisor = ProcessSupervisor.start((), groups=groups if groups.folders else None)
    refuse_inspection()
    try:
        uids = range(61_100, 61_103) if os.geteuid() == 0 else range(0)
        print(json.dumps(describe(await probe(supervisor, Path({str(folder)!r}), Operator(uids=uids), groups))))
    finally:
        await supervisor.close()
        groups.dissolve()
asyncio.run(run())
"""
    folder.chmod(0o711)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    document = json.loads(done.stdout)
    assert list(folder.iterdir()) == []
    return Standing(
        Level[document["level"]],
        tuple(Feature(name) for name in document["features"]),
        {Feature(each["feature"]): each["reason"] for each in document["missing"]},
        {Feature(each["feature"]): each["reason"] for each in document["unproven"]},
        memory_enforcement=document["memoryEnforcement"],
    )


def test_this_host_isolates(found: Standing) -> None:
    assert found.level >= Level.L3
    assert set(found.missing) <= {*FEATURES_OF[Level.L4], Feature.CPU_CGROUP}
    assert found.network_isolation == "netns"


@pytest.mark.skipif(not CONTAINS, reason="this host or this user has no groups that limit memory and processes")
def test_this_host_contains(found: Standing) -> None:
    assert (found.level, found.memory_enforcement, set(found.missing)) == (Level.L4, "cgroup", {Feature.CPU_CGROUP})


def test_without_groups_it_is_said_why_and_memory_is_sampled(tmp_path: Path) -> None:
    environment = {**os.environ, "TOWLINE_AGENT_DIR": str(tmp_path / "agent"), "TOWLINE_AGENT_CGROUPS": "off"}
    command = [sys.executable, "-m", "towline_agent.doctor", "--output", "json"]
    told = json.loads(subprocess.run(command, capture_output=True, check=True, env=environment).stdout)
    reasons = {each["feature"]: each["reason"] for each in told["missing"]}
    assert (told["level"], told["memoryEnforcement"]) == ("L3", "sampled")
    assert {reasons[name] for name in ("memory_cgroup", "pids_cgroup", "group_killed")} == {
        "the agent is set to use no control groups"
    }


def test_the_attacks_are_real(found: Standing) -> None:
    """Unconfined they succeed, but for what this user may not do anyway and what every attempt gets."""
    always = {Feature.NO_NEW_PRIVILEGES, Feature.TREE_KILLED, Feature.RESOURCE_LIMITS}
    of_users = {Feature.NOT_ROOT, Feature.SYSTEM_CALLS_FILTERED, Feature.NO_CAPABILITIES, Feature.SOCKETS_FILTERED}
    assert found.unproven.keys() <= (always if IS_ROOT else always | of_users)


def test_doctor_tells_it_and_says_no_below_what_is_required(tmp_path: Path) -> None:
    def doctor(*options: str, sandbox: str = "auto") -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "TOWLINE_AGENT_DIR": str(tmp_path / "agent"), "TOWLINE_AGENT_SANDBOX": sandbox}
        command = [sys.executable, "-m", "towline_agent.doctor", *options]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    told = doctor("--output", "json", "--require", "L3")
    assert (told.returncode, json.loads(told.stdout)["level"]) == (0, "L4" if CONTAINS else "L3"), told
    table = doctor("--require", "L3", sandbox="L0")
    assert (table.returncode, table.stdout.splitlines()[0][:12]) == (1, "sandbox   L0")
    assert "own_root: the agent is set to L0 at most" in table.stdout
    assert list(tmp_path.iterdir()) == []
    assert doctor("--require", "L9").returncode == 2


def test_a_canary_that_cannot_run_is_a_finding_and_no_crash(tmp_path: Path) -> None:
    async def scenario() -> Standing:
        supervisor = ProcessSupervisor.start(())
        await supervisor.close()
        return await probe(supervisor, tmp_path, Operator())

    standing = asyncio.run(scenario())
    assert standing.level is Level.L0
    assert standing.missing[Feature.TREE_KILLED] == "the supervisor is closed"


@pytest.mark.parametrize(
    ("modes", "stops_at"),
    [
        ((0o755, 0o711, 0o755), None),
        ((0o755, 0o700, 0o755), "b"),
        ((0o750, 0o700, 0o700), "a"),
        ((0o711, 0o711, 0o744), "c"),
    ],
)
def test_the_first_folder_that_lets_nobody_else_pass_is_in_the_way(
    tmp_path: Path, modes: tuple[int, ...], stops_at: str | None
) -> None:
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o711)
        way = [Path(place, *"abc"[: length + 1]) for length in range(3)]
        for folder in way:
            folder.mkdir()
        (way[-1] / "link").symlink_to(way[-1])
        (way[-1] / "program").touch(0o600)
        for folder, mode in reversed([*zip(way, modes, strict=True)]):
            folder.chmod(mode)
        found = [barrier([place, str(way[-1] / name)]) for name in ("link", "program")]
        assert [each and Path(each).name for each in found] == [stops_at] * 2


@pytest.mark.skipif(not IS_ROOT, reason="an ordinary user's plugins run as that user")
@pytest.mark.parametrize("level", ["L1", "L2"])
def test_an_agent_that_would_run_plugins_as_root_for_want_of_a_way_is_refused(tmp_path: Path, level: str) -> None:
    tmp_path.chmod(0o700)
    settings = {"TOWLINE_AGENT_DIR": str(tmp_path / "agent"), "TOWLINE_AGENT_SANDBOX": level}
    environment = {**os.environ, **settings, "TOWLINE_SERVER": "127.0.0.1:1"}
    command = [sys.executable, "-m", "towline_agent"]
    agent = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=60)
    (ended,) = [line for line in map(json.loads, agent.stderr.splitlines()) if line["event"] == "agent_ended"]
    assert (agent.returncode, ended["exit_code"]) == (78, 78)
    assert "the users that plugins run as cannot pass" in ended["reason"]
    assert "allow L3" in ended["reason"]
    doctor = [sys.executable, "-m", "towline_agent.doctor"]
    told = subprocess.run(doctor, capture_output=True, text=True, check=True, env=environment).stdout
    assert "not_root: the users that plugins run as cannot pass" in told


MOUNTING = """
from pathlib import Path
from towline_agent.sandbox.canary import ATTACKS
mounted = Path("/proc/self/mountinfo")
before = mounted.read_text()
ATTACKS["mount"]({})
assert "shared:" in before
assert mounted.read_text() == before
"""


def test_the_attack_by_a_mount_leaves_none_where_mounts_are_shared() -> None:
    host = ["unshare", "--user", "--map-root-user", "--mount", "--propagation", "shared"]  # as systemd has it
    done = subprocess.run([*host, sys.executable, "-c", MOUNTING], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

"""The systemd unit of an agent, as a literal table of what it grants and denies. Pure.

Hardened as far as the agent's own confinement of plugins allows: that needs namespaces, mounts and a cgroup to divide,
which several of systemd's protections take away. Each omission says why. No secret stands in a unit.
"""

import re
from dataclasses import dataclass
from pathlib import PurePath

UNIT_NAME = "towline-agent.service"
FAREWELL_SECONDS = 25
"""What a stopping agent needs beyond its drain: to end what still runs, and to hand over last results and logs."""
WATCHDOG_SECONDS = 60
"""Two leases: an agent that showed no sign of life for so long has lost everything that it ran."""

_HOMES = ("/home", "/root", "/run/user")
_PATH = re.compile(r"/[A-Za-z0-9_./+@:-]*")
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,30}")


class BadService(ValueError):
    """The unit cannot be written; the message says what stands in the way."""


@dataclass(frozen=True, slots=True)
class Service:
    """What the unit starts, as whom, and where it may write."""

    python: str
    """The interpreter of the installation."""
    user: str
    state_dir: str
    environment_file: str
    drain_seconds: int = 30

    def __post_init__(self) -> None:
        for path in (self.python, self.state_dir, self.environment_file):
            if not _PATH.fullmatch(path) or ".." in PurePath(path).parts:
                raise BadService(f"{path!r} is no absolute path of letters, digits and `_./+@:-`")
        if not _USER.fullmatch(self.user):
            raise BadService(f"{self.user!r} is no name of a user")

    @property
    def protect_home(self) -> str:
        """Home folders are hidden, unless the agent itself is in one."""
        paths = (PurePath(self.python), PurePath(self.state_dir))
        return "read-only" if any(path.is_relative_to(home) for path in paths for home in _HOMES) else "yes"


def unit(service: Service) -> str:
    """Returns the text of the unit."""
    return _UNIT.format(
        python=service.python,
        user=service.user,
        state_dir=service.state_dir,
        environment_file=service.environment_file,
        drain_seconds=service.drain_seconds,
        stop_seconds=service.drain_seconds + FAREWELL_SECONDS,
        watchdog_seconds=WATCHDOG_SECONDS,
        protect_home=service.protect_home,
    )


def environment_file() -> str:
    """Returns the first content of the environment file: what may stand in it."""
    return _ENVIRONMENT_FILE


_UNIT = """\
# Written by `towline agent install-service`, which overwrites it: put changes in a drop-in (systemctl edit).
[Unit]
Description=Towline agent
Wants=network-online.target
After=network-online.target

[Service]
Type=notify
NotifyAccess=main
ExecStart={python} -P -m towline_agent
User={user}
Group={user}
Environment=TOWLINE_AGENT_DIR={state_dir} TOWLINE_AGENT_DRAIN_SECONDS={drain_seconds}
EnvironmentFile=-{environment_file}
WorkingDirectory={state_dir}

# Ready when a control plane has accepted it, however long that takes.
TimeoutStartSec=infinity
WatchdogSec={watchdog_seconds}
Restart=on-failure
RestartSec=5
# Another process took over, the credential was refused, the settings or the version cannot work: a person must act.
RestartPreventExitStatus=76 77 78
SuccessExitStatus=130
# The agent alone is asked to stop and drains: it ends its plugins itself.
KillMode=mixed
TimeoutStopSec={stop_seconds}

# The agent divides its own cgroup among the steps; a step that runs out of memory must not end the others.
Delegate=yes
OOMPolicy=continue
LimitNOFILE=65536
TasksMax=16384
UMask=0077

NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome={protect_home}
ReadWritePaths={state_dir}
PrivateTmp=yes
PrivateMounts=yes
PrivateDevices=yes
DevicePolicy=closed
ProtectClock=yes
ProtectKernelModules=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
RemoveIPC=yes
KeyringMode=private
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
# Beyond what services need: mounts, a host name of its own and confinement, for the sandbox of the plugins.
SystemCallFilter=@system-service @mount sethostname seccomp
SystemCallFilter=landlock_create_ruleset landlock_add_rule landlock_restrict_self
SystemCallErrorNumber=EPERM
# Every kind but time: the sandbox is made of them.
RestrictNamespaces=user mnt pid net ipc uts cgroup

# Left out on purpose:
#   MemoryDenyWriteExecute     ends plugins whose language compiles at run time
#   PrivateNetwork             the agent and many plugins need the network; a node says what it may reach
#   PrivateUsers               hides the users of files that the delegated cgroup belongs to
#   ProcSubset, ProtectProc, ProtectKernelLogs, ProtectKernelTunables
#                              cover parts of /proc, and then no sandbox may mount a /proc of its own
#   ProtectControlGroups       makes the delegated cgroup read-only
#   ProtectHostname            forbids a sandbox to name its own host

[Install]
WantedBy=multi-user.target
"""

_ENVIRONMENT_FILE = """\
# Settings of the Towline agent; they override those that enrollment has kept in the state folder.
# Every one is explained in docs/configuration.md. Restart the service after a change.
#TOWLINE_SERVER="a.example:50051,b.example:50051"
#TOWLINE_AGENT_SLOTS="4"
#TOWLINE_AGENT_LABELS="zone=a"
#LOG_LEVEL="INFO"
# TOWLINE_AGENT_DRAIN_SECONDS belongs to TimeoutStopSec of the unit: towline agent install-service --drain-seconds N.
"""

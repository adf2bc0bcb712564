"""The last steps of a forked process before it is the plugin: own session, own folder, own descriptors, clean slate.

What all attempts share (limits, umask, no new privileges) is inherited from the supervisor.
"""

import json
import os
import resource
import signal
from collections.abc import Sequence
from typing import NoReturn

from towline_agent import cgroups, harness, prctl, process_limits
from towline_agent.execution import Launch
from towline_agent.sandbox import confine, root
from towline_agent.sandbox.confine import Walls
from towline_agent.sandbox.levels import Level

LARGEST_DESCRIPTOR = 4096
DESCRIPTORS = 4
"""Standard input, output and error, and the result: how many every plugin is given."""
REPORT_DESCRIPTOR = harness.RESULT_DESCRIPTOR + 1
"""Where the shim and this process tell the supervisor how it went; the plugin never holds it."""
SECRETS_DESCRIPTOR = REPORT_DESCRIPTOR + 1
"""Where a plugin that was given secrets reads them."""

_IGNORED_BY_PYTHON = {signal.SIGPIPE, signal.SIGXFSZ}


def inherit_limits() -> None:
    """Puts the calling process, and all that it forks, under the limits of plugins."""
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = LARGEST_DESCRIPTOR if hard == resource.RLIM_INFINITY else min(hard, LARGEST_DESCRIPTOR)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def reserve_descriptors() -> None:
    """Occupies the numbers that plugins' descriptors will have, so that nothing else comes to lie there."""
    null = os.open(os.devnull, os.O_RDONLY)
    for reserved in (harness.RESULT_DESCRIPTOR, REPORT_DESCRIPTOR, SECRETS_DESCRIPTOR):
        os.dup2(null, reserved)


def count_descriptors(launch: Launch) -> int:
    """Returns how many descriptors come with a launch."""
    return DESCRIPTORS + bool(launch.secrets)


def become_plugin(
    launch: Launch, descriptors: Sequence[int], parent: int, walls: Walls | None, entrances: Sequence[int]
) -> NoReturn:
    """Turns this process into the plugin; if it cannot, the reason is reported and the process ends."""
    environment = {**launch.environment, "TOWLINE_RESULT_FD": str(harness.RESULT_DESCRIPTOR)}
    if launch.confinement.level >= Level.L3:
        environment["TMPDIR"] = root.TMP
    if launch.secrets:
        environment["TOWLINE_SECRETS_FD"] = str(SECRETS_DESCRIPTOR)
    code = os.EX_OSERR
    try:
        if (
            _has_joined(launch, entrances)
            and _stands_alone(launch, descriptors)
            and _is_confined(launch, parent, walls)
            and _can_start(launch, environment)
        ):
            os.close(REPORT_DESCRIPTOR)
            code = harness.run(launch.entry_point, launch.plugin_dir, environment)
    finally:
        os._exit(code)


def report_failure(kind: str, error: OSError, launch: Launch) -> None:
    """Tells the supervisor why the plugin could not be started, naming the file if the fault lies in one."""
    failure = f"{error.strerror or error}: {error.filename or launch.entry_point}"
    os.write(REPORT_DESCRIPTOR, json.dumps({kind: failure}).encode() + b"\n")


def _has_joined(launch: Launch, entrances: Sequence[int]) -> bool:
    try:
        cgroups.join(entrances)
    except OSError as error:
        report_failure("sandboxFailure" if launch.confinement.level >= Level.L4 else "spawnFailure", error, launch)
        return False
    return True


def _stands_alone(launch: Launch, descriptors: Sequence[int]) -> bool:
    try:
        _stand_alone(launch, descriptors)
    except OSError as error:
        report_failure("spawnFailure", error, launch)
        return False
    return True


def _is_confined(launch: Launch, parent: int, walls: Walls | None) -> bool:
    try:
        process_limits.apply(launch)
        confine.restrict(launch, walls)
        prctl.die_with(parent, signal.SIGKILL)  # a change of the user has taken back what was asked for before
    except OSError as error:
        report_failure("sandboxFailure", error, launch)
        return False
    _heed_signals()
    return True


def _can_start(launch: Launch, environment: dict[str, str]) -> bool:
    """Whether a Python entry point may be run now; an executable has replaced this process before the answer."""
    try:
        if not launch.entry_point.startswith(harness.PYTHON_PREFIX):
            _execute(launch, environment)
    except OSError as error:
        report_failure("spawnFailure", error, launch)
        return False
    return True


def _stand_alone(launch: Launch, descriptors: Sequence[int]) -> None:
    os.setsid()
    for target, descriptor in enumerate(descriptors[:DESCRIPTORS]):
        os.dup2(descriptor, target)
    if launch.secrets:
        os.dup2(descriptors[DESCRIPTORS], SECRETS_DESCRIPTOR)
    os.closerange(SECRETS_DESCRIPTOR + bool(launch.secrets), LARGEST_DESCRIPTOR)
    os.chdir(launch.work_dir)


def _heed_signals() -> None:
    """Undoes what the agent was started with: under nohup or in a script's background it ignores signals for good."""
    for number in signal.valid_signals() - _IGNORED_BY_PYTHON:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _execute(launch: Launch, environment: dict[str, str]) -> NoReturn:
    program = launch.entry_point if launch.plugin_dir is None else os.path.join(launch.plugin_dir, launch.entry_point)
    for ignored in _IGNORED_BY_PYTHON:
        signal.signal(ignored, signal.SIG_DFL)
    os.execve(program, [program], environment)  # noqa: S606 - the plugin itself

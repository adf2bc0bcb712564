"""The process that forks plugins: single-threaded, without gRPC, credentials or any socket but the agent's.

It is executed by the agent, imports what plugins need once, and forks from there. It lives as long as the agent's end
of its control socket (its standard input); when that is gone, every tree is killed before it ends.

Run as `python -P -m towline_agent.supervisor POLICY [package ...]`: the policy is JSON, the packages are imported with
all their modules.
"""

import errno
import gc
import importlib
import json
import math
import os
import pkgutil
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping

from towline_agent import plugin_process, prctl, process_tree, shim
from towline_agent.cgroup_files import Allowance, Controller
from towline_agent.cgroups import Doors, Group, Hierarchy
from towline_agent.control_channel import ControlChannel, Message, decode_launch, encode_exit
from towline_agent.execution import EndReason, Exit, Launch
from towline_agent.sandbox import confine, namespaces, syscalls
from towline_agent.sandbox.confine import Walls
from towline_agent.sandbox.levels import Level, Policy
from towline_agent.watched_attempt import Rung, WatchedAttempt

_ORDERS: Mapping[str, Callable[[WatchedAttempt, float], None]] = {
    "stop": lambda attempt, now: attempt.end(EndReason.STOPPED, Rung.STOPPING, now),
    "kill": lambda attempt, now: attempt.end(EndReason.STOPPED, Rung.KILLING, now),
    "freeze": WatchedAttempt.freeze,
    "thaw": WatchedAttempt.thaw,
}
_RESCAN_SECONDS = 0.005
_STRAY_SECONDS = 10.0
_CANARY = "towline_agent.sandbox.canary"
"""Starts as warm as a plugin does."""
_DEAF_TO = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, shim.STOP, shim.KILL}


class SupervisorLoop:
    """Serves one agent until it is gone."""

    def __init__(self, channel: ControlChannel, walls: Walls | None) -> None:
        self._channel = channel
        self._walls = walls
        self._poll = select.poll()
        self._attempts: dict[str, WatchedAttempt] = {}
        self._key_of_report: dict[int, str] = {}
        self._hierarchy: Hierarchy | None = None
        self._group_count = 0
        self._agent_is_gone = False

    def serve(self) -> None:
        """Forks, watches and kills as asked; returns when the agent is gone and no attempt is left."""
        self._channel.send({"ready": True})
        self._poll.register(self._channel.fileno(), select.POLLIN)
        while self._attempts or not self._agent_is_gone:
            for descriptor, _ in self._poll.poll(self._milliseconds_to_wait()):
                if descriptor == self._channel.fileno():
                    self._converse()
                else:
                    self._conclude(self._key_of_report.pop(descriptor))
            self._tick()

    def _milliseconds_to_wait(self) -> float | None:
        due = min((attempt.due for attempt in self._attempts.values()), default=math.inf)
        return None if math.isinf(due) else max(0.0, (due - time.monotonic()) * 1000)

    def _tick(self) -> None:
        now = time.monotonic()
        for attempt in self._attempts.values():
            attempt.tick(now)

    def _converse(self) -> None:
        try:
            self._channel.flush()
            for message, descriptors in self._channel.receive():
                self._obey(message, descriptors)
        except EOFError:
            self._kill_everything()
        self._listen()

    def _listen(self) -> None:
        if self._agent_is_gone:
            self._poll.unregister(self._channel.fileno())
        else:
            self._poll.modify(self._channel.fileno(), select.POLLIN | (select.POLLOUT if self._channel.blocked else 0))

    def _obey(self, message: Message, descriptors: list[int]) -> None:
        if message["do"] == "limit":
            self._hierarchy = Hierarchy.decode(message["groups"])
        elif message["do"] == "launch":
            self._launch(decode_launch(message), descriptors)
        elif (attempt := self._attempts.get(message["key"])) is not None:
            _ORDERS[message["do"]](attempt, time.monotonic())

    def _launch(self, launch: Launch, descriptors: list[int]) -> None:
        try:
            attempt = self._start(launch, descriptors)
        except OSError as error:
            confined = launch.confinement.level >= Level.L3
            reason = EndReason.SANDBOX_FAILED if confined else EndReason.SPAWN_FAILED
            self._answer(launch.key, Exit(reason, message=f"{error.filename or 'fork'}: {error.strerror}"))
            return
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        self._attempts[launch.key] = attempt
        self._key_of_report[attempt.report] = launch.key
        self._poll.register(attempt.report, 0)  # its end is always told; nothing is read before

    def _make_group(self, launch: Launch) -> Group | None:
        contained = launch.confinement.level >= Level.L4
        if contained and (launch.confinement.uid is None or not self._limits(Controller.MEMORY, Controller.PIDS)):
            why = "L4 needs a group that limits memory and processes, and a user of its own"
            raise OSError(errno.ENOTSUP, why, "control group")
        if self._hierarchy is None:
            return None
        self._group_count += 1
        allowance = Allowance(memory_bytes=launch.memory_bytes, processes=launch.processes)
        return self._hierarchy.create(f"{os.getpid()}-{self._group_count}", allowance)

    def _limits(self, *controllers: Controller) -> bool:
        return self._hierarchy is not None and self._hierarchy.folders.keys() >= set(controllers)

    def _conclude(self, key: str) -> None:
        attempt = self._attempts.pop(key)
        self._poll.unregister(attempt.report)
        attempt.thaw(time.monotonic())
        facts = attempt.reap()
        if "status" not in facts:
            facts["killed"] = self._kill_strays()
        facts["killed"] = sorted(attempt.clear().union(facts.get("killed", ())))
        self._answer(key, attempt.conclude(facts, time.monotonic()))
        if attempt.group is not None:
            attempt.group.remove()

    def _answer(self, key: str, ended: Exit) -> None:
        self._channel.send(encode_exit(key, ended))
        if not self._agent_is_gone:
            self._listen()

    def _kill_everything(self) -> None:
        self._agent_is_gone = True
        for attempt in self._attempts.values():
            attempt.end(EndReason.STOPPED, Rung.KILLING, time.monotonic())

    def _kill_strays(self) -> list[int]:
        """Kills what dead shims have left to this process: every child that is not a shim, and all below it."""
        killed: set[int] = set()
        until = time.monotonic() + _STRAY_SECONDS
        while ((strays := self._strays()) or (strays := self._strays())) and time.monotonic() < until:
            for stray in strays:
                process_tree.kill(stray)
            killed.update(strays)
            for child in self._adopted_children():
                os.waitpid(child, os.WNOHANG)
            time.sleep(_RESCAN_SECONDS)
        return sorted(killed)

    def _strays(self) -> list[int]:
        adopted = self._adopted_children()
        return adopted + [pid for child in adopted for pid in process_tree.descendants(child)]

    def _adopted_children(self) -> list[int]:
        shims = {attempt.shim_pid for attempt in self._attempts.values()}
        return [pid for pid in process_tree.children_of(os.getpid()) if pid not in shims]

    def _start(self, launch: Launch, descriptors: list[int]) -> WatchedAttempt:
        group = self._make_group(launch)
        doors = Doors()
        try:
            doors = doors if group is None else group.open()
            return self._fork_shim(launch, descriptors, group, doors)
        except OSError:
            if group is not None:
                group.remove()
            raise
        finally:
            doors.close()

    def _fork_shim(self, launch: Launch, descriptors: list[int], group: Group | None, doors: Doors) -> WatchedAttempt:
        if len(descriptors) != plugin_process.count_descriptors(launch):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))  # the kernel drops those for which there is no room
        started = time.monotonic()
        report, shim_end = os.pipe()
        try:
            own = namespaces.needed(launch.confinement)
            shim_pid = syscalls.fork_into(own) if own else os.fork()
            if shim_pid == 0:
                shim.watch_attempt(launch, descriptors, shim_end, self._walls, doors)
        except OSError:
            os.close(report)
            raise
        finally:
            os.close(shim_end)
        return WatchedAttempt(launch, shim_pid, report, started, group)


def import_package(name: str) -> None:
    """Imports a package and every module in it, but those whose libraries are not installed: nobody will call them."""
    package = importlib.import_module(name)
    for module in pkgutil.iter_modules(package.__path__, f"{name}."):
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            if (error.name or name).startswith(name):
                raise


def main(policy: Policy, packages: list[str]) -> None:
    """Runs the supervisor on the socket that is its standard input."""
    os.setsid()
    signal.pthread_sigmask(signal.SIG_BLOCK, _DEAF_TO)
    prctl.adopt_orphans()
    prctl.refuse_new_privileges()
    prctl.refuse_inspection()
    plugin_process.inherit_limits()
    plugin_process.reserve_descriptors()
    for package in packages:
        import_package(package)
    importlib.import_module(_CANARY)
    walls = confine.prepare(policy)
    gc.collect()
    gc.freeze()
    SupervisorLoop(ControlChannel(socket.socket(fileno=0)), walls).serve()


if __name__ == "__main__":
    main(Policy(**json.loads(sys.argv[1])), sys.argv[2:])

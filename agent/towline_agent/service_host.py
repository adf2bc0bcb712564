"""What installing a service asks of a machine, or of the image of one below a folder: its users, files and systemd."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from towline_agent.files import Owner

_RUNNING_SYSTEMD = Path("/run/systemd/system")


@dataclass(frozen=True, slots=True)
class ServiceHost:
    """The machine itself, or what is below `prefix`."""

    prefix: Path = Path("/")

    def path(self, inside: str) -> Path:
        """Returns where a path of the machine is to be found."""
        return self.prefix / inside.lstrip("/")

    def user(self, name: str) -> Owner | None:
        """Returns the ids of a user, by the machine's own list."""
        if self._is_this_machine:
            return _known(name)
        try:
            lines = self.path("/etc/passwd").read_text().splitlines()
        except FileNotFoundError:
            return None
        fields = next((found for line in lines if (found := line.split(":"))[0] == name), None)
        return None if fields is None else Owner(int(fields[2]), int(fields[3]))

    def create_user(self, name: str, home: str) -> Owner:
        """Makes a user of the system who cannot sign in; raises CalledProcessError or PermissionError."""
        if os.geteuid() != 0:
            raise PermissionError(f"the user {name} cannot be made")
        where = [] if self._is_this_machine else ["--prefix", str(self.prefix)]
        command = [_found("useradd"), *where, "--system", "--user-group", "--no-create-home"]
        command += ["--home-dir", home, "--shell", "/usr/sbin/nologin", name]
        subprocess.run(command, check=True)  # noqa: S603 - no shell, a checked name
        owner = self.user(name)
        if owner is None:
            raise OSError(f"useradd has not made the user {name}")
        return owner

    def reload(self) -> None:
        """Makes a running systemd read its units again."""
        if self._is_this_machine and _RUNNING_SYSTEMD.is_dir():
            subprocess.run([_found("systemctl"), "daemon-reload"], check=True)  # noqa: S603 - no shell, no input

    @property
    def _is_this_machine(self) -> bool:
        return self.prefix == Path("/")


def _known(name: str) -> Owner | None:
    import pwd

    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return Owner(entry.pw_uid, entry.pw_gid)


def _found(program: str) -> str:
    path = shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if path is None:
        raise FileNotFoundError(f"there is no {program} on this machine")
    return path

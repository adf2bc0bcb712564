"""The environment of each child of an installation. Pure.

A child inherits what the user has set, except what only another child may know: the agent runs strangers' code and
must not meet the secrets of the control plane in its own environment.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from towline_cli.secrets_file import Secrets


class Part(StrEnum):
    """A process of Towline; the value names its package, its extra and its log."""

    CONTROL_PLANE = "controlplane"
    GATEWAY = "gateway"
    AGENT = "agent"


@dataclass(frozen=True, slots=True)
class Places:
    """Where an installation keeps its things, and the ports that it asks for; 0 is any free port."""

    data_dir: Path
    http_port: int
    grpc_port: int
    slots: int | None = None

    def ready_file(self, part: Part) -> Path:
        """Written by the part once it serves."""
        return self.data_dir / "run" / f"{part}.json"

    def log_file(self, part: Part) -> Path:
        """What the part says."""
        return self.data_dir / "logs" / f"{part}.log"

    @property
    def enrollment_file(self) -> Path:
        """The token with which the agent introduces itself."""
        return self.data_dir / "run" / "enrollment-token"


CONTROL_PLANE_ONLY: Final = frozenset(
    {
        "ADMIN_EMAIL",
        "ADMIN_PASSWORD",
        "DATABASE_URL",
        "JWT_SECRET",
        "MINIO_ACCESS_KEY",
        "MINIO_SECRET_KEY",
        "REDIS_URL",
        "TOWLINE_SECRETS_KEY",
    }
)
FOR_NO_CHILD: Final = frozenset({"TOWLINE_ENROLLMENT_TOKEN", "TOWLINE_TOKEN"})


def settings_of(part: Part, places: Places, secrets: Secrets, server: str) -> dict[str, str]:
    """Returns what the installation itself tells the part; `server` is the control plane's address once known."""
    if part is Part.CONTROL_PLANE:
        return {
            "TOWLINE_DATA_DIR": str(places.data_dir),
            "GRPC_PORT": str(places.grpc_port),
            "JWT_SECRET": secrets.jwt_secret,
            "TOWLINE_SECRETS_KEY": secrets.secrets_key,
            "ADMIN_EMAIL": secrets.admin_email,
            "ADMIN_PASSWORD": secrets.admin_password,
            "TOWLINE_ENROLLMENT_TOKEN_FILE": str(places.enrollment_file),
        }
    if part is Part.GATEWAY:
        return {"TOWLINE_SERVER": server, "HTTP_PORT": str(places.http_port)}
    slots = {} if places.slots is None else {"TOWLINE_AGENT_SLOTS": str(places.slots)}
    return slots | {
        "TOWLINE_AGENT_DRAIN_SECONDS": "5",  # a person waits; what is lost is tried again at the next start
        "TOWLINE_SERVER": server,
        "TOWLINE_AGENT_NAME": "local",
        "TOWLINE_AGENT_DIR": str(places.data_dir / "agent"),
        "TOWLINE_ENROLLMENT_TOKEN_FILE": str(places.enrollment_file),
    }


def environment_of(part: Part, inherited: Mapping[str, str], settings: Mapping[str, str]) -> dict[str, str]:
    """Returns the whole environment of the part's process."""
    hidden = FOR_NO_CHILD if part is Part.CONTROL_PLANE else FOR_NO_CHILD | CONTROL_PLANE_ONLY
    return {name: value for name, value in inherited.items() if name not in hidden} | dict(settings)

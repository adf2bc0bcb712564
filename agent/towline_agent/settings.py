"""What an operator can set, read once at start from the environment and never changed.

Refuses what could not work (a name that the control plane would refuse, no slots) before anything is started.
"""

import os
import re
import socket
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from towline_sdk import servers

Servers = Annotated[str, AfterValidator(servers.checked)]

_UIDS = re.compile(r"(\d{1,10})-(\d{1,10})")
_NO_UID = 2**32 - 1
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,127}")


def default_name() -> str:
    """The host's name, changed as little as an agent's name needs."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", socket.gethostname())[:120]
    return name if _NAME.fullmatch(name) else f"agent-{name}"


class Settings(BaseSettings):
    """The settings of an agent process."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    server: Servers = Field("127.0.0.1:50051", validation_alias="TOWLINE_SERVER")
    """The control plane, `host:port`; several replicas are separated by commas."""
    name: str = Field(default_factory=default_name, validation_alias="TOWLINE_AGENT_NAME")
    """Name that the agent enrolls under; unique in the installation."""
    host: str = Field("", max_length=255, validation_alias="TOWLINE_AGENT_HOST")
    """Name of this machine, the system's if empty: one credential is refused on a second host while the first lives."""
    state_dir: Path = Field(Path(".towline/agent"), validation_alias="TOWLINE_AGENT_DIR")
    """Folder of the credential, the spools, the plugin cache and the work folders."""
    slots: int = Field(4, ge=1, le=1000, validation_alias="TOWLINE_AGENT_SLOTS")
    """Attempts that run at the same time."""
    labels: Annotated[dict[str, str], NoDecode] = Field(default_factory=dict, validation_alias="TOWLINE_AGENT_LABELS")
    """Labels that a node's requirements are matched against: `k=v,k=v`."""
    plugins: Annotated[list[str], NoDecode] = Field(default_factory=list, validation_alias="TOWLINE_AGENT_PLUGINS")
    """The only plugins and built-ins that it runs, by name, separated by commas; empty: all."""
    enrollment_token: SecretStr | None = Field(None, validation_alias="TOWLINE_ENROLLMENT_TOKEN")
    """Token of the first start; not needed once the credential is in the state folder."""
    enrollment_token_file: Path | None = Field(None, validation_alias="TOWLINE_ENROLLMENT_TOKEN_FILE")
    """File that holds the enrollment token; read at the first start only."""
    cgroups: Literal["auto", "off"] = Field("auto", validation_alias="TOWLINE_AGENT_CGROUPS")
    """`auto`: control groups limit memory and processes where the host lets the agent have them; `off`: never."""
    http_allow: str = Field("", validation_alias="TOWLINE_HTTP_ALLOW")
    """Private hosts and networks that HTTP_REQUEST may reach, separated by commas."""
    sandbox: Literal["auto", "L0", "L1", "L2", "L3", "L4"] = Field("auto", validation_alias="TOWLINE_AGENT_SANDBOX")
    """The strongest sandbox that plugins get; `auto`: the strongest that the host proves to have."""
    uids: str = Field("60600-61183", validation_alias="TOWLINE_AGENT_UIDS")
    """Users, `first-last`, that an agent that is root runs plugins as; they need no accounts."""
    allow_root: bool = Field(default=False, validation_alias="TOWLINE_AGENT_ALLOW_ROOT")
    """Lets an agent that is root run plugins as root, without capabilities, above L0."""
    readable: Annotated[list[Path], NoDecode] = Field(
        default_factory=list[Path], validation_alias="TOWLINE_AGENT_READABLE"
    )
    """Paths that plugins may read from L2 on, beside the system and the interpreter; separated by commas."""
    disk_floor_mb: int = Field(256, ge=0, validation_alias="TOWLINE_AGENT_DISK_FLOOR_MB")
    """Free disk space below which the agent takes no more steps; 0: it takes them until nothing fits."""
    plugin_cache_mb: int = Field(4096, ge=64, validation_alias="TOWLINE_AGENT_CACHE_MB")
    """Room in MiB for the bundles and environments of plugins; what is in use stays in any case."""
    drain_seconds: float = Field(30.0, ge=0, validation_alias="TOWLINE_AGENT_DRAIN_SECONDS")
    """How long a stopping agent waits for the attempts that run."""
    artifact_spool_mb: int = Field(4096, ge=1, validation_alias="TOWLINE_AGENT_ARTIFACT_SPOOL_MB")
    """What artifacts may take on this machine while they wait to be sent; beyond it, attempts wait for room."""
    artifact_cache_mb: int = Field(4096, ge=0, validation_alias="TOWLINE_AGENT_ARTIFACT_CACHE_MB")
    """What fetched artifacts of predecessors may take on this machine between attempts."""
    ready_file: Path | None = Field(None, validation_alias="TOWLINE_READY_FILE")
    """File that is written once the control plane has accepted the agent."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", validation_alias="LOG_LEVEL")
    """Least severe log lines that are written."""

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("labels", mode="before")
    @classmethod
    def _split_labels(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        pairs = [part.partition("=") for part in value.split(",") if part.strip()]
        if any(not key.strip() or not mark for key, mark, _ in pairs):
            raise ValueError("labels are written as k=v,k=v")
        return {key.strip(): text.strip() for key, _, text in pairs}

    @field_validator("plugins", mode="before")
    @classmethod
    def _split_plugins(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return [name.strip() for name in value.split(",") if name.strip()]

    @field_validator("readable", mode="before")
    @classmethod
    def _split_readable(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return [path.strip() for path in value.split(",") if path.strip()]

    @field_validator("readable")
    @classmethod
    def _check_readable(cls, value: list[Path]) -> list[Path]:
        if any(not path.is_absolute() for path in value):
            raise ValueError("paths must be absolute")
        return value

    @field_validator("uids")
    @classmethod
    def _check_uids(cls, value: str) -> str:
        found = _UIDS.fullmatch(value.strip())
        if found is None or not 0 < int(found[1]) <= int(found[2]) < _NO_UID:
            raise ValueError("users are written as first-last, such as 60600-61183, without 0")
        return value.strip()

    @model_validator(mode="after")
    def _check_users(self) -> Self:
        needed = 2 * self.slots + 1
        if os.geteuid() == 0 and not self.allow_root and len(self.users) < needed:
            raise ValueError(f"{self.slots} slots need {needed} users, and TOWLINE_AGENT_UIDS has {len(self.users)}")
        return self

    @field_validator("enrollment_token", "enrollment_token_file", "ready_file", mode="before")
    @classmethod
    def _empty_is_unset(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("name")
    @classmethod
    def _check_name(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ValueError("a name is a letter, then letters, digits, `_`, `-`, `.`; at most 128 characters")
        return value

    @property
    def users(self) -> range:
        """The users of `uids`."""
        first, last = self.uids.split("-")
        return range(int(first), int(last) + 1)

    def read_enrollment_token(self) -> str | None:
        """Returns the enrollment token, from the environment or its file; None if there is none."""
        if self.enrollment_token is not None:
            return self.enrollment_token.get_secret_value().strip()
        if self.enrollment_token_file is not None:
            return self.enrollment_token_file.read_text().strip()
        return None

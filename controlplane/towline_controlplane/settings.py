"""Settings of the control plane, read once at start from the environment."""

from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from towline_controlplane.engine.allowance import ServerLimits
from towline_controlplane.tokens import weakness_of
from towline_dag.choices import Limits


class DatabaseSettings(BaseSettings):
    """Where the database is: all that its tools need."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    data_dir: Path = Field(Path(".towline"), alias="TOWLINE_DATA_DIR")
    """Folder for the embedded database and the plugin bundles."""
    database_url: str = Field("", alias="DATABASE_URL", repr=False)
    """`postgresql://user:password@host/name`, also with parameters of libpq. Empty means SQLite in the data folder."""

    @property
    def database(self) -> str:
        """The URL of the database, the embedded default included."""
        return self.database_url or f"sqlite:///{self.data_dir / 'towline.db'}"

    def create_data_dir(self) -> None:
        """Makes sure that the data folder is there, for its owner alone."""
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)


class Settings(DatabaseSettings):
    """Every knob of `towline controlplane`; the variable is the alias."""

    redis_url: SecretStr = Field(SecretStr(""), alias="REDIS_URL")
    """`redis://user:password@host:port`, through which replicas wake each other. Empty means through PostgreSQL."""
    minio_endpoint: str = Field("", alias="MINIO_ENDPOINT")
    """Store with the S3 protocol for bundles, large outputs and old logs: `https://host:port`, or `host:port` without
    encryption. Empty means the folder `blobs` of the data folder."""
    minio_access_key: SecretStr = Field(SecretStr(""), alias="MINIO_ACCESS_KEY")
    """Key id of the store's user."""
    minio_secret_key: SecretStr = Field(SecretStr(""), alias="MINIO_SECRET_KEY")
    """Secret of the store's user. Has no default."""
    minio_bucket: str = Field("towline", alias="MINIO_BUCKET", pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")
    """Bucket of the blobs, which is made if it is not there."""
    minio_region: str = Field("us-east-1", alias="MINIO_REGION", pattern=r"^[a-z0-9-]{1,63}$")
    """Region that requests are signed for."""
    grpc_host: str = Field("127.0.0.1", alias="GRPC_HOST")
    """Address to listen on."""
    grpc_port: int = Field(50051, alias="GRPC_PORT", ge=0, le=65535)
    """Port to listen on; 0 takes any free one."""
    connection_age_seconds: float = Field(1800, alias="TOWLINE_CONNECTION_AGE_SECONDS", ge=0, le=604_800)
    """After which a connection takes no more calls, so that its client chooses a replica anew; a tenth more or less. 0:
    never."""
    connection_grace_seconds: float = Field(60, alias="TOWLINE_CONNECTION_GRACE_SECONDS", ge=1, le=86_400)
    """How long the calls of such a connection may still take; streams are resumed elsewhere after that."""
    drain_seconds: float = Field(0, alias="TOWLINE_DRAIN_SECONDS", ge=0, le=600)
    """How long after SIGTERM it serves on while its health says NOT_SERVING, so that load balancers can see it."""
    jwt_secret: SecretStr = Field(alias="JWT_SECRET")
    """Key of the access tokens, at least 32 bytes that nobody can guess. Has no default."""
    secrets_key: SecretStr = Field(SecretStr(""), alias="TOWLINE_SECRETS_KEY")
    """32 random bytes in base64: the key of stored secrets; `new,old` while they are rotated. Empty: no secrets."""
    token_hours: float = Field(12, alias="TOWLINE_TOKEN_HOURS", gt=0, le=720)
    """Lifetime of an access token."""
    sign_in_days: float = Field(30, alias="TOWLINE_SIGN_IN_DAYS", gt=0, le=3_650)
    """How long a sign-in can be kept up by refresh tokens."""
    bcrypt_cost: int = Field(12, alias="TOWLINE_BCRYPT_COST", ge=4, le=16)
    """Work factor of password hashes."""
    admin_email: str = Field("", alias="ADMIN_EMAIL")
    """With the password: an admin that is created at start if the email is free."""
    admin_password: SecretStr = Field(SecretStr(""), alias="ADMIN_PASSWORD")
    """8 to 72 bytes."""
    enrollment_token_file: Path | None = Field(None, alias="TOWLINE_ENROLLMENT_TOKEN_FILE")
    """File with a token that agents may enroll with, for installations that start together."""
    trusted_gateways: str = Field("127.0.0.0/8,::1", alias="TOWLINE_TRUSTED_GATEWAYS")
    """Comma-separated addresses and networks of gateways, which are believed where their requests come from."""
    rate_reads: int = Field(120_000, alias="TOWLINE_RATE_READS", ge=0, le=10_000_000)
    """Calls per minute of one user that only read; four times as many from one address. 0: any number."""
    rate_writes: int = Field(60_000, alias="TOWLINE_RATE_WRITES", ge=0, le=10_000_000)
    """Calls per minute of one user that change something."""
    rate_sign_ins: int = Field(120, alias="TOWLINE_RATE_SIGN_INS", ge=0, le=10_000_000)
    """Calls per minute from one address that register, sign in or refresh; wrong passwords are slowed down besides."""
    audit_days: float = Field(365, alias="TOWLINE_AUDIT_DAYS", ge=0, le=36_500)
    """How long an event of the audit log is kept; 0 keeps it for ever."""
    lease_seconds: float = Field(30, alias="TOWLINE_LEASE_SECONDS", ge=1, le=600)
    """How long an agent may stay silent before its attempts are lost."""
    credential_days: float = Field(0, alias="TOWLINE_AGENT_CREDENTIAL_DAYS", ge=0, le=3_650)
    """How long an agent keeps a credential before it gets a new one; 0: until an admin rotates it."""
    offer_seconds: float = Field(5, alias="TOWLINE_OFFER_SECONDS", ge=1, le=60)
    """How long an offer waits for its confirmation."""
    plugin_timeout_ms: int = Field(30_000, alias="PLUGIN_TIMEOUT_MS", ge=1)
    """Wall time of an attempt whose node and plugin name none."""
    plugin_memory_limit_mb: int = Field(512, alias="PLUGIN_MEMORY_LIMIT_MB", ge=1)
    """Resident memory of an attempt's process tree whose node and plugin name none."""
    plugin_cpu_seconds: int = Field(0, alias="PLUGIN_CPU_SECONDS", ge=0)
    """Processor time of such an attempt's process tree; 0: as much as its wall time allows."""
    plugin_processes: int = Field(1024, alias="PLUGIN_PROCESSES", ge=1)
    """Processes and threads of such an attempt at a time."""
    plugin_open_files: int = Field(4096, alias="PLUGIN_OPEN_FILES", ge=16)
    """Open files of each of its processes."""
    plugin_file_mb: int = Field(0, alias="PLUGIN_FILE_MB", ge=0)
    """Largest file that it may write; 0: any."""
    plugin_output_kb: int = Field(4096, alias="PLUGIN_OUTPUT_KB", ge=1, le=4096)
    """Largest result; nodes and plugins may ask for less."""
    plugin_log_kb: int = Field(65_536, alias="PLUGIN_LOG_KB", ge=1, le=1_048_576)
    """Log that is kept of an attempt; nodes and plugins may ask for less."""
    plugin_max_timeout_ms: int = Field(0, alias="PLUGIN_MAX_TIMEOUT_MS", ge=0)
    """Longest wall time that a node or plugin gets, whatever it asks for; 0: any, here and below."""
    plugin_max_memory_limit_mb: int = Field(0, alias="PLUGIN_MAX_MEMORY_LIMIT_MB", ge=0)
    """Most memory that a node or plugin gets, also by `memoryMultiplier`."""
    plugin_max_cpu_seconds: int = Field(0, alias="PLUGIN_MAX_CPU_SECONDS", ge=0)
    """Most processor time that a node or plugin gets."""
    plugin_max_processes: int = Field(0, alias="PLUGIN_MAX_PROCESSES", ge=0)
    """Most processes and threads that a node or plugin gets."""
    plugin_max_open_files: int = Field(0, alias="PLUGIN_MAX_OPEN_FILES", ge=0)
    """Most open files that a process of a node or plugin gets."""
    plugin_max_file_mb: int = Field(0, alias="PLUGIN_MAX_FILE_MB", ge=0)
    """Largest file that a node or plugin may write."""
    min_sandbox: Literal["L0", "L1", "L2", "L3", "L4"] = Field("L0", alias="TOWLINE_MIN_SANDBOX")
    """The weakest sandbox, L0 to L4, that any step runs in, whatever its plugin and node ask for."""
    artifact_limit_mb: int = Field(1024, alias="TOWLINE_ARTIFACT_LIMIT_MB", ge=1, le=1_048_576)
    """What the artifacts of one attempt may have together; plugins may ask for less."""
    retention_days: float = Field(30, alias="TOWLINE_RETENTION_DAYS", ge=0, le=36_500)
    """How long a run is kept after its end, with its logs and outputs; 0 keeps it for ever."""
    idempotency_hours: float = Field(24, alias="TOWLINE_IDEMPOTENCY_HOURS", ge=1, le=87_600)
    """How long an idempotency key is remembered at least; it is as long as its run is there."""
    log_level: str = Field("INFO", alias="LOG_LEVEL")
    """DEBUG, INFO, WARNING or ERROR."""
    ready_file: Path | None = Field(None, alias="TOWLINE_READY_FILE")
    """Written with the address once the process serves."""

    @model_validator(mode="after")
    def _check_store(self) -> "Settings":
        keys = (self.minio_access_key, self.minio_secret_key)
        if self.minio_endpoint and not all(key.get_secret_value() for key in keys):
            raise ValueError("MINIO_ENDPOINT needs MINIO_ACCESS_KEY and MINIO_SECRET_KEY")
        return self

    @field_validator("jwt_secret")
    @classmethod
    def _check_jwt_secret(cls, secret: SecretStr) -> SecretStr:
        if weakness := weakness_of(secret.get_secret_value()):
            raise ValueError(weakness)
        return secret

    @field_validator("trusted_gateways")
    @classmethod
    def _check_gateways(cls, gateways: str) -> str:
        _networks(gateways)
        return gateways

    @field_validator("minio_endpoint")
    @classmethod
    def _check_endpoint(cls, endpoint: str) -> str:
        if not endpoint:
            return ""
        url = endpoint if "://" in endpoint else f"http://{endpoint}"
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.query:
            raise ValueError("must be an http(s) URL without a user")
        return url

    @property
    def gateways(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """The networks of trusted gateways."""
        return _networks(self.trusted_gateways)

    @property
    def server_limits(self) -> ServerLimits:
        """The limits of attempts: the defaults, and the most that may be asked for."""
        sizes = {
            "output_kb": self.plugin_output_kb,
            "log_kb": self.plugin_log_kb,
            "artifact_mb": self.artifact_limit_mb,
        }
        return ServerLimits(
            timeout_ms=self.plugin_timeout_ms,
            memory_limit_mb=self.plugin_memory_limit_mb,
            defaults=Limits(
                cpu_seconds=self.plugin_cpu_seconds,
                processes=self.plugin_processes,
                open_files=self.plugin_open_files,
                file_mb=self.plugin_file_mb,
                **sizes,
            ),
            most_timeout_ms=self.plugin_max_timeout_ms,
            most_memory_mb=self.plugin_max_memory_limit_mb,
            most=Limits(
                cpu_seconds=self.plugin_max_cpu_seconds,
                processes=self.plugin_max_processes,
                open_files=self.plugin_max_open_files,
                file_mb=self.plugin_max_file_mb,
                **sizes,
            ),
        )

    @property
    def spool_folder(self) -> Path:
        """Where uploads lie until they are whole."""
        return self.data_dir / "spool"

    @property
    def upload_folder(self) -> Path:
        """Where artifacts lie until they are whole; unlike what is spooled, they go on after a restart."""
        return self.data_dir / "uploads"


def _networks(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(ip_network(each.strip()) for each in text.split(",") if each.strip())

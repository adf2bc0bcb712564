"""Settings of the control plane, read once at start from the environment."""

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


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
    grpc_host: str = Field("127.0.0.1", alias="GRPC_HOST")
    """Address to listen on."""
    grpc_port: int = Field(50051, alias="GRPC_PORT", ge=0, le=65535)
    """Port to listen on; 0 takes any free one."""
    jwt_secret: SecretStr = Field(alias="JWT_SECRET")
    """Key of the access tokens, at least 32 bytes. Has no default."""
    token_hours: float = Field(12, alias="TOWLINE_TOKEN_HOURS", gt=0, le=720)
    """Lifetime of an access token."""
    bcrypt_cost: int = Field(12, alias="TOWLINE_BCRYPT_COST", ge=4, le=16)
    """Work factor of password hashes."""
    admin_email: str = Field("", alias="ADMIN_EMAIL")
    """With the password: an admin that is created at start if the email is free."""
    admin_password: SecretStr = Field(SecretStr(""), alias="ADMIN_PASSWORD")
    """8 to 72 bytes."""
    enrollment_token_file: Path | None = Field(None, alias="TOWLINE_ENROLLMENT_TOKEN_FILE")
    """File with a token that agents may enroll with, for installations that start together."""
    lease_seconds: float = Field(30, alias="TOWLINE_LEASE_SECONDS", ge=1, le=600)
    """How long an agent may stay silent before its attempts are lost."""
    offer_seconds: float = Field(5, alias="TOWLINE_OFFER_SECONDS", ge=1, le=60)
    """How long an offer waits for its confirmation."""
    plugin_timeout_ms: int = Field(30_000, alias="PLUGIN_TIMEOUT_MS", ge=1)
    """Wall time of an attempt whose node and plugin name none."""
    plugin_memory_limit_mb: int = Field(512, alias="PLUGIN_MEMORY_LIMIT_MB", ge=1)
    """Resident memory of an attempt's process tree whose node and plugin name none."""
    retention_days: float = Field(30, alias="TOWLINE_RETENTION_DAYS", ge=0, le=36_500)
    """How long a run is kept after its end, with its logs and outputs; 0 keeps it for ever."""
    idempotency_hours: float = Field(24, alias="TOWLINE_IDEMPOTENCY_HOURS", ge=1, le=87_600)
    """How long an idempotency key is remembered at least; it is as long as its run is there."""
    log_level: str = Field("INFO", alias="LOG_LEVEL")
    """DEBUG, INFO, WARNING or ERROR."""
    ready_file: Path | None = Field(None, alias="TOWLINE_READY_FILE")
    """Written with the address once the process serves."""

    @property
    def spool_folder(self) -> Path:
        """Where uploads lie until they are whole."""
        return self.data_dir / "spool"

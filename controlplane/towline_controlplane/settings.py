"""Settings of the control plane, read once at start from the environment."""

from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
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
    jwt_secret: SecretStr = Field(alias="JWT_SECRET")
    """Key of the access tokens, at least 32 bytes. Has no default."""
    secrets_key: SecretStr = Field(SecretStr(""), alias="TOWLINE_SECRETS_KEY")
    """32 random bytes in base64: the key of stored secrets; `new,old` while they are rotated. Empty: no secrets."""
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

    @model_validator(mode="after")
    def _check_store(self) -> "Settings":
        keys = (self.minio_access_key, self.minio_secret_key)
        if self.minio_endpoint and not all(key.get_secret_value() for key in keys):
            raise ValueError("MINIO_ENDPOINT needs MINIO_ACCESS_KEY and MINIO_SECRET_KEY")
        return self

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
    def spool_folder(self) -> Path:
        """Where uploads lie until they are whole."""
        return self.data_dir / "spool"

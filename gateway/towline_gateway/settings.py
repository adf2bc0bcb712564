"""Settings of the gateway process, read once from the environment at start."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from towline_gateway import cors
from towline_sdk import servers

LogLevel = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(str.upper)]


class Settings(BaseSettings):
    """What an operator may set; every field names its environment variable."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    host: str = Field("127.0.0.1", validation_alias="HTTP_HOST", description="Address to listen on.")
    port: int = Field(3000, ge=0, le=65535, validation_alias="HTTP_PORT", description="Port; 0 takes any free one.")
    server: Annotated[str, AfterValidator(servers.checked)] = Field(
        "127.0.0.1:50051",
        validation_alias="TOWLINE_SERVER",
        description="The control plane, `host:port`; several replicas are separated by commas.",
    )
    trusted_proxies: str = Field(
        "",
        validation_alias="TOWLINE_TRUSTED_PROXIES",
        description="Comma-separated addresses whose X-Forwarded-For names the client; empty trusts none.",
    )
    cors_origins: Annotated[str, AfterValidator(cors.checked)] = Field(
        "",
        validation_alias="TOWLINE_CORS_ORIGINS",
        description="Comma-separated origins whose pages may use the API, `https://host:port`; empty means none.",
    )
    log_level: LogLevel = Field(
        "INFO", validation_alias="LOG_LEVEL", description="Least severe log line that is written."
    )
    ready_file: Path | None = Field(
        None, validation_alias="TOWLINE_READY_FILE", description="Written with the address once the gateway serves."
    )

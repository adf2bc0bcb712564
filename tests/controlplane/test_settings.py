"""What the settings refuse, and that they never show a secret."""

import pytest
from pydantic import ValidationError

from towline_controlplane.settings import Settings

SECRET = "a-secret-of-the-tests-that-is-long-enough"
STORE = {"MINIO_ACCESS_KEY": "key", "MINIO_SECRET_KEY": SECRET}


def settings(**variables: str) -> Settings:
    return Settings.model_validate({"JWT_SECRET": SECRET, **variables})


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("", ""),
        ("minio:9000", "http://minio:9000"),
        ("http://[::1]:9000", "http://[::1]:9000"),
        ("https://minio.example", "https://minio.example"),
    ],
)
def test_endpoints(endpoint: str, url: str) -> None:
    assert settings(MINIO_ENDPOINT=endpoint, **STORE).minio_endpoint == url


@pytest.mark.parametrize(
    "wrong",
    [
        {"MINIO_ENDPOINT": "ftp://minio"},
        {"MINIO_ENDPOINT": "http://"},
        {"MINIO_ENDPOINT": f"http://user:{SECRET}@minio:9000"},
        {"MINIO_ENDPOINT": "minio:9000", "MINIO_ACCESS_KEY": ""},
        {"MINIO_ENDPOINT": "minio:9000", "MINIO_SECRET_KEY": ""},
        {"MINIO_BUCKET": "Not/A/Bucket"},
        {"MINIO_REGION": "no region"},
    ],
)
def test_a_store_that_cannot_be_used_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError) as refused:
        settings(**{**STORE, **wrong})
    assert SECRET not in str(refused.value.errors(include_input=False, include_context=False))


def test_secrets_are_not_shown() -> None:
    assert SECRET not in repr(settings(MINIO_ENDPOINT="minio:9000", **STORE))

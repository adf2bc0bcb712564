"""S3_COPY against real stores: what is copied, what is signed, what each failure means."""

from collections.abc import Mapping
from typing import Any

import boto3
import jsonschema
import pytest
from botocore.config import Config
from http_server import Answer, serving
from s3_server import ACCESS_KEY, SECRET_KEY, S3Server, new_bucket

from towline_plugins import s3_copy
from towline_plugins.catalog import BUILTINS
from towline_sdk.plugin import PermanentError, TransientError

SECRETS = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
KEY = "reports/Übersicht 2026 (a+b).csv"
DATA = bytes(range(256)) * 5_000


class Bucket:
    """A new bucket of a server, seen with another client than ours."""

    def __init__(self, server: S3Server) -> None:
        self.server = server
        self.name = new_bucket()
        self._client: Any = boto3.client(  # pyright: ignore[reportUnknownMemberType]
            "s3",
            endpoint_url=server.endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name="us-east-1",
            config=Config(response_checksum_validation="when_required", request_checksum_calculation="when_required"),
        )
        self._client.create_bucket(Bucket=self.name)

    def put(self, key: str, data: bytes) -> None:
        self._client.put_object(Bucket=self.name, Key=key, Body=data)

    def get(self, key: str) -> bytes:
        return self._client.get_object(Bucket=self.name, Key=key)["Body"].read()

    def url(self, key: str) -> str:
        return f"s3://{self.name}/{key}"

    @property
    def store(self) -> dict[str, str]:
        return {"endpoint": self.server.endpoint}


@pytest.fixture(params=["rclone", "moto"])
def bucket(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    monkeypatch.setenv("TOWLINE_HTTP_ALLOW", "127.0.0.1")
    return Bucket(request.getfixturevalue(request.param))


def copy(source: str, target: str, secrets: Mapping[str, str] = SECRETS, **config: Any) -> dict[str, Any]:
    whole = {"source": source, "target": target, **config}
    jsonschema.validate(whole, BUILTINS["S3_COPY"].config_schema)
    output = s3_copy.run(whole, secrets)
    jsonschema.validate(output, BUILTINS["S3_COPY"].output_schema)
    return output


@pytest.mark.parametrize("data", [DATA, b""], ids=["bytes", "nothing"])
def test_an_object_is_copied_within_a_store(bucket: Bucket, data: bytes) -> None:
    bucket.put(KEY, data)
    output = copy(bucket.url(KEY), bucket.url("copy.csv"), store=bucket.store)
    assert output == {"source": bucket.url(KEY), "target": bucket.url("copy.csv"), "sizeBytes": len(data)}
    assert bucket.get("copy.csv") == data
    assert copy(bucket.url(KEY), bucket.url("copy.csv"), store=bucket.store) == output


@pytest.mark.parametrize("data", [DATA, b""], ids=["bytes", "nothing"])
def test_an_object_is_copied_from_store_to_store(bucket: Bucket, moto: S3Server, data: bytes) -> None:
    bucket.put("from", data)
    other = Bucket(moto)
    there = {**other.store, "region": "eu-central-1", "accessKeyId": "another", "secretAccessKey": "key"}
    output = copy(bucket.url("from"), other.url(KEY), store=bucket.store, targetStore=there)
    assert output["sizeBytes"] == len(data)
    assert other.get(KEY) == data


def test_a_store_may_be_given_keys_of_its_own(bucket: Bucket) -> None:
    bucket.put("from", DATA)
    keys = {"accessKeyId": "{{secret:KEY}}", "secretAccessKey": "{{secret:OTHER}}"}
    secrets = {"KEY": ACCESS_KEY, "OTHER": SECRET_KEY}
    output = copy(bucket.url("from"), bucket.url("to"), secrets, store={**bucket.store, **keys})
    assert output["sizeBytes"] == len(DATA)


def test_a_wrong_key_stays_wrong(rclone: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOWLINE_HTTP_ALLOW", "127.0.0.1")
    bucket = Bucket(rclone)
    bucket.put("from", DATA)
    with pytest.raises(PermanentError) as caught:
        copy(bucket.url("from"), bucket.url("to"), SECRETS | {"AWS_SECRET_ACCESS_KEY": "wrong"}, store=bucket.store)
    assert caught.value.code == "S3_403"


def test_an_object_that_is_not_there_stays_so(bucket: Bucket) -> None:
    with pytest.raises(PermanentError) as caught:
        copy(bucket.url("missing"), bucket.url("to"), store=bucket.store)
    assert caught.value.code == "S3_404"


REFUSED: dict[str, tuple[dict[str, Any], Mapping[str, str], str]] = {
    "no key": ({"source": "s3://bucket/"}, SECRETS, "S3_URL_INVALID"),
    "no bucket": ({"source": "s3:///key"}, SECRETS, "S3_URL_INVALID"),
    "another bucket by name": ({"source": "s3://../bucket/key"}, SECRETS, "S3_URL_INVALID"),
    "no secrets": ({}, {}, "S3_CREDENTIALS_MISSING"),
    "half the secrets": ({}, {"AWS_ACCESS_KEY_ID": "x"}, "S3_CREDENTIALS_MISSING"),
    "a private address": ({"store": {"endpoint": "http://127.0.0.1:9"}}, SECRETS, "HTTP_ADDRESS_FORBIDDEN"),
    "no address": ({"store": {"endpoint": "store"}}, SECRETS, "HTTP_URL_INVALID"),
}


@pytest.mark.parametrize(("config", "secrets", "code"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(config: dict[str, Any], secrets: Mapping[str, str], code: str) -> None:
    with pytest.raises(PermanentError) as caught:
        s3_copy.run({"source": "s3://bucket/key", "target": "s3://bucket/other", **config}, secrets)
    assert caught.value.code == code


@pytest.mark.parametrize(("status", "wish"), [(503, "7"), (429, "7"), (500, "")])
def test_a_store_that_is_busy_is_worth_another_try(monkeypatch: pytest.MonkeyPatch, status: int, wish: str) -> None:
    with serving() as server:
        monkeypatch.setenv("TOWLINE_HTTP_ALLOW", server.address)
        server.answers["/bucket/a"] = Answer(status, {"Retry-After": wish} if wish else {})
        with pytest.raises(TransientError) as caught:
            copy("s3://bucket/a", "s3://bucket/b", store={"endpoint": server.url("")})
    assert (caught.value.code, caught.value.retry_after_ms) == (f"S3_{status}", 7_000 if wish else 0)
    assert SECRET_KEY not in str(caught.value)


def test_a_copy_that_fails_after_its_status_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as server:
        monkeypatch.setenv("TOWLINE_HTTP_ALLOW", server.address)
        server.answers["/bucket/a"] = Answer(200)
        server.answers["/bucket/b"] = Answer(200, {}, b"<Error><Code>InternalError</Code></Error>")
        with pytest.raises(TransientError, match="InternalError") as caught:
            copy("s3://bucket/a", "s3://bucket/b", store={"endpoint": server.url("")})
    assert caught.value.code == "S3_COPY_FAILED"

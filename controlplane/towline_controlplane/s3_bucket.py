"""A bucket of a store with the S3 protocol, one blocking call at a time: objects by key, errors as ours.

The client repeats calls that fail for a while, with jitter. Nothing that it says holds a credential. What was sent
counts as stored only if the store says so by the MD5 of the bytes, or if they were read back.
"""

import hashlib
import logging
from base64 import b64encode
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final

from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from towline_controlplane.blobs import CHUNK_BYTES
from towline_controlplane.errors import NotFound, Unavailable

_MISSING: Final = frozenset({"404", "NoSuchKey", "NotFound", "NoSuchBucket"})
_ARRIVED_DAMAGED: Final = frozenset({"BadDigest", "XAmzContentSHA256Mismatch"})
_BEHIND_THE_END: Final = frozenset({"416", "InvalidRange"})
_TALKATIVE: Final = ("boto3", "botocore", "urllib3")


@dataclass(frozen=True, slots=True)
class S3Options:
    """Where the bucket is and who may use it; calls are tried `attempts` times."""

    endpoint: str
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    bucket: str
    region: str = "us-east-1"
    attempts: int = 5
    connect_seconds: float = 5.0
    read_seconds: float = 20.0
    part_bytes: int = 16 << 20
    connections: int = 16


class S3Bucket:
    """The objects of one bucket; may be used by several threads."""

    def __init__(self, options: S3Options) -> None:
        self._options = options
        self._client = _client(options)

    def check(self) -> None:
        """Makes sure that the bucket is there; raises Unavailable."""
        with _translated("the bucket"):
            try:
                self._client.head_bucket(Bucket=self._options.bucket)
            except ClientError as error:
                if _code(error) not in _MISSING:
                    raise
                self._client.create_bucket(Bucket=self._options.bucket)

    def size(self, key: str) -> int:
        """Returns the size of an object; raises NotFound or Unavailable."""
        with _translated(f"the blob {key}"):
            return int(self._client.head_object(**self._named(key))["ContentLength"])

    def delete(self, key: str) -> None:
        """Removes an object, if it is there; raises Unavailable."""
        with _translated(f"the blob {key}"):
            self._client.delete_object(**self._named(key))

    def put(self, key: str, source: BinaryIO, size: int) -> bool:
        """Stores all bytes of a file under a key; tells whether the store has proven to have these. Raises Unavailable.

        A large file goes in parts, of which one is in memory, and appears with the last.
        """
        with _translated(f"the blob {key}"):
            source.seek(0)
            try:
                if size <= self._options.part_bytes:
                    return _send(self._client.put_object, source.read(), **self._named(key))[1]
                return self._put_parts(key, source)
            except ClientError as error:
                if _code(error) not in _ARRIVED_DAMAGED:
                    raise
                return False

    def get(self, key: str, offset: int, end: int | None) -> "S3Reader":
        """Returns the bytes of an object from `offset` up to `end` (None: its end); raises NotFound or Unavailable."""
        if end is not None and end <= offset:
            self.size(key)
            return S3Reader(key, None)
        span = {} if offset == 0 and end is None else {"Range": f"bytes={offset}-{'' if end is None else end - 1}"}
        with _translated(f"the blob {key}"):
            try:
                return S3Reader(key, self._client.get_object(**self._named(key), **span)["Body"])
            except ClientError as error:
                if _code(error) not in _BEHIND_THE_END:
                    raise
                return S3Reader(key, None)

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def _put_parts(self, key: str, source: BinaryIO) -> bool:
        named = self._named(key)
        upload = {**named, "UploadId": self._client.create_multipart_upload(**named)["UploadId"]}
        try:
            parts: list[dict[str, object]] = []
            proven = True
            while data := source.read(self._options.part_bytes):
                number = len(parts) + 1
                tag, is_proven = _send(self._client.upload_part, data, **upload, PartNumber=number)
                parts.append({"ETag": tag, "PartNumber": number})
                proven &= is_proven
            self._client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
        except BaseException:
            self._abort(upload)
            raise
        return proven

    def _abort(self, upload: dict[str, str]) -> None:
        try:
            self._client.abort_multipart_upload(**upload)
        except (BotoCoreError, ClientError) as error:
            logging.getLogger(__name__).warning("parts of an upload are left in the bucket: %s", _reason(error))

    def _named(self, key: str) -> dict[str, str]:
        return {"Bucket": self._options.bucket, "Key": key}


class S3Reader:
    """The bytes of an object, once, front to back."""

    def __init__(self, key: str, body: Any) -> None:
        self._key = key
        self._body = body

    def read(self) -> bytes:
        """Returns the next bytes, at most a chunk, none at the end; raises Unavailable."""
        if self._body is None:
            return b""
        with _translated(f"the blob {self._key}"):
            return self._body.read(CHUNK_BYTES)

    def close(self) -> None:
        """Drops the connection if bytes are left on it."""
        if self._body is not None:
            self._body.close()

    def __iter__(self) -> Iterator[bytes]:
        """Yields the chunks and closes."""
        with closing(self):
            while chunk := self.read():
                yield chunk


def _client(options: S3Options) -> Any:
    for name in _TALKATIVE:  # at DEBUG they write what they sign
        logging.getLogger(name).setLevel(logging.WARNING)
    session: Any = Session()
    return session.client(
        "s3",
        endpoint_url=options.endpoint,
        region_name=options.region,
        aws_access_key_id=options.access_key,
        aws_secret_access_key=options.secret_key,
        config=Config(
            signature_version="s3v4",
            s3={"addressing_style": "path", "payload_signing_enabled": True},
            retries={"mode": "standard", "total_max_attempts": options.attempts},
            connect_timeout=options.connect_seconds,
            read_timeout=options.read_seconds,
            max_pool_connections=options.connections,
            # Checksums beyond the signature are not known to every store.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


def _send(call: Callable[..., Any], data: bytes, **named: object) -> tuple[str, bool]:
    """Sends bytes with their MD5, so that the store refuses others; returns its tag, and whether it is this MD5."""
    md5 = hashlib.md5(data, usedforsecurity=False)
    tag = str(call(Body=data, ContentMD5=b64encode(md5.digest()).decode(), **named)["ETag"])
    return tag, tag.strip('"') == md5.hexdigest()


@contextmanager
def _translated(what: str) -> Generator[None]:
    try:
        yield
    except ClientError as error:
        if _code(error) in _MISSING - {"NoSuchBucket"}:
            raise NotFound(f"there is no {what.removeprefix('the ')}") from None
        raise Unavailable(f"{what} cannot be used: {_reason(error)}") from None
    except (BotoCoreError, HTTPError, OSError) as error:
        raise Unavailable(f"{what} cannot be used: {_reason(error)}") from None


def _code(error: ClientError) -> str:
    answer: dict[str, Any] = error.response
    return str(answer.get("Error", {}).get("Code", ""))


def _reason(error: Exception) -> str:
    # Messages may quote what was signed; codes and names may not.
    return _code(error) if isinstance(error, ClientError) else type(error).__name__

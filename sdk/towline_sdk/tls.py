"""What the certificate of a server is verified against: a file of one's own, else the roots of the system."""

import os
import ssl
from pathlib import Path
from typing import Final

import grpc

from towline_sdk.errors import InvalidArgumentError

# Where distributions keep their roots, for a Python whose OpenSSL was built to look elsewhere.
_SYSTEM_ROOTS: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)


def credentials(ca_file: Path | None) -> grpc.ChannelCredentials:
    """Returns the credentials of a channel; raises InvalidArgumentError if the file cannot be read."""
    try:
        roots = ca_file.read_bytes() if ca_file else _system_roots()
    except OSError as error:
        raise InvalidArgumentError(f"cannot read {ca_file}: {error.strerror}") from None
    if roots is not None and b"BEGIN CERTIFICATE" not in roots:
        raise InvalidArgumentError(f"{ca_file} holds no certificate in PEM")
    return grpc.ssl_channel_credentials(roots)


def _system_roots() -> bytes | None:
    """Returns the roots of the system; None, which means those that gRPC brings along, if it has none."""
    named = os.environ.get("SSL_CERT_FILE"), ssl.get_default_verify_paths().cafile
    found = (Path(each) for each in (*named, *_SYSTEM_ROOTS) if each)
    return next((file.read_bytes() for file in found if file.is_file()), None)

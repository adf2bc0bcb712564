"""The signature against the worked example of AWS's own documentation."""

from datetime import UTC, datetime

from towline_plugins.s3_signature import Credentials, path_of, signed

EXAMPLE = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "us-east-1")
MAY_24 = datetime(2013, 5, 24, tzinfo=UTC)
OF_NOTHING = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
HOST = "examplebucket.s3.amazonaws.com"


def test_the_documented_get_is_signed_as_documented() -> None:
    headers = signed("GET", "/test.txt", {"host": HOST, "range": "bytes=0-9"}, EXAMPLE, MAY_24, OF_NOTHING)
    assert headers["authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, "
        "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, "
        "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
    )


def test_a_session_token_is_signed_along() -> None:
    temporary = Credentials(EXAMPLE.access_key, EXAMPLE.secret_key, EXAMPLE.region, "token")
    headers = signed("GET", "/", {"host": HOST}, temporary, MAY_24)
    assert headers["x-amz-security-token"] == "token"
    assert "x-amz-security-token" in headers["authorization"]


def test_paths_are_encoded_byte_by_byte() -> None:
    assert path_of("bucket", "a b/ä+~:é.txt") == "/bucket/a%20b/%C3%A4%2B~%3A%C3%A9.txt"

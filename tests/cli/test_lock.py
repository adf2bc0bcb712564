import pytest

from towline_sdk.errors import InvalidBundleError
from towline_sdk.lock import parse_lock

HASH = f"--hash=sha256:{'0' * 64}"
OTHER = f"--hash=sha512:{'a' * 128}"


def test_what_lock_tools_write_is_read() -> None:
    lock = f"""
# by a tool
alpha==1.0 \\
    {HASH} \\
    {OTHER}
    # via something
beta[extra, more]==2.0.post1+local ; python_version < "3.12" and sys_platform == 'linux' \\
    {HASH}  # a comment
"""
    assert parse_lock(lock.encode()) == (
        f"alpha==1.0 {HASH} {OTHER}",
        f"beta[extra, more]==2.0.post1+local ; python_version < \"3.12\" and sys_platform == 'linux' {HASH}",
    )
    assert parse_lock(b"") == ()


@pytest.mark.parametrize(
    "line",
    [
        "alpha==1.0",
        f"alpha {HASH}",
        f"alpha>=1.0 {HASH}",
        f"alpha==1.* {HASH}",
        f"alpha==1.0 {HASH[:-1]}",
        "alpha==1.0 --hash=md5:0",
        f"alpha @ https://example.org/alpha.whl {HASH}",
        f"https://example.org/alpha.whl {HASH}",
        f"./alpha.whl {HASH}",
        "--index-url https://example.org",
        f"alpha==1.0 {HASH} --index-url=https://example.org",
        f"alpha==1.0 --config-settings=x=y {HASH}",
        "--find-links .",
        "-r other.txt",
        "-e .",
        f"-alpha==1.0 {HASH}",
        f"alpha==1.0 ; x @ y {HASH}",
    ],
)
def test_what_says_anything_else_is_refused(line: str) -> None:
    with pytest.raises(InvalidBundleError) as caught:
        parse_lock(f"beta==1.0 {HASH}\n{line}\n".encode())
    [violation] = caught.value.violations
    assert violation.field == "environment.lock"
    assert line[:20] in violation.message


def test_a_lock_is_text_of_a_bounded_size() -> None:
    for data, said in ((b"\xff", "UTF-8"), (b"#" * (2 << 20), "larger than")):
        with pytest.raises(InvalidBundleError) as caught:
            parse_lock(data)
        assert said in caught.value.violations[0].message

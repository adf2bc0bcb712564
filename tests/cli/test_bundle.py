import gzip
import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest

from towline_sdk.bundle import pack
from towline_sdk.errors import InvalidBundleError

VALID = 'name = "p"\nversion = "1.2.3-rc.1"\nentry_point = "python:plugin:main"\n'
# What is added to or stands instead of the valid plugin.toml, and the fields that are named.
WRONG_MANIFESTS = [
    ("", ["name", "version", "entry_point"]),
    (VALID.replace('"p"', '"1p"'), ["name"]),
    (VALID.replace('"p"', f'"{"p" * 129}"'), ["name"]),
    (VALID.replace("1.2.3-rc.1", "1.2"), ["version"]),
    (VALID.replace("1.2.3-rc.1", "01.2.3"), ["version"]),
    (VALID.replace("python:plugin:main", "python:plugin"), ["entry_point"]),
    (VALID.replace("python:plugin:main", "/bin/sh"), ["entry_point"]),
    (VALID.replace("python:plugin:main", "../run"), ["entry_point"]),
    (VALID.replace("python:plugin:main", "python:missing:main"), ["entry_point"]),
    (VALID.replace("python:plugin:main", "missing.sh"), ["entry_point"]),
    (VALID.replace("python:plugin:main", "./sub/run.sh"), ["entry_point"]),
    (VALID.replace("python:plugin:main", "data.txt"), ["entry_point"]),
    (VALID + "description = 1\n", ["description"]),
    (VALID + 'side_effects = "SOME"\n', ["side_effects"]),
    (VALID + "limits = 1\n", ["limits"]),
    (VALID + "[limits]\ntimeout_ms = 0\nmemory_limit_mb = true\n", ["limits.timeout_ms", "limits.memory_limit_mb"]),
    (VALID + "[limits]\ncpu = 1\n", ["limits.cpu"]),
    (VALID + "config_schema = 1\n", ["config_schema"]),
    (VALID + "output_schema = []\n", ["output_schema"]),
    (VALID + 'enrty_point = "x"\n', ["enrty_point"]),
]


def plugin(folder: Path, manifest: str = VALID) -> Path:
    (folder / "sub").mkdir(parents=True)
    (folder / "plugin.toml").write_text(manifest)
    (folder / "plugin.py").write_text("def main(): ...\n")
    (folder / "data.txt").write_text("data")
    (folder / "sub" / "run.sh").write_text("#!/bin/sh\n")
    (folder / "sub" / "run.sh").chmod(0o700)
    return folder


def test_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = plugin(tmp_path / "a"), plugin(tmp_path / "b")
    for path in second.rglob("*"):
        os.utime(path, (1, 1))
    (second / "data.txt").chmod(0o600)
    (second / "sub" / "run.sh").chmod(0o755)
    (second / "__pycache__").mkdir()
    (second / "__pycache__" / "plugin.cpython-311.pyc").write_bytes(b"cache")
    (second / ".git").mkdir()
    (second / ".git" / "HEAD").write_text("hidden")

    one, other = pack(first), pack(second)

    assert one.data == other.data
    assert one.digest == hashlib.sha256(one.data).hexdigest()


def test_another_byte_is_another_digest(tmp_path: Path) -> None:
    first, second = plugin(tmp_path / "a"), plugin(tmp_path / "b")
    (second / "data.txt").write_text("Data")

    assert pack(first).digest != pack(second).digest


def test_archive_holds_nothing_of_this_machine(tmp_path: Path) -> None:
    data = pack(plugin(tmp_path / "a")).data

    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(data))) as archive:
        entries = archive.getmembers()
    assert [(entry.name, entry.mode) for entry in entries] == [
        ("data.txt", 0o644),
        ("plugin.py", 0o644),
        ("plugin.toml", 0o644),
        ("sub/run.sh", 0o755),
    ]
    assert {(entry.uid, entry.gid, entry.uname, entry.gname, entry.mtime) for entry in entries} == {(0, 0, "", "", 0)}
    assert data[4:8] == bytes(4)


def test_manifest_is_read(tmp_path: Path) -> None:
    text = VALID + '[limits]\ntimeout_ms = 5\n[config_schema]\ntype = "object"\n'

    manifest = pack(plugin(tmp_path / "a", text)).manifest

    assert (manifest.name, manifest.version, manifest.side_effects) == ("p", "1.2.3-rc.1", "IDEMPOTENT")
    assert (manifest.timeout_ms, manifest.memory_limit_mb) == (5, None)
    assert manifest.config_schema == {"type": "object"}


@pytest.mark.parametrize(("manifest", "fields"), WRONG_MANIFESTS, ids=[str(fields) for _, fields in WRONG_MANIFESTS])
def test_wrong_manifest_names_its_fields(manifest: str, fields: list[str], tmp_path: Path) -> None:
    with pytest.raises(InvalidBundleError) as error:
        pack(plugin(tmp_path / "a", manifest))

    assert [violation.field for violation in error.value.violations] == fields


@pytest.mark.parametrize("text", ["name =", "name = 'a'\nname = 'b'"])
def test_what_is_not_toml_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidBundleError, match=r"plugin\.toml is not TOML"):
        pack(plugin(tmp_path / "a", text))


def test_links_are_refused(tmp_path: Path) -> None:
    folder = plugin(tmp_path / "a")
    (folder / "link").symlink_to("/etc/passwd")

    with pytest.raises(InvalidBundleError, match="link is neither a file nor a folder"):
        pack(folder)


def test_folder_without_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidBundleError, match=r"cannot read .*plugin\.toml: No such file"):
        pack(tmp_path)

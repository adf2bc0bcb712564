"""Bundles written by attackers, and by people."""

import gzip
import io
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from towline_agent import archive
from towline_agent.archive import BadBundle, unpack
from towline_agent.files import remove_tree

Entry = tuple[tarfile.TarInfo, bytes]


def file(name: str, data: bytes = b"x", mode: int = 0o644) -> Entry:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    return entry, data


def special(name: str, kind: bytes, target: str = "") -> Entry:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry, b""


def tar(entries: Iterable[Entry]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as packed:
        for entry, data in entries:
            packed.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def bundle(*entries: Entry) -> bytes:
    return gzip.compress(tar(entries))


ATTACKS = {
    "climbing": bundle(file("../evil")),
    "climbing inside": bundle(file("a/../../evil")),
    "absolute": bundle(file("/tmp/evil")),
    "backslashes": bundle(file("..\\evil")),
    "symbolic link": bundle(special("link", tarfile.SYMTYPE, "/etc"), file("link/evil")),
    "hard link": bundle(file("a"), special("b", tarfile.LNKTYPE, "a")),
    "device": bundle(special("null", tarfile.CHRTYPE)),
    "pipe": bundle(special("pipe", tarfile.FIFOTYPE)),
    "twice": bundle(file("a"), file("a", b"y")),
    "file as folder": bundle(file("a"), file("a/b")),
    "folder as file": bundle(file("a/b"), file("a")),
    "bomb": gzip.compress(tar([file("zeros", bytes(64 * 1024 * 1024))])),
    "long header": gzip.compress(tar([file("x/" * 40 + "deep")])),
    "long name": bundle(file("n" * 300)),
    "cut short": bundle(file("a", b"x" * 100_000))[:-200],
    "cut tar": gzip.compress(tar([file("a", b"x" * 100_000)])[:20_000]),
    "not gzip": tar([file("a")]),
    "not tar": gzip.compress(b"hello" * 1000),
    "nothing": b"",
}


@pytest.mark.parametrize("data", ATTACKS.values(), ids=ATTACKS.keys())
def test_attacks_are_refused_and_touch_nothing_outside(tmp_path: Path, data: bytes) -> None:
    packed, target = tmp_path / "bundle", tmp_path / "inside" / "target"
    target.parent.mkdir()
    packed.write_bytes(data)
    with pytest.raises(BadBundle):
        unpack(packed, target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "inside"]
    assert [path.name for path in target.parent.iterdir()] == ["target"]


def test_too_many_entries_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_ENTRIES", 3)
    (tmp_path / "bundle").write_bytes(bundle(*(file(f"f{number}") for number in range(4))))
    with pytest.raises(BadBundle, match="more than 3"):
        unpack(tmp_path / "bundle", tmp_path / "target")


def test_files_of_a_bundle_are_read_only_and_its_folders_removable(tmp_path: Path) -> None:
    (tmp_path / "bundle").write_bytes(
        bundle(
            special("pkg", tarfile.DIRTYPE),
            file("pkg/mod.py", b"print()"),
            file("run", b"#!/bin/sh", 0o4755),
            file("a/b/c.txt"),
        )
    )
    target = tmp_path / "target"
    unpack(tmp_path / "bundle", target)
    modes = {str(path.relative_to(target)): path.stat().st_mode & 0o7777 for path in target.rglob("*")}
    assert modes == {
        "pkg": 0o555,
        "pkg/mod.py": 0o444,
        "run": 0o555,
        "a": 0o555,
        "a/b": 0o555,
        "a/b/c.txt": 0o444,
    }
    assert (target / "pkg/mod.py").read_bytes() == b"print()"
    assert os.stat(target).st_mode & 0o7777 == 0o555
    remove_tree(target)
    assert not target.exists()

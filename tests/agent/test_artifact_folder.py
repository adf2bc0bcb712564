"""Folders as a hostile plugin may leave them: what is taken, what is left, and that nothing else is ever opened."""

import os
import socket
import stat
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from towline_agent import artifact_folder, artifact_names, beneath
from towline_agent.artifact_folder import MAX_ARTIFACTS, MAX_ENTRIES, TooMuch, look, take
from towline_controlplane import artifact_names as names_of_the_control_plane

MANY = 1 << 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "work" / "0" / "artifacts"
    made.mkdir(parents=True)
    return made


@pytest.fixture
def room(tmp_path: Path) -> Path:
    made = tmp_path / "room"
    made.mkdir()
    return made


def secret_of(folder: Path) -> Path:
    secret = folder.parent.parent.parent / "secret"
    secret.write_text("secret")
    return secret


def link(folder: Path) -> None:
    (folder / "odd").symlink_to(secret_of(folder))


def link_to_folder(folder: Path) -> None:
    (folder / "odd").symlink_to(secret_of(folder).parent, target_is_directory=True)


def dangling_link(folder: Path) -> None:
    (folder / "odd").symlink_to("nowhere")


def hard_link(folder: Path) -> None:
    (folder / "odd").hardlink_to(secret_of(folder))


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "odd")


def unix_socket(folder: Path) -> None:
    here = os.getcwd()
    os.chdir(folder)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("odd")
    finally:
        os.chdir(here)


def device(folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root makes devices")
    os.mknod(folder / "odd", 0o600 | stat.S_IFCHR, os.makedev(1, 5))


def bytes_that_are_no_text(folder: Path) -> None:
    os.close(os.open(os.fsencode(folder) + b"/\xff\xfe", os.O_CREAT))


def named(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / name).write_text("x")

    return make


HOSTILE: dict[str, tuple[Callable[[Path], None], str]] = {
    "symbolic link": (link, "is a symbolic link"),
    "symbolic link to a folder": (link_to_folder, "is a symbolic link"),
    "dangling link": (dangling_link, "is a symbolic link"),
    "hard link": (hard_link, "hard link"),
    "pipe": (pipe, "is a pipe"),
    "socket": (unix_socket, "is a socket"),
    "device": (device, "is a device"),
    "no UTF-8": (bytes_that_are_no_text, "not UTF-8"),
    "line feed": (named("a\nb"), "cannot be seen"),
    "escape": (named("a\x1b[31m"), "cannot be seen"),
    "right to left": (named("txt.\u202egpj"), "cannot be seen"),
    "backslash": (named("..\\..\\x"), "backslash"),
    "decomposed": (named("e\u0301"), "normal form"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_no_plain_file_is_left_and_said(folder: Path, room: Path, case: str) -> None:
    make, reason = HOSTILE[case]
    make(folder)
    (folder / "good.txt").write_text("good")
    findings = look(folder, MANY)
    kept = take(folder, findings, room)
    assert [(each.name, each.file.read_text()) for each in kept] == [("good.txt", "good")]
    [note] = findings.left
    assert reason in note
    assert note.isascii()
    assert "\n" not in note


def test_files_are_kept_with_the_digest_of_their_bytes(folder: Path, room: Path) -> None:
    files = {"a.bin": os.urandom(3 << 20), "deep/er/ü.txt": b"", "deep/b": b"x", ".hidden": b"h"}
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / "empty").mkdir()
    findings = look(folder, 4 << 20)
    kept = {each.name: each for each in take(folder, findings, room)}
    assert {name: each.file.read_bytes() for name, each in kept.items()} == files
    assert {name: each.digest for name, each in kept.items()} == {n: sha256(d).hexdigest() for n, d in files.items()}
    assert {name: each.size for name, each in kept.items()} == {n: len(d) for n, d in files.items()}
    assert findings.left == []


def test_a_folder_without_anything_is_empty(folder: Path) -> None:
    assert artifact_folder.is_empty(folder)
    (folder / "x").mkdir()
    assert not artifact_folder.is_empty(folder)


def test_sizes_count_before_a_byte_is_read(folder: Path) -> None:
    with (folder / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(TooMuch, match="bytes together"):
        look(folder, 1 << 30)


@pytest.mark.parametrize(("sizes", "fits"), [((10, 10), True), ((10, 11), False), ((21,), False)])
def test_the_bound_is_for_all_together(folder: Path, sizes: tuple[int, ...], fits: bool) -> None:
    for number, size in enumerate(sizes):
        (folder / str(number)).write_bytes(b"x" * size)
    if fits:
        assert look(folder, 20).bytes == 20
    else:
        with pytest.raises(TooMuch, match="more than 20 bytes"):
            look(folder, 20)


def test_there_are_not_too_many(folder: Path) -> None:
    for number in range(MAX_ARTIFACTS):
        (folder / str(number)).touch()
    assert len(look(folder, MANY).sizes) == MAX_ARTIFACTS
    (folder / "another").touch()
    with pytest.raises(TooMuch, match="more than 1,000"):
        look(folder, MANY)


def test_looking_ends_in_a_folder_of_rubbish(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact_folder, "MAX_ENTRIES", 50)
    for number in range(51):
        (folder / str(number)).symlink_to("nowhere")
    with pytest.raises(TooMuch, match="files and folders"):
        look(folder, MANY)
    assert MAX_ENTRIES > MAX_ARTIFACTS


def test_notes_are_few(folder: Path) -> None:
    for number in range(100):
        (folder / str(number)).symlink_to("nowhere")
    left = look(folder, MANY).left
    assert len(left) == 21
    assert left[-1] == "more artifacts were left"


def swap_for_link(folder: Path) -> None:
    (folder / "a").unlink()
    (folder / "a").symlink_to(secret_of(folder))


def swap_for_pipe(folder: Path) -> None:
    (folder / "a").unlink()
    os.mkfifo(folder / "a")


def swap_for_hard_link(folder: Path) -> None:
    (folder / "a").unlink()
    (folder / "a").hardlink_to(secret_of(folder))


def grow(folder: Path) -> None:
    (folder / "a").write_text("much more than before")


def remove(folder: Path) -> None:
    (folder / "a").unlink()


@pytest.mark.parametrize("change", [swap_for_link, swap_for_pipe, swap_for_hard_link, grow, remove])
def test_what_changes_between_look_and_take_is_left(folder: Path, room: Path, change: Callable[[Path], None]) -> None:
    (folder / "a").write_text("before")
    (folder / "b").write_text("b")
    findings = look(folder, MANY)
    change(folder)
    assert [each.name for each in take(folder, findings, room)] == ["b"]
    assert len(findings.left) == 1


def test_a_folder_on_the_way_that_becomes_a_link_leads_nowhere(folder: Path, room: Path) -> None:
    secret = secret_of(folder)
    (folder / "deep").mkdir()
    (folder / "deep" / "secret").write_text("mine!!")
    findings = look(folder, MANY)
    (folder / "deep" / "secret").unlink()
    (folder / "deep").rmdir()
    (folder / "deep").symlink_to(secret.parent, target_is_directory=True)
    assert take(folder, findings, room) == []


def test_a_link_in_the_place_of_the_folder_is_not_followed(folder: Path) -> None:
    secret = secret_of(folder)
    folder.rmdir()
    folder.symlink_to(secret.parent, target_is_directory=True)
    with pytest.raises(OSError, match=r"symbolic links|Not a directory"):
        look(folder, MANY)


WAYS = pytest.mark.parametrize("open_it", [beneath.open_in_kernel, beneath.open_by_parts])


@WAYS
@pytest.mark.parametrize("path", ["../out", "a/../../out", "/etc/passwd", "link", "folder-link/x", "a/link"])
def test_no_way_leads_out(tmp_path: Path, open_it: Callable[[int, str], int], path: str) -> None:
    inside = tmp_path / "in"
    (inside / "a").mkdir(parents=True)
    (tmp_path / "out").write_text("secret")
    (inside / "link").symlink_to("../out")
    (inside / "a" / "link").symlink_to("../../out")
    (tmp_path / "x").write_text("secret")
    (inside / "folder-link").symlink_to("..", target_is_directory=True)
    root = os.open(inside, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(OSError):  # noqa: PT011 - ELOOP, EXDEV or ENOTDIR, by the way it is opened
            os.close(open_it(root, path))
    finally:
        os.close(root)


@WAYS
def test_files_below_are_opened(tmp_path: Path, open_it: Callable[[int, str], int]) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").write_text("here")
    root = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    with open(open_it(root, "a/b/c")) as file:
        assert file.read() == "here"
    os.close(root)


def test_without_openat2_it_goes_part_by_part(folder: Path, room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(root: int, path: str, flags: int) -> int:
        raise OSError(38, "not implemented")

    monkeypatch.setattr(beneath, "open_in_kernel", missing)
    (folder / "deep").mkdir()
    (folder / "deep" / "a").write_text("a")
    link(folder)
    findings = look(folder, MANY)
    assert [each.name for each in take(folder, findings, room)] == ["deep/a"]
    assert len(findings.left) == 1


NAMES = {
    "report.csv": True,
    "a/b/c": True,
    "ü/日本 (1).txt": True,
    "x" * 255: True,
    "": False,
    "/a": False,
    "a/": False,
    "a//b": False,
    "./a": False,
    "a/../b": False,
    "a\0b": False,
    "a\nb": False,
    "a\x7f": False,
    "a\\b": False,
    "a\u200bb": False,
    "e\u0301": False,
    "x" * 256: False,
    "/".join(["x" * 200] * 3): False,
    "/".join("x" * 16): True,
    "/".join("x" * 17): False,
}


@pytest.mark.parametrize("name", NAMES)
def test_agent_and_control_plane_take_the_same_names(name: str) -> None:
    assert (artifact_names.problem_of(name) == "") is NAMES[name]
    assert (names_of_the_control_plane.problem_of(name) == "") is NAMES[name]

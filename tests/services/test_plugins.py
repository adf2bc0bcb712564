"""The registry, and bundles that mean harm."""

import asyncio
import gzip
import hashlib
import io
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
from service_rig import INVALID_ARGUMENT, NOT_FOUND, PERMISSION_DENIED, Caller, Rig, refusal, serve

from towline.v1.plugin_service_pb2 import PushPluginRequest
from towline.v1.sandbox_pb2 import Sandbox
from towline_controlplane.blobs import FolderBlobs
from towline_controlplane.blueprints import blueprint_of
from towline_controlplane.errors import InvalidArgument, NotFound
from towline_controlplane.services import bundles
from towline_controlplane.services.bundles import MAX_BUNDLE_BYTES, read_bundle
from towline_controlplane.store import plugins, workflows
from towline_dag.choices import Limits, Network, SideEffects
from towline_plugins.catalog import BUILTINS

MANIFEST = """
name = "hello"
version = "1.0.0"
description = "Says hello."
entry_point = "run.sh"
side_effects = "NONE"
[limits]
timeout_ms = 5000
[config_schema]
type = "object"
required = ["who"]
[config_schema.properties.who]
type = "string"
"""
FILES: Mapping[str, str] = {"plugin.toml": MANIFEST, "run.sh": "echo hello"}


def bundle(files: Mapping[str, str] = FILES, *members: tarfile.TarInfo) -> bytes:
    """Returns a bundle of these files, and of members as they are."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w") as archive,
    ):
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
        for member in members:
            archive.addfile(member, io.BytesIO(b"\0" * member.size))
    return packed.getvalue()


def manifest(**changes: str) -> str:
    """Returns the manifest with lines changed or, for an empty value, removed."""
    lines = [line for line in MANIFEST.splitlines() if line.split(" ")[0] not in changes]
    return "\n".join([*(f"{name} = {value}" for name, value in changes.items() if value), *lines])


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    """Returns a member that is a link."""
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


async def push(caller: Caller, data: bytes, chunk: int = 100_000) -> Any:
    """Pushes a bundle and returns the plugin."""
    parts = [data[start : start + chunk] for start in range(0, len(data), chunk)]
    requests = iter([PushPluginRequest(chunk=part) for part in parts])
    return (await caller.call("PluginService/PushPlugin", requests)).plugin


def test_a_pushed_plugin_is_stored_listed_and_run_by_its_digest(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        data = bundle()
        digest = hashlib.sha256(data).hexdigest()
        plugin = await push(user, data, chunk=7)
        assert (plugin.name, plugin.owner_id, plugin.latest_version) == ("hello", user.id, "1.0.0")
        assert [(each.digest, each.size_bytes) for each in plugin.versions] == [(digest, len(data))]
        assert plugin.versions[0].config_schema["required"] == ["who"]
        blobs = FolderBlobs(rig.folder / "blobs")
        assert b"".join([part async for part in blobs.open(digest)]) == data
        for reference in (plugin.id, "hello"):
            assert (await user.call("PluginService/GetPlugin", pluginId=reference)).plugin == plugin
        node = {"id": "a", "type": "hello", "config": {"who": "you"}}
        await user.call("WorkflowService/CreateWorkflow", name="w", dag={"nodes": [node]})
        every = workflows.WorkflowFilter()
        newest = (await rig.database.read(lambda tx: workflows.list_workflows(tx, every, None, 1)))[0]
        version = await rig.database.read(lambda tx: workflows.get_version(tx, newest.current_version_id))
        assert version is not None
        ref = version.plugins["a"]
        assert (ref.version, ref.digest, ref.timeout_ms) == ("1.0.0", digest, 5000)
        assert ref.side_effects is SideEffects.NONE
        assert not list((rig.folder / "spool").iterdir())

    serve(tmp_path, scenario)


def test_a_node_takes_the_newest_enabled_or_the_pinned_version(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        for version in ("1.9.0", "1.10.0", "2.0.0-beta.1"):
            plugin = await push(user, bundle({**FILES, "plugin.toml": manifest(version=f'"{version}"')}))
        assert plugin.latest_version == "1.10.0"

        async def chosen(**node: str) -> str:
            dag = {"nodes": [{"id": "a", "config": {"who": "x"}, **node}]}
            made = (await user.call("WorkflowService/CreateWorkflow", name="w", dag=dag)).workflow
            row = await rig.database.read(lambda tx: workflows.get_workflow(tx, made.id, None))
            assert row is not None
            version = await rig.database.read(lambda tx: workflows.get_version(tx, row.current_version_id))
            assert version is not None
            return version.plugins["a"].version

        assert await chosen(type="hello") == "1.10.0"
        assert await chosen(type="hello", pluginVersion="1.9.0") == "1.9.0"
        assert await chosen(pluginId=plugin.id) == "1.10.0"
        cases: list[tuple[dict[str, Any], str]] = [
            ({"type": "hello", "pluginVersion": "3.0.0"}, "dag.nodes[0].pluginVersion"),
            ({"type": "other", "pluginId": plugin.id}, "dag.nodes[0].pluginId"),
            ({"type": "hello", "config": {}}, "dag.nodes[0].config.who"),
        ]
        for node, wrong in cases:
            dag = {"nodes": [{"id": "a", "config": {"who": "x"}, **node}]}
            refused = await refusal(user.call("WorkflowService/CreateWorkflow", name="w", dag=dag))
            assert list(refused.violations) == [wrong]

    serve(tmp_path, scenario)


def test_what_a_plugin_may_and_needs_is_told_and_frozen_into_workflow_versions(tmp_path: Path) -> None:
    text = MANIFEST.replace("[limits]", "[permissions]\nnetwork = 'none'\nsecrets = ['KEY']\n[limits]\nlog_kb = 3")

    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        told = (await push(user, bundle({**FILES, "plugin.toml": f"min_sandbox = 'L2'\n{text}"}))).versions[0]
        assert (told.permissions.network, list(told.permissions.secrets)) == (Sandbox.NONE, ["KEY"])
        assert (told.min_sandbox, told.limits.log_bytes, told.limits.timeout.seconds) == (Sandbox.L2, 3 << 10, 5)
        assert not told.limits.HasField("cpu_time")
        await user.plant("KEY", "long enough", "hello")
        dag = {"nodes": [{"id": "a", "type": "hello", "config": {"who": "you"}}]}
        made = await user.call("WorkflowService/CreateWorkflow", name="w", dag=dag)
        row = await rig.database.read(lambda tx: workflows.get_workflow(tx, made.workflow.id, None))
        assert row is not None
        version = await rig.database.read(lambda tx: workflows.get_version(tx, row.current_version_id))
        assert version is not None
        ref = version.plugins["a"]
        assert (ref.network, ref.secrets, ref.min_sandbox) == (Network.NONE, ("KEY",), 2)
        assert ref.limits == Limits(log_kb=3)
        [node_of_dag] = blueprint_of(version).dag.nodes
        assert node_of_dag.requirements.sandbox_level == 2

    serve(tmp_path, scenario)


def test_the_same_bytes_change_nothing_and_others_are_refused(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user, other, admin = await rig.user("ada"), await rig.user("eve"), await rig.admin()
        first = await push(user, bundle())
        assert await push(user, bundle()) == first
        refused = await refusal(push(user, bundle({**FILES, "more.txt": "x"})))
        assert (refused.code, refused.reason) == (grpc.StatusCode.ALREADY_EXISTS, "PLUGIN_VERSION_EXISTS")
        for files in (FILES, {**FILES, "plugin.toml": manifest(version='"2.0.0"')}):
            assert (await refusal(push(other, bundle(files)))).code == PERMISSION_DENIED
        assert len((await push(admin, bundle({**FILES, "plugin.toml": manifest(version='"2.0.0"')}))).versions) == 2

    serve(tmp_path, scenario)


def test_racing_pushes_of_one_name_have_one_owner(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        users = [await rig.user(f"u{n}") for n in range(4)]
        answers = await asyncio.gather(*[push(user, bundle()) for user in users], return_exceptions=True)
        assert len([answer for answer in answers if not isinstance(answer, Exception)]) == 1

    serve(tmp_path, scenario)


@pytest.mark.parametrize("name", [*BUILTINS, "text_transform"])
def test_names_of_builtins_are_taken(tmp_path: Path, name: str) -> None:
    async def scenario(rig: Rig) -> None:
        data = bundle({**FILES, "plugin.toml": manifest(name=f'"{name}"')})
        refused = await refusal(push(await rig.admin(), data))
        assert list(refused.violations) == ["plugin.toml: name"]

    serve(tmp_path, scenario)


def test_builtins_are_listed_and_found(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        listed = (await user.call("PluginService/ListPlugins")).plugins
        assert [each.name for each in listed] == sorted(BUILTINS)
        assert all(each.builtin for each in listed)
        for name in BUILTINS:
            assert (await user.call("PluginService/GetPlugin", pluginId=name)).plugin.name == name
        assert (await refusal(user.call("PluginService/GetPlugin", pluginId="nothing"))).code == NOT_FOUND

    serve(tmp_path, scenario)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (manifest(name=""), ["name"]),
        (manifest(name='"1st"'), ["name"]),
        (manifest(name='"a/b"'), ["name"]),
        (manifest(name='"aaaaaaaa-0000-0000-0000-000000000000"'), ["name"]),
        (manifest(name="7"), ["name"]),
        (manifest(version='"1.0"'), ["version"]),
        (manifest(version='"01.0.0"'), ["version"]),
        (manifest(version=f'"{"9" * 5000}.0.0"'), ["version"]),
        (manifest(entry_point=""), ["entry_point"]),
        (manifest(entry_point='"missing.sh"'), ["entry_point"]),
        (manifest(entry_point='"../run.sh"'), ["entry_point"]),
        (manifest(entry_point='"python:os"'), ["entry_point"]),
        (manifest(description="1"), ["description"]),
        (manifest(side_effects='"SOME"'), ["side_effects"]),
        (manifest(side_effects="[]"), ["side_effects"]),
        (manifest(timeout_ms="0"), ["timeout_ms"]),
        (MANIFEST.replace("5000", "0"), ["limits.timeout_ms"]),
        (MANIFEST.replace("5000", "true"), ["limits.timeout_ms"]),
        (MANIFEST.replace("timeout_ms", "cpu"), ["limits.cpu"]),
        (MANIFEST.replace('"string"', '"strnig"'), ["config_schema.properties.who.type"]),
        (MANIFEST.replace('"string"', "1979-05-27"), ["config_schema.properties.who.type"]),
        (MANIFEST.replace('type = "string"', "maximum = inf"), ["config_schema.properties.who.maximum"]),
        (manifest(permissions="1"), ["permissions"]),
        (manifest(surprise="1"), ["surprise"]),
    ],
)
def test_a_wrong_manifest_names_its_fields(tmp_path: Path, text: str, wrong: list[str]) -> None:
    async def scenario(rig: Rig) -> None:
        refused = await refusal(push(await rig.user("ada"), bundle({**FILES, "plugin.toml": text})))
        assert refused.code == INVALID_ARGUMENT
        assert sorted(refused.violations) == [f"plugin.toml: {field}" for field in wrong]
        assert not await rig.database.read(lambda tx: plugins.list_plugins(tx, "", 10))
        assert not list((rig.folder / "blobs").iterdir())

    serve(tmp_path, scenario)


def _cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _bomb() -> bytes:
    member = tarfile.TarInfo("zeros")
    member.size = 600 << 20
    header = member.tobuf()
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1) as file:
        file.write(header)
        for _ in range(600):
            file.write(b"\0" * (1 << 20))
    return packed.getvalue()


def _header(size: bytes, kind: bytes = tarfile.REGTYPE, name: str = "x") -> bytes:
    """Returns a member's header with any bytes for its size and a right checksum."""
    member = tarfile.TarInfo(name)
    member.type = kind
    raw = bytearray(member.tobuf())
    raw[124:136] = size
    raw[148:156] = b" " * 8
    raw[148:156] = f"{sum(raw):06o}\0 ".encode()
    return bytes(raw)


def _backwards() -> bytes:
    """Returns an archive whose second member leads back to itself: its size is -512."""
    return gzip.compress(_header(b"00000000000\0", name="first") + _header(b"\xff" * 10 + b"\xfe\x00") + bytes(4096))


def _with_endless_header(kind: bytes) -> bytes:
    """Returns a bundle before which a header of 4 MiB stands, which `tarfile` would hold in memory."""
    long = _header(f"{4 << 20:011o}\0".encode(), kind) + b"a" * (4 << 20)
    return gzip.compress(long + gzip.decompress(bundle()), 1)


ATTACKS: Mapping[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "no tar"),
    "not gzip": (lambda: b"PK\x03\x04" + b"x" * 100, "gzip"),
    "gzip of nothing": (lambda: gzip.compress(b""), "no tar"),
    "gzip of text": (lambda: gzip.compress(b"hello" * 500), "no tar"),
    "cut off": (lambda: _cut(bundle({**FILES, "big": "x" * 5000})), "cut off"),
    "no manifest": (lambda: bundle({"run.sh": ""}), "no plugin.toml"),
    "manifest in a folder": (lambda: bundle({"p/plugin.toml": MANIFEST, "run.sh": ""}), "no plugin.toml"),
    "manifest is a link": (lambda: bundle({"run.sh": ""}, link("plugin.toml", "/etc/passwd")), "neither a file"),
    "manifest twice": (lambda: bundle(FILES, tarfile.TarInfo("plugin.toml")), "twice"),
    "manifest twice otherwise": (lambda: bundle(FILES, tarfile.TarInfo("./plugin.toml")), "twice"),
    "manifest too large": (lambda: bundle({**FILES, "plugin.toml": MANIFEST + "#" * 300_000}), "larger than 262144"),
    "manifest no text": (lambda: bundle({"run.sh": ""}, _sized("plugin.toml", 10)), "not TOML"),
    "parent folder": (lambda: bundle(FILES, tarfile.TarInfo("../evil.txt")), "no plain name"),
    "parent folder inside": (lambda: bundle(FILES, tarfile.TarInfo("a/../../evil.txt")), "no plain name"),
    "absolute name": (lambda: bundle(FILES, tarfile.TarInfo("/tmp/evil.txt")), "no plain name"),
    "backslashes": (lambda: bundle(FILES, tarfile.TarInfo("..\\evil.txt")), "no plain name"),
    "symbolic link": (lambda: bundle(FILES, link("a", "/etc/passwd")), "neither a file"),
    "hard link": (lambda: bundle(FILES, link("a", "run.sh", tarfile.LNKTYPE)), "neither a file"),
    "device": (lambda: bundle(FILES, link("a", "", tarfile.CHRTYPE)), "neither a file"),
    "fifo": (lambda: bundle(FILES, link("a", "", tarfile.FIFOTYPE)), "neither a file"),
    "bomb": (_bomb, "unpacks to more than"),
    "size below zero": (_backwards, "no tar"),
    "endless name": (lambda: _with_endless_header(tarfile.GNUTYPE_LONGNAME), "no tar"),
    "endless header": (lambda: _with_endless_header(tarfile.XHDTYPE), "no tar"),
}


def _files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if "towline.db" not in path.name}


def _sized(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    return member


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_bundle_that_means_harm_is_refused(tmp_path: Path, attack: str) -> None:
    """Nothing is written but the spooled bundle, which is gone, and nothing is registered."""

    async def scenario(rig: Rig) -> None:
        before = _files(tmp_path)
        data, reason = ATTACKS[attack]
        refused = await refusal(push(await rig.user("ada"), data(), chunk=1 << 20))
        assert refused.code == INVALID_ARGUMENT
        assert next(iter(refused.violations)) in ("bundle", "plugin.toml")
        assert reason in refused.message
        assert _files(tmp_path) == before
        assert not await rig.database.read(lambda tx: plugins.list_plugins(tx, "", 10))

    serve(tmp_path, scenario)


def test_a_bundle_that_is_too_large_is_refused(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        refused = await refusal(push(user, b"\0" * (MAX_BUNDLE_BYTES + 1), chunk=1 << 20))
        assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED")
        assert not list((rig.folder / "blobs").iterdir())
        assert not list((rig.folder / "spool").iterdir())

    serve(tmp_path, scenario)


def test_members_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundles, "MAX_MEMBERS", 2)
    path = tmp_path / "bundle"
    path.write_bytes(bundle())
    assert read_bundle(path).files == {"plugin.toml", "run.sh"}
    path.write_bytes(bundle({**FILES, "third": ""}))
    with pytest.raises(InvalidArgument, match="more than 2"):
        read_bundle(path)


def test_a_bundle_packed_from_a_folder_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    (folder / "lib").mkdir(parents=True)
    (folder / "plugin.toml").write_text(MANIFEST)
    (folder / "lib" / "code.py").write_text("")
    path = tmp_path / "bundle"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, arcname=".")
    assert read_bundle(path).files == {"plugin.toml", "lib/code.py"}


def test_blobs_are_whole_verified_and_private(tmp_path: Path) -> None:
    async def scenario() -> None:
        blobs = FolderBlobs(tmp_path / "blobs")
        source = tmp_path / "source"
        source.write_bytes(b"0123456789" * 100_000)
        digest = hashlib.sha256(source.read_bytes()).hexdigest()
        with pytest.raises(ValueError, match="digest"):
            await blobs.put_file(source, "0" * 64)
        assert not await blobs.exists("0" * 64)
        assert [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()] == []
        for _ in range(2):
            await blobs.put_file(source, digest)
        stored = [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]
        assert [path.stat().st_mode & 0o777 for path in stored] == [0o600]
        parts = [part async for part in blobs.open(digest, 999_995)]
        assert parts == [b"56789"]
        assert [part async for part in blobs.open(digest, 2_000_000)] == []
        with pytest.raises(NotFound):
            await anext(blobs.open("0" * 64))
        for name in ("../../etc/passwd", digest.upper(), "", digest + "\n"):
            with pytest.raises(InvalidArgument):
                await anext(blobs.open(name))
        with pytest.raises(InvalidArgument):
            await anext(blobs.open(digest, -1))

    asyncio.run(scenario())

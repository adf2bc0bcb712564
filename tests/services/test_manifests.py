"""`plugin.toml` is judged twice, by the SDK before a bundle is sent and by the control plane: always alike."""

from pathlib import Path

import pytest

from towline_controlplane.errors import InvalidArgument
from towline_controlplane.registry import Permissions
from towline_controlplane.services import manifests
from towline_controlplane.services.bundles import BundleContents
from towline_dag.choices import Limits, Network, SandboxLevel
from towline_sdk import bundle, manifest
from towline_sdk.errors import InvalidBundleError

FILES = ("plugin.toml", "plugin.py", "run.sh", "requirements.lock", "wheels/a-1-py3-none-any.whl", "data/x.txt")
VALID = 'name = "p"\nversion = "1.2.3"\nentry_point = "python:plugin:main"\n'
FULL = (
    VALID
    + """
description = "d"
side_effects = "UNSAFE"
min_sandbox = "L3"
[permissions]
network = "none"
secrets = ["API_KEY", "OTHER_1"]
[limits]
timeout_ms = 1
memory_limit_mb = 2
cpu_seconds = 3
processes = 4
open_files = 5
file_mb = 6
output_kb = 7
log_kb = 8
artifact_mb = 9
[environment]
lock = "requirements.lock"
wheels = "wheels/"
"""
)
# What is added to a valid manifest, and the fields that both name.
WRONG = [
    ("surprise = 1", {"surprise"}),
    ("reuse = true", {"reuse"}),
    ('min_sandbox = "L5"', {"min_sandbox"}),
    ("min_sandbox = 2", {"min_sandbox"}),
    ("min_sandbox = []", {"min_sandbox"}),
    ("permissions = 1", {"permissions"}),
    ('permissions = {network = "some"}', {"permissions.network"}),
    ('permissions = {network = "FULL"}', {"permissions.network"}),
    ("permissions = {network = []}", {"permissions.network"}),
    ('permissions = {secrets = "A"}', {"permissions.secrets"}),
    ('permissions = {secrets = ["A-B"]}', {"permissions.secrets"}),
    ('permissions = {secrets = ["lower"]}', {"permissions.secrets"}),
    ("permissions = {secrets = [1]}", {"permissions.secrets"}),
    (f"permissions = {{secrets = {[f'S{n}' for n in range(33)]}}}", {"permissions.secrets"}),
    ("permissions = {files = 1}", {"permissions.files"}),
    ("limits = []", {"limits"}),
    ("limits = {cpu = 1}", {"limits.cpu"}),
    ("limits = {cpu_seconds = 0, log_kb = true}", {"limits.cpu_seconds", "limits.log_kb"}),
    ("limits = {processes = 1.5}", {"limits.processes"}),
    ("environment = 1", {"environment"}),
    ("environment = {}", {"environment.lock"}),
    ("environment = {lock = 1}", {"environment.lock"}),
    ('environment = {lock = "missing.lock"}', {"environment.lock"}),
    ('environment = {lock = "../requirements.lock"}', {"environment.lock"}),
    ('environment = {lock = "requirements.lock", wheels = "missing"}', {"environment.wheels"}),
    ('environment = {lock = "requirements.lock", wheels = "data"}', {"environment.wheels"}),
    ('environment = {lock = "requirements.lock", python = "3"}', {"environment.python"}),
]


def by_control_plane(text: str) -> manifests.Manifest:
    return manifests.manifest_of(BundleContents(text.encode(), frozenset(FILES)))


def by_sdk(text: str, folder: Path) -> manifest.Manifest:
    for name in FILES:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text if name == "plugin.toml" else "")
    (folder / "run.sh").chmod(0o700)
    return bundle.pack(folder).manifest


@pytest.mark.parametrize(("line", "fields"), WRONG, ids=[line[:60] for line, _ in WRONG])
def test_both_name_the_same_wrong_fields(line: str, fields: set[str], tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument) as refused:
        by_control_plane(VALID + line)
    with pytest.raises(InvalidBundleError) as caught:
        by_sdk(VALID + line, tmp_path)
    assert {each.field for each in refused.value.violations} == {f"plugin.toml: {field}" for field in fields}
    assert {each.field for each in caught.value.violations} == fields


def test_both_know_the_same_fields() -> None:
    assert set(manifest.FIELDS) == set(manifests.FIELDS)
    assert set(manifest.LIMITS) == set(manifests.LIMITS)
    assert set(manifest.PERMISSIONS) == set(manifests.PERMISSIONS)
    assert set(manifest.ENVIRONMENT) == set(manifests.ENVIRONMENT)
    assert set(manifest.SANDBOX_LEVELS) == set(SandboxLevel.__members__)
    assert {network.lower() for network in Network} == set(manifest.NETWORKS)


def test_both_read_the_same_of_a_full_manifest(tmp_path: Path) -> None:
    recorded, packed = by_control_plane(FULL), by_sdk(FULL, tmp_path)
    assert recorded.permissions == Permissions(Network.NONE, ("API_KEY", "OTHER_1"))
    assert recorded.min_sandbox is SandboxLevel.L3
    assert (recorded.timeout_ms, recorded.memory_limit_mb, recorded.limits) == (1, 2, Limits(3, 4, 5, 6, 7, 8, 9))
    assert packed.permissions == manifest.Permissions("none", ("API_KEY", "OTHER_1"))
    assert packed.environment == manifest.Environment("requirements.lock", "wheels")
    assert packed.min_sandbox == "L3"
    for name, value in zip(manifest.LIMITS, range(1, 10), strict=True):
        assert getattr(packed, name) == value


def test_what_a_manifest_does_not_say_is_open_and_unlimited(tmp_path: Path) -> None:
    recorded, packed = by_control_plane(VALID), by_sdk(VALID, tmp_path)
    assert (recorded.permissions, recorded.min_sandbox, recorded.limits) == (Permissions(), SandboxLevel.L0, Limits())
    assert (packed.permissions, packed.min_sandbox, packed.environment) == (manifest.Permissions(), "L0", None)


def test_limits_have_an_upper_bound() -> None:
    with pytest.raises(InvalidArgument) as refused:
        by_control_plane(f"{VALID}limits = {{output_kb = {5 * 1024}}}")
    assert [each.field for each in refused.value.violations] == ["plugin.toml: limits.output_kb"]

"""The conformance test of plugins: what `towline plugin test` runs, and what an author's own suite may call.

A case is a file `tests/*.json` of the plugin's folder:

    {"config": {…}, "inputs": {…}, "input": …, "expect": {"output": …}}
    {"config": {…}, "expect": {"failure": {"class": "PERMANENT", "code": "…", "message": "part of it"}}}

Each is run once by `towline_agent.try_plugin`, as an agent would. In pytest:

    @pytest.mark.parametrize("check", plugin_checks(Path("my-plugin")), ids=str)
    def test_conforms(check):
        check()
"""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from towline_sdk.bundle import Bundle, pack
from towline_sdk.errors import InvalidBundleError
from towline_sdk.plugin_schemas import schemas_of

TIMEOUT_SECONDS: Final = 600
_INPUTS: Final = ("config", "inputs", "input")
_KNOWN: Final = frozenset({*_INPUTS, "expect"})


class NotConforming(AssertionError):
    """A plugin does not do what it must; the message says where."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must hold; calling it raises NotConforming if it does not."""

    name: str
    run: Callable[[], None]

    def __call__(self) -> None:
        """Runs the check."""
        self.run()

    def __str__(self) -> str:
        return self.name

    def problem(self) -> str | None:
        """Runs the check; returns what is wrong, None if nothing is."""
        try:
            self.run()
        except NotConforming as error:
            return str(error)
        return None


def plugin_checks(folder: Path) -> list[Check]:
    """Returns the checks of a plugin folder: its manifest, its schemas, its packing, and one for each case."""
    cases = sorted((folder / "tests").glob("*.json"))
    checks = [
        Check("manifest", lambda: _packed(folder) and None),
        Check("schemas", lambda: _check_schemas(_packed(folder))),
        Check("schemas say what the types say", lambda: _check_types(folder)),
        Check("packs alike anywhere", lambda: _check_packing(folder)),
        *(Check(f"tests/{case.name}", lambda case=case: _check_case(folder, case)) for case in cases),
    ]
    return checks if cases else [*checks, Check("cases", _no_cases)]


def _no_cases() -> None:
    raise NotConforming("there is no case: write one into tests/*.json")


def _packed(folder: Path) -> Bundle:
    try:
        return pack(folder)
    except InvalidBundleError as error:
        wrong = [f"{each.field} {each.message}" for each in error.violations]
        raise NotConforming("; ".join(wrong) or str(error)) from error


def _check_schemas(bundle: Bundle) -> None:
    for name, schema in (
        ("config_schema", bundle.manifest.config_schema),
        ("output_schema", bundle.manifest.output_schema),
    ):
        try:
            Draft202012Validator.check_schema(schema)
        except SchemaError as error:
            raise NotConforming(f"{name}: {error.message}") from error


def _check_types(folder: Path) -> None:
    manifest = _packed(folder).manifest
    try:
        typed = schemas_of(folder)
    except InvalidBundleError as error:
        raise NotConforming(str(error)) from error
    if stale := [name for name, schema in typed.items() if getattr(manifest, name) != schema]:
        raise NotConforming(
            f"{', '.join(stale)}: not what the types of the code say; run towline plugin schema {folder}"
        )


def _check_packing(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as elsewhere:
        copy = Path(shutil.copytree(folder, Path(elsewhere) / "copy", copy_function=shutil.copyfile))
        for file in (path for path in folder.rglob("*") if path.is_file()):
            (copy / file.relative_to(folder)).chmod(file.stat().st_mode & 0o700 | 0o600)
        if _packed(copy).digest != _packed(folder).digest:
            raise NotConforming("a copy of the folder packs to other bytes")


def _check_case(folder: Path, file: Path) -> None:
    case = _read_case(file)
    bundle = _packed(folder)
    expected = cast("Mapping[str, Any]", case["expect"])
    _check_fit(bundle.manifest.config_schema, case.get("config", {}), "config")
    tried = _try(folder, case)
    if tried["killedProcesses"]:
        raise NotConforming(f"{tried['killedProcesses']} processes outlived the plugin and had to be killed")
    if "output" in expected:
        _check_output(tried, expected["output"])
        _check_fit(bundle.manifest.output_schema, tried["output"], "output")
    else:
        _check_failure(tried, expected["failure"])


def _read_case(file: Path) -> dict[str, Any]:
    try:
        case: object = json.loads(file.read_bytes())
    except ValueError as error:
        raise NotConforming(f"{file.name} is not JSON: {error}") from error
    if not isinstance(case, dict):
        raise NotConforming(f"{file.name} must be an object")
    known = cast("dict[str, Any]", case)
    expect: object = known.get("expect")
    if known.keys() - _KNOWN or not isinstance(expect, dict) or len(cast("dict[str, Any]", expect)) != 1:
        raise NotConforming(f"{file.name} may hold {', '.join(sorted(_KNOWN))}; expect holds either output or failure")
    if not cast("dict[str, Any]", expect).keys() & {"output", "failure"}:
        raise NotConforming(f"{file.name}: expect holds either output or failure")
    return known


def _check_fit(schema: Mapping[str, Any], value: object, path: str) -> None:
    wrong = [f"{each.json_path.replace('$', path, 1)}: {each.message}" for each in _errors(schema, value)]
    if wrong:
        raise NotConforming("; ".join(wrong[:5]))


def _errors(schema: Mapping[str, Any], value: Any) -> Iterator[Any]:
    return Draft202012Validator(schema).iter_errors(value)  # pyright: ignore[reportUnknownMemberType]


def _try(folder: Path, case: Mapping[str, Any]) -> dict[str, Any]:
    options = [part for name in _INPUTS if name in case for part in (f"--{name}", json.dumps(case[name]))]
    done = subprocess.run(  # noqa: S603 - our own module, no shell
        [sys.executable, "-P", "-m", "towline_agent.try_plugin", str(folder), "--output", "json", *options],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    if not done.stdout:
        raise NotConforming(f"it could not be run: {done.stderr.strip()[-2_000:]}")
    tried = cast("dict[str, Any]", json.loads(done.stdout))
    tried["log"] = done.stderr
    return tried


def _check_output(tried: Mapping[str, Any], expected: object) -> None:
    if tried["outcome"] != "SUCCEEDED":
        raise NotConforming(f"it ended {tried['outcome']}: {json.dumps(tried['failure'], ensure_ascii=False)}")
    if tried["output"] != expected:
        said, wanted = (json.dumps(value, ensure_ascii=False)[:1_000] for value in (tried["output"], expected))
        raise NotConforming(f"the output is {said}, expected {wanted}")


def _check_failure(tried: Mapping[str, Any], expected: Mapping[str, str]) -> None:
    failure = cast("Mapping[str, str] | None", tried["failure"])
    if failure is None:
        raise NotConforming(f"it succeeded with {json.dumps(tried['output'], ensure_ascii=False)[:1_000]}")
    for name, wanted in expected.items():
        found = failure.get(name, "")
        if wanted != found and not (name == "message" and wanted in found):
            raise NotConforming(f"the failure's {name} is {found!r}, expected {wanted!r}")

"""The catalog: its schemas say what the plugins do, and reading it costs none of their imports."""

import importlib
import subprocess
import sys
from typing import Any

import jsonschema
import pytest

from towline_plugins.catalog import BUILTINS, Builtin


@pytest.mark.parametrize("builtin", BUILTINS.values(), ids=lambda builtin: builtin.name)
def test_entry_is_complete(builtin: Builtin) -> None:
    kind, module, function = builtin.entry_point.split(":")
    assert kind == "python"
    assert callable(getattr(importlib.import_module(module), function))
    assert BUILTINS[builtin.name] is builtin
    assert builtin.side_effects in {"NONE", "IDEMPOTENT", "UNSAFE"}
    jsonschema.Draft202012Validator.check_schema(builtin.config_schema)
    jsonschema.Draft202012Validator.check_schema(builtin.output_schema)


def test_reading_the_catalog_imports_no_plugin() -> None:
    code = "import sys, towline_plugins.catalog; print(*(name for name in sys.modules if name.startswith('towline')))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.split() == ["towline_plugins", "towline_plugins.catalog"]


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("TEXT_TRANSFORM", {"transform": "uppercase"}),
        ("TEXT_TRANSFORM", {"transform": "replace", "find": "a", "replacement": ""}),
        ("HTTP_REQUEST", {"url": "https://example.com"}),
        ("HTTP_REQUEST", {"method": "POST", "url": "http://x", "headers": {"a": "b"}, "body": [1], "timeoutMs": 5}),
        ("SHELL", {"command": "true", "env": {"A": "b"}}),
        ("PYTHON", {"code": "def main(config, inputs): ...", "limit": 3}),
        ("JSON_TRANSFORM", {"expression": "input.a"}),
        ("DELAY", {"seconds": 0.5}),
        ("S3_COPY", {"source": "s3://b/k", "target": "s3://b/l", "store": {"endpoint": "https://s3"}, "timeoutMs": 5}),
    ],
)
def test_config_that_is_accepted(name: str, config: dict[str, Any]) -> None:
    jsonschema.validate(config, BUILTINS[name].config_schema)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("TEXT_TRANSFORM", {}),
        ("TEXT_TRANSFORM", {"transform": "shout"}),
        ("TEXT_TRANSFORM", {"transform": "replace"}),
        ("TEXT_TRANSFORM", {"transform": "replace", "find": ""}),
        ("TEXT_TRANSFORM", {"transform": "trim", "texts": "a"}),
        ("HTTP_REQUEST", {"method": "GET"}),
        ("HTTP_REQUEST", {"method": "TRACE", "url": "http://x"}),
        ("HTTP_REQUEST", {"url": "http://x", "headers": {"a": 1}}),
        ("HTTP_REQUEST", {"url": "http://x", "timeoutMs": 0}),
        ("SHELL", {"command": ""}),
        ("SHELL", {"command": "true", "env": {"A": 1}}),
        ("PYTHON", {}),
        ("JSON_TRANSFORM", {"expression": "x" * 2049}),
        ("DELAY", {"seconds": -1}),
        ("DELAY", {"seconds": "1"}),
        ("S3_COPY", {"source": "s3://b/k"}),
        ("S3_COPY", {"source": "/k", "target": "s3://b/l"}),
        ("S3_COPY", {"source": "s3://b/k", "target": "s3://b/l", "store": {"secret": "x"}}),
    ],
)
def test_config_that_is_refused(name: str, config: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(config, BUILTINS[name].config_schema)

"""What the built-in plugins are: names, schemas, entry points. Data alone; none of their code is imported here.

The schemas describe the config as the plugin gets it, after `${{ }}` has been rendered.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

Schema = Mapping[str, Any]

SECRET_PLACEHOLDER = r"\{\{secret:([A-Z_][A-Z0-9_]{0,127})\}\}"  # noqa: S105 - where one is, not one
"""What a config says in the place of a secret, as a regular expression."""

_LONGEST_TEXT = 1_000_000
_LONGEST_CODE = 100_000
_LONGEST_EXPRESSION = 2_048
_LONGEST_URL = 8_192
_MOST_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class Builtin:
    """A plugin that comes with every agent."""

    name: str
    description: str
    entry_point: str
    config_schema: Schema
    output_schema: Schema
    side_effects: str
    """NONE, IDEMPOTENT or UNSAFE, unless a node says otherwise."""
    needs: tuple[str, ...] = ()
    """Modules of libraries that an agent need not have; without them it is offered no step that calls this."""
    network: str = "FULL"
    """NONE asks for a sandbox without network, which not every agent has; our own code needs none to keep off it."""
    uses_network: bool = True
    """One that does not is kept off it wherever the agent can do that, and runs elsewhere too: it is our own code."""
    min_sandbox: str = "L0"
    takes_secrets: bool = False
    """Whether a node may list `secrets`."""
    fills_secrets: bool = False
    """Whether it puts them where its config says `{{secret:NAME}}`."""
    limits: Mapping[str, int] = field(default_factory=dict[str, int])
    """By the names of `[limits]` in `plugin.toml`, beyond time and memory."""


def _object(required: list[str], properties: Mapping[str, Any], **more: object) -> Schema:
    return {"type": "object", "additionalProperties": False, "required": required, "properties": properties, **more}


_TEXT = {"type": "string", "maxLength": _LONGEST_TEXT}
_STRINGS = {"type": "object", "maxProperties": 100, "additionalProperties": {"type": "string", "maxLength": 8_192}}
_REPLACES = {"properties": {"transform": {"const": "replace"}}, "required": ["transform"]}

_TEXT_TRANSFORM = Builtin(
    name="TEXT_TRANSFORM",
    description="Changes a text: the config's, else the only predecessor's, else the run input's.",
    entry_point="python:towline_plugins.text_transform:run",
    config_schema=_object(
        ["transform"],
        {
            "transform": {"enum": ["uppercase", "lowercase", "title", "trim", "reverse", "replace"]},
            "text": _TEXT,
            "find": {"type": "string", "minLength": 1, "maxLength": _LONGEST_TEXT},
            "replacement": _TEXT,
        },
        **{"if": _REPLACES, "then": {"required": ["find"]}},
    ),
    output_schema=_object(["text"], {"text": {"type": "string"}}),
    side_effects="NONE",
    uses_network=False,
)

_HTTP_REQUEST = Builtin(
    name="HTTP_REQUEST",
    description="Sends an HTTP request; 5xx, 429 and network failures are retried, other errors are not.",
    entry_point="python:towline_plugins.http_request:run",
    config_schema=_object(
        ["url"],
        {
            "method": {"enum": ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"], "default": "GET"},
            "url": {"type": "string", "minLength": 1, "maxLength": _LONGEST_URL},
            "headers": _STRINGS,
            "body": {"description": "A text is sent as it is, anything else as JSON."},
            "timeoutMs": {"type": "integer", "minimum": 1, "maximum": _MOST_SECONDS * 1000, "default": 30_000},
        },
    ),
    output_schema=_object(
        ["status", "headers", "body"],
        {
            "status": {"type": "integer", "minimum": 100, "maximum": 599},
            "headers": {"type": "object", "additionalProperties": {"type": "string"}},
            "body": {"type": "string"},
        },
    ),
    side_effects="IDEMPOTENT",
    takes_secrets=True,
    fills_secrets=True,
)

_SHELL = Builtin(
    name="SHELL",
    description="Runs a command line with sh; what it prints is its log and its output.",
    entry_point="python:towline_plugins.shell:run",
    config_schema=_object(
        ["command"],
        {"command": {"type": "string", "minLength": 1, "maxLength": _LONGEST_CODE}, "env": _STRINGS},
    ),
    output_schema=_object(
        ["exitCode", "stdout"],
        {"exitCode": {"const": 0}, "stdout": {"type": "string"}, "truncated": {"const": True}},
    ),
    side_effects="IDEMPOTENT",
    takes_secrets=True,
)

_PYTHON = Builtin(
    name="PYTHON",
    description="Runs Python code that defines main(config, inputs) and returns its dict.",
    entry_point="python:towline_plugins.python:run",
    config_schema={
        **_object(["code"], {"code": {"type": "string", "minLength": 1, "maxLength": _LONGEST_CODE}}),
        "additionalProperties": True,
        "description": "Whatever else the config holds is there for the code.",
    },
    output_schema={"type": "object"},
    side_effects="IDEMPOTENT",
    takes_secrets=True,
)

_JSON_TRANSFORM = Builtin(
    name="JSON_TRANSFORM",
    description="Computes a value from inputs and input with an expression in CEL.",
    entry_point="python:towline_plugins.json_transform:run",
    needs=("cel_expr_python",),
    config_schema=_object(
        ["expression"],
        {"expression": {"type": "string", "minLength": 1, "maxLength": _LONGEST_EXPRESSION}},
    ),
    output_schema=_object(["value"], {"value": {}}),
    side_effects="NONE",
    uses_network=False,
)

_DELAY = Builtin(
    name="DELAY",
    description="Waits for some seconds, within the time limit of the step.",
    entry_point="python:towline_plugins.delay:run",
    config_schema=_object(["seconds"], {"seconds": {"type": "number", "minimum": 0, "maximum": _MOST_SECONDS}}),
    output_schema=_object(["seconds"], {"seconds": {"type": "number"}}),
    side_effects="NONE",
    uses_network=False,
)

_OBJECT = {"type": "string", "pattern": "^s3://", "maxLength": 1_100}
_STORE = {
    "type": "object",
    "additionalProperties": False,
    "description": "Defaults to AWS, with the secrets AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN.",
    "properties": {
        "endpoint": {"type": "string", "minLength": 1, "maxLength": _LONGEST_URL},
        "region": {"type": "string", "minLength": 1, "maxLength": 64, "default": "us-east-1"},
        "accessKeyId": {"type": "string", "maxLength": 256},
        "secretAccessKey": {"type": "string", "maxLength": 256},
        "sessionToken": {"type": "string", "maxLength": 8_192},
    },
}

_S3_COPY = Builtin(
    name="S3_COPY",
    description="Copies an object within a store with the S3 protocol, or from one to another.",
    entry_point="python:towline_plugins.s3_copy:run",
    config_schema=_object(
        ["source", "target"],
        {
            "source": _OBJECT,
            "target": _OBJECT,
            "store": _STORE,
            "targetStore": _STORE,
            "timeoutMs": {"type": "integer", "minimum": 1, "maximum": _MOST_SECONDS * 1000, "default": 300_000},
        },
    ),
    output_schema=_object(
        ["source", "target", "sizeBytes"],
        {
            "source": {"type": "string"},
            "target": {"type": "string"},
            "sizeBytes": {"type": "integer", "minimum": 0},
        },
    ),
    side_effects="IDEMPOTENT",
    takes_secrets=True,
    fills_secrets=True,
)

_ALL = (_DELAY, _HTTP_REQUEST, _JSON_TRANSFORM, _PYTHON, _S3_COPY, _SHELL, _TEXT_TRANSFORM)

BUILTINS: Mapping[str, Builtin] = MappingProxyType({builtin.name: builtin for builtin in _ALL})

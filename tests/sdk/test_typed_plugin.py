"""Plugins whose entry point has types: values arrive as them, and their schemas are written into `plugin.toml`."""

import inspect
import shutil
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import pydantic
import pytest
from jsonschema import Draft202012Validator

from towline_sdk import scaffold
from towline_sdk.manifest import parse_manifest
from towline_sdk.plugin import PermanentError, plugin
from towline_sdk.plugin_schemas import schemas_of, write_schemas
from towline_sdk.testing import plugin_checks
from towline_sdk.type_schemas import NoSchemaError, schema_of


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Point:
    x: float
    y: float = 0.0


@dataclass
class Shape:
    """What is drawn."""

    name: Annotated[str, {"minLength": 1}]
    points: list[Point]
    colour: Colour = Colour.RED
    note: str | None = None
    named: dict[str, Point] = field(default_factory=dict[str, Point])


class Options(TypedDict):
    mode: Literal["fast", "slow"]
    limit: NotRequired[int]


class Settings(pydantic.BaseModel):
    at: Point
    names: list[str] = []


class Model(pydantic.BaseModel):
    below: "Model | None" = None


@dataclass
class Endless:
    below: "list[Endless]"


NUMBER: dict[str, Any] = {"type": "number"}
POINT: dict[str, Any] = {
    "type": "object",
    "required": ["x"],
    "additionalProperties": False,
    "properties": {"x": NUMBER, "y": {**NUMBER, "default": 0.0}},
}
SCHEMAS: list[tuple[Any, dict[str, Any]]] = [
    (
        Shape,
        {
            "type": "object",
            "description": "What is drawn.",
            "required": ["name", "points"],
            "additionalProperties": False,
            "properties": {
                "name": {"type": "string", "minLength": 1},
                "points": {"type": "array", "items": POINT},
                "colour": {"enum": ["red", "blue"]},
                "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                "named": {"type": "object", "additionalProperties": POINT},
            },
        },
    ),
    (
        Options,
        {
            "type": "object",
            "required": ["mode"],
            "additionalProperties": False,
            "properties": {"mode": {"enum": ["fast", "slow"]}, "limit": {"type": "integer"}},
        },
    ),
    (dict[str, Any], {"type": "object", "additionalProperties": {}}),
    (bool, {"type": "boolean"}),
]
SHAPE = {"name": "a", "points": [{"x": 1, "y": 2}], "colour": "blue", "named": {"b": {"x": 3}}}


@pytest.mark.parametrize(("kind", "schema"), SCHEMAS, ids=[str(kind) for kind, _ in SCHEMAS])
def test_types_have_schemas(kind: Any, schema: dict[str, Any]) -> None:
    assert schema_of(kind) == schema
    Draft202012Validator.check_schema(schema)


def test_a_pydantic_model_has_one_without_references() -> None:
    schema = schema_of(Settings)
    assert schema["properties"]["at"]["properties"]["x"]["type"] == "number"
    assert "$ref" not in str(schema)
    assert "$defs" not in str(schema)


@pytest.mark.parametrize("kind", [Endless, Model, set[int], Path, dict[int, str]])
def test_what_has_no_finite_schema_is_refused(kind: Any) -> None:
    with pytest.raises(NoSchemaError):
        schema_of(kind)


def test_values_arrive_as_their_types_and_leave_as_json() -> None:
    @plugin
    def draw(config: Shape, inputs: dict[str, Any]) -> Shape:
        assert inputs == {"before": 1}
        return config

    drawn: Any = draw(config=SHAPE, inputs={"before": 1})  # type: ignore[arg-type]
    assert drawn == {**SHAPE, "note": None, "named": {"b": {"x": 3, "y": 0.0}}}
    assert set(inspect.signature(draw).parameters) == {"config", "inputs"}


def test_pydantic_and_typed_dicts_arrive_too() -> None:
    @plugin
    def place(config: Settings) -> Settings:
        return Settings(at=Point(config.at.x + 1), names=[*config.names, "b"])

    @plugin
    def choose(config: Options) -> str:
        return config["mode"]

    raw: Any = {"at": {"x": 1}, "names": ["a"]}
    assert place(config=raw) == {"at": {"x": 2.0, "y": 0.0}, "names": ["a", "b"]}
    assert choose(config={"mode": "fast"}) == "fast"


def test_failures_pass_through() -> None:
    @plugin
    def refuse(config: Point) -> None:
        raise PermanentError(f"not {config.x}", code="NO")

    raw: Any = {"x": 1}
    with pytest.raises(PermanentError, match="not 1") as refused:
        refuse(config=raw)
    assert refused.value.code == "NO"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    scaffold.create(tmp_path / "greeter", "greeter", "python")
    return tmp_path / "greeter"


def test_a_new_plugin_has_types_and_their_schemas(folder: Path) -> None:
    assert write_schemas(folder) is False
    assert schemas_of(folder)["config_schema"]["properties"] == {"who": {"type": "string", "minLength": 1}}


def test_changed_types_are_noticed_and_written_beside_what_stays(folder: Path) -> None:
    code = folder / "plugin.py"
    code.write_text(code.read_text().replace('    who: Annotated[str, {"minLength": 1}]', (
        '    who: Annotated[str, {"pattern": "^[a-z]+$"}]\n    tags: list[dict[str, "str | None"]] | None = None'
    )))  # fmt: skip
    before = parse_manifest((folder / "plugin.toml").read_bytes())
    problems = {check.name: check.problem() for check in plugin_checks(folder)}
    assert "towline plugin schema" in (problems["schemas say what the types say"] or "")

    assert write_schemas(folder) is True

    after = parse_manifest((folder / "plugin.toml").read_bytes())
    assert after.config_schema == schemas_of(folder)["config_schema"]
    assert (after.name, after.timeout_ms, after.output_schema) == (before.name, before.timeout_ms, before.output_schema)
    assert write_schemas(folder) is False


def test_a_plugin_without_types_says_its_schemas_itself(folder: Path) -> None:
    (folder / "plugin.py").write_text("def run(config): return config\n")
    assert schemas_of(folder) == {}
    assert write_schemas(folder) is False
    shutil.rmtree(folder)
    scaffold.create(folder, "greeter", "bash")
    assert schemas_of(folder) == {}
